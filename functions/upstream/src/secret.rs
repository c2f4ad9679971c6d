//! The upstream's bearer token, from AWS Secrets Manager. None of this runs if no secret is configured.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use aws_sdk_secretsmanager::{
    Client, config::timeout::TimeoutConfig, operation::get_secret_value::GetSecretValueOutput,
};
use handler::{after_response, http::HeaderValue, spawn};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout_at},
};

use crate::{error::Failure, settings::Settings};

/// How long a token is used before it is loaded again. Meanwhile the old one is used.
const USED_FOR: Duration = Duration::from_mins(5);
/// If the upstream refuses every token, the token is loaded again at most this often.
const REFUSED_EVERY: Duration = Duration::from_secs(10);
/// How long Secrets Manager is left alone after it did not return the secret.
const PAUSE: Duration = Duration::from_secs(5);
/// How long Secrets Manager may take, unless operations of AWS may take longer. A request that has less time gives up earlier, but
/// the load goes on.
const LOADED_WITHIN: Duration = Duration::from_secs(3);

static SECRETS: aws::Lazy<Client> = aws::Lazy::new(|config| {
    let of_all = config.timeout_config().and_then(TimeoutConfig::operation_timeout).unwrap_or_default();
    Client::new(&config.to_builder().timeout_config(aws::timeouts(LOADED_WITHIN.max(of_all))).build())
});

/// A secret, loaded when it is first needed.
pub(crate) struct Secret(Arc<Inner>);

struct Inner {
    /// The upstream's name.
    name: &'static str,
    id: String,
    json_key: Option<String>,
    token: Mutex<Token>,
}

#[derive(Default)]
struct Token {
    authorization: Option<HeaderValue>,
    /// When it was loaded, unless it must be loaded again.
    since: Option<Instant>,
    refused: Option<Instant>,
    /// When it could not be loaded, and why.
    failed: Option<(Instant, Failure)>,
    /// The load that is under way, or the last one.
    load: Option<Load>,
}

/// `None` while the load is under way. If it panics, the sender is dropped without a result.
type Load = watch::Receiver<Option<Loaded>>;
type Loaded = Result<HeaderValue, Failure>;

impl Secret {
    /// The secret that `settings` name. `None` if they name none.
    pub(crate) fn new(settings: &Settings) -> Option<Self> {
        let (id, json_key) = (settings.secret_id.clone()?, settings.secret_json_key.clone());
        Some(Self(Arc::new(Inner { name: settings.name, id, json_key, token: Mutex::default() })))
    }

    /// The value of the `Authorization` header. Callers that need it at the same time load it once.
    pub(crate) async fn authorization(&self, deadline: Instant) -> Loaded {
        self.known_or_loaded(deadline, Inner::load).await
    }

    async fn known_or_loaded<F>(&self, deadline: Instant, load: impl FnOnce(Arc<Inner>) -> F) -> Loaded
    where
        F: Future<Output = Loaded> + Send + 'static,
    {
        let loading = async {
            let mut load = match self.known_or_load(load).await {
                Known::Now(loaded) => return loaded,
                Known::Later(load) => load,
            };
            match load.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(loaded)) => loaded.clone(),
                _ => Err(Failure::bug("a load of the secret panicked")),
            }
        };
        timeout_at(deadline, loading)
            .await
            .unwrap_or_else(|_| Err(unavailable(self.0.name, "the time for the request ran out")))
    }

    /// What is known of the token by now, or the load that will tell. A load has its own task: it goes on when the
    /// request that began it is gone, or else a secret that takes longer than a request would never be loaded.
    async fn known_or_load<F>(&self, load: impl FnOnce(Arc<Inner>) -> F) -> Known
    where
        F: Future<Output = Loaded> + Send + 'static,
    {
        let mut token = self.0.token.lock().await;
        if let Some(loaded) = token.known() {
            return Known::Now(loaded);
        }
        let under_way = token.load.clone().filter(|load| load.has_changed().is_ok() && load.borrow().is_none());
        let load = under_way.unwrap_or_else(|| {
            let (sender, receiver) = watch::channel(None);
            let (inner, loading) = (Arc::clone(&self.0), load(Arc::clone(&self.0)));
            let task = spawn(async move {
                let loaded = loading.await;
                let loaded = inner.token.lock().await.keep(loaded);
                sender.send_replace(Some(loaded));
            });
            // It must be done before Lambda freezes the process.
            after_response(async move { drop(task.await) });
            token.load = Some(receiver.clone());
            receiver
        });
        match &token.authorization {
            // An old token that was not refused probably still works.
            Some(authorization) if token.since.is_some() => Known::Now(Ok(authorization.clone())),
            _ => Known::Later(load),
        }
    }

    /// Makes the next request load the token again, because the upstream `refused` it. Returns `false` if that was done
    /// just before, so that it would not help.
    pub(crate) async fn refuse(&self, refused: &HeaderValue) -> bool {
        let mut token = self.0.token.lock().await;
        // Another call has had it refused at the same time.
        let is_replaced = token.since.is_none() && token.failed.is_none();
        if is_replaced || token.authorization.as_ref() != Some(refused) {
            return true;
        }
        if token.refused.is_some_and(|at| at.elapsed() < REFUSED_EVERY) {
            return false;
        }
        token.refused = Some(Instant::now());
        token.since = None;
        true
    }
}

enum Known {
    Now(Loaded),
    Later(Load),
}

impl Token {
    /// The token, or why there is none. `None` if it must be loaded.
    fn known(&self) -> Option<Loaded> {
        let current = self.since.is_some_and(|since| since.elapsed() < USED_FOR);
        if let Some(authorization) = self.authorization.as_ref().filter(|_| current) {
            return Some(Ok(authorization.clone()));
        }
        let (_, failure) = self.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE)?;
        // An old token may still work.
        Some(self.authorization.clone().ok_or_else(|| failure.clone()))
    }

    /// Keeps the result of a load, and returns what follows from it.
    fn keep(&mut self, loaded: Loaded) -> Loaded {
        match loaded.clone() {
            Ok(authorization) => {
                self.authorization = Some(authorization);
                self.since = Some(Instant::now());
                self.failed = None;
            }
            Err(failure) => {
                if !matches!(failure, Failure::SecretUnavailable(_)) {
                    self.authorization = None;
                }
                self.failed = Some((Instant::now(), failure));
            }
        }
        self.known().unwrap_or(loaded)
    }
}

impl Inner {
    async fn load(self: Arc<Self>) -> Loaded {
        let secret = SECRETS.get().await.get_secret_value().secret_id(&self.id).send().await;
        let secret = secret.map_err(|error| failure(self.name, &error.into()))?;
        let unusable = |fault: &str| Failure::misconfigured(fault.replace("{NAME}", self.name));
        let token = token(&secret, self.json_key.as_deref()).map_err(unusable)?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unusable(NOT_A_TOKEN))?;
        authorization.set_sensitive(true);
        Ok(authorization)
    }
}

const NOT_A_TOKEN: &str = "the secret of {NAME}_SECRET_ID is no token: RFC 6750, section 2.1, allows letters, digits, \
    and `-._~+/`, with `=` at the end";

/// The token in `secret`, or what is wrong with it, without any part of it. White space around it is left out, because
/// an editor or `echo` adds a line end.
fn token(secret: &GetSecretValueOutput, json_key: Option<&str>) -> Result<String, &'static str> {
    let text = match (secret.secret_string(), secret.secret_binary()) {
        (Some(text), _) => text.trim(),
        (None, Some(_)) => return Err("the secret of {NAME}_SECRET_ID is binary: store the token as text"),
        (None, None) => "",
    };
    let Some(key) = json_key else { return bearer(text) };
    let members: Members = serde_json::from_str(text).map_err(
        |_| "the secret of {NAME}_SECRET_ID is no JSON object, but {NAME}_SECRET_JSON_KEY names a member of one",
    )?;
    let mut members = members.0.into_iter().filter(|(name, _)| name == key);
    match (members.next(), members.next()) {
        (Some((_, Value::String(token))), None) => bearer(token.trim()),
        (Some(_), None) => Err("the member of the secret that {NAME}_SECRET_JSON_KEY names is no string"),
        (Some(_), Some(_)) => Err("the secret has the member that {NAME}_SECRET_JSON_KEY names more than once"),
        (None, _) => Err("the secret of {NAME}_SECRET_ID has no member that {NAME}_SECRET_JSON_KEY names"),
    }
}

/// `text` if it is a `b64token` (RFC 6750, section 2.1).
fn bearer(text: &str) -> Result<String, &'static str> {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let token = text.trim_end_matches('=');
    match text.as_bytes() {
        [] => Err("the secret of {NAME}_SECRET_ID holds no text"),
        _ if !token.is_empty() && token.bytes().all(is_of_token) => Ok(text.to_owned()),
        [b'{', ..] => Err("the secret of {NAME}_SECRET_ID is JSON: name its member in {NAME}_SECRET_JSON_KEY"),
        _ if text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer ")) => {
            Err("the secret of {NAME}_SECRET_ID begins with `Bearer`: store only the token")
        }
        _ => Err(NOT_A_TOKEN),
    }
}

/// The members of a JSON object, repeated ones included.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Decides why there is no secret: a mistake of the operator, or a temporary fault of AWS or the network.
fn failure(name: &'static str, error: &aws::Error) -> Failure {
    let is_throttling = error.code().is_some_and(|code| code.contains("Throttl") || code.contains("TooManyRequests"));
    match error.status() {
        Some(status @ 400..500) if !is_throttling && !matches!(status, 408 | 429) => {
            Failure::misconfigured(SecretError { name, why: error.to_string() })
        }
        _ => unavailable(name, error.to_string()),
    }
}

fn unavailable(name: &'static str, why: impl Into<String>) -> Failure {
    Failure::SecretUnavailable(Arc::new(SecretError { name, why: why.into() }))
}

/// Why the secret could not be read. See [`aws::Error`]: it contains nothing of the secret.
#[derive(Debug)]
struct SecretError {
    /// The upstream's name.
    name: &'static str,
    why: String,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret of {}_SECRET_ID could not be read: {}", self.name, self.why)
    }
}

impl Error for SecretError {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_sdk_secretsmanager::primitives::Blob;
    use tokio::time::sleep;

    use super::*;

    fn secret() -> Secret {
        let variables = [("UPSTREAM_URL", "https://example.com"), ("UPSTREAM_SECRET_ID", "id")];
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Secret::new(&Settings::read("UPSTREAM", variable).unwrap()).expect("a secret")
    }

    fn in_time(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_takes_longer_than_a_request_is_finished_for_the_next_ones() {
        static LOADS: AtomicUsize = AtomicUsize::new(0);
        let secret = secret();
        let load = |_| async {
            LOADS.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(2500)).await;
            Ok(HeaderValue::from_static("Bearer token"))
        };
        let mut known = Vec::new();
        for _ in 0..6 {
            known.push(secret.known_or_loaded(in_time(1000), load).await.is_ok());
        }
        assert_eq!(known, [false, false, true, true, true, true]);
        assert_eq!(LOADS.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_panics_is_not_the_last_one() {
        let secret = secret();
        let loaded = secret.known_or_loaded(in_time(1000), |_| async { panic!("in a load") }).await;
        assert!(matches!(loaded, Err(Failure::Bug(_))), "{loaded:?}");
        let load = |_| async { Ok(HeaderValue::from_static("Bearer token")) };
        assert!(secret.known_or_loaded(in_time(1000), load).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_token_is_used_while_there_is_no_new_one_and_a_refused_one_is_loaded_again() {
        let secret = secret();
        let first = HeaderValue::from_static("Bearer first");
        let loaded = |token: &HeaderValue| std::future::ready(Ok(token.clone()));
        let known = secret.known_or_loaded(in_time(1000), |_| loaded(&first)).await;
        assert_eq!(known.ok(), Some(first.clone()));
        assert!(secret.refuse(&first).await && secret.refuse(&first).await, "two calls at the same time");
        let known = secret.known_or_loaded(in_time(1000), |_| async { Err(unavailable("UPSTREAM", "")) }).await;
        assert_eq!(known.ok(), Some(first.clone()));
        assert!(!secret.refuse(&first).await, "that was done just before");
        tokio::time::advance(PAUSE).await;
        let second = HeaderValue::from_static("Bearer second");
        let known = secret.known_or_loaded(in_time(1000), |_| loaded(&second)).await;
        assert_eq!(known.ok(), Some(second));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_new_token_while_there_is_an_old_one() {
        let secret = secret();
        let (first, second) = (HeaderValue::from_static("Bearer first"), HeaderValue::from_static("Bearer second"));
        let load = |loaded: Loaded| {
            |_| async {
                sleep(Duration::from_secs(1)).await;
                loaded
            }
        };
        let known = async |loaded: Loaded| secret.known_or_loaded(in_time(2000), load(loaded)).await.ok();
        assert_eq!(known(Ok(first.clone())).await, Some(first.clone()));
        sleep(USED_FOR).await;
        let began = Instant::now();
        assert_eq!(known(Ok(second.clone())).await, Some(first));
        assert_eq!(began.elapsed(), Duration::ZERO);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(known(Err(Failure::bug(""))).await, Some(second.clone()));
        // If the operator has broken the secret, the old token is not used for long.
        sleep(USED_FOR).await;
        assert_eq!(known(Err(Failure::misconfigured(NOT_A_TOKEN))).await, Some(second));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(known(Err(Failure::bug(""))).await, None);
    }

    #[test]
    fn a_secret_is_a_token_or_has_a_member_that_is_one() {
        let none = "has no member";
        for (text, json_key, expected) in [
            ("tok", None, Ok("tok")),
            (" tok==\r\n", None, Ok("tok==")),
            ("eyJhbGciOiJub25lIn0.e30._-~+/", None, Ok("eyJhbGciOiJub25lIn0.e30._-~+/")),
            ("", None, Err("holds no text")),
            (" \n", None, Err("holds no text")),
            ("====", None, Err("is no token")),
            ("a=b", None, Err("is no token")),
            ("two words", None, Err("is no token")),
            ("tok\nx: y", None, Err("is no token")),
            ("t\u{f6}k", None, Err("is no token")),
            ("\u{feff}tok", None, Err("is no token")),
            (r#""tok""#, None, Err("is no token")),
            ("Bearer tok", None, Err("begins with `Bearer`")),
            ("bearer tok", None, Err("begins with `Bearer`")),
            (r#"{"token":"tok"}"#, None, Err("is JSON: name its member")),
            (r#"{"token":"tok","other":{"a":[1]}}"#, Some("token"), Ok("tok")),
            (" {\"token\":\"tok\\n\"}\n", Some("token"), Ok("tok")),
            (r#"{"token":"tok"}"#, Some("Token"), Err(none)),
            ("{}", Some("token"), Err(none)),
            (r#"{"a":{"token":"tok"}}"#, Some("token"), Err(none)),
            (r#"{"token":"a","token":"b"}"#, Some("token"), Err("more than once")),
            (r#"{"token":7}"#, Some("token"), Err("is no string")),
            (r#"{"token":null}"#, Some("token"), Err("is no string")),
            (r#"{"token":""}"#, Some("token"), Err("holds no text")),
            (r#"{"token":"Bearer tok"}"#, Some("token"), Err("begins with `Bearer`")),
            (r#"{"token":"{}"}"#, Some("token"), Err("is JSON: name its member")),
            ("tok", Some("token"), Err("is no JSON object")),
            (r#"{"token":"tok""#, Some("token"), Err("is no JSON object")),
            (r#"["tok"]"#, Some("token"), Err("is no JSON object")),
            ("", Some("token"), Err("is no JSON object")),
        ] {
            let secret = GetSecretValueOutput::builder().secret_string(text).build();
            let actual = token(&secret, json_key);
            match expected {
                Ok(expected) => assert_eq!(actual.as_deref(), Ok(expected), "{text}"),
                Err(words) => assert!(actual.as_ref().is_err_and(|error| error.contains(words)), "{text}: {actual:?}"),
            }
        }
        let binary = GetSecretValueOutput::builder().secret_binary(Blob::new("tok")).build();
        assert!(token(&binary, None).is_err_and(|error| error.contains("is binary")));
        assert!(token(&GetSecretValueOutput::builder().build(), None).is_err_and(|error| error.contains("no text")));
    }
}
