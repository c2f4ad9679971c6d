//! The operator's settings: environment variables, checked once.

use std::{error::Error, fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use url::Url;

const STALE_IF_ERROR_SECONDS: &str = "STALE_IF_ERROR_SECONDS";
pub(crate) const SHARED_STATE_TABLE: &str = "SHARED_STATE_TABLE";
const SHARED_STATE_TIMEOUT_MS: &str = "SHARED_STATE_TIMEOUT_MS";

/// OpenSSL's variable, which other libraries also read. The AWS SDK trusts its certificates instead of the machine's.
const SSL_CERT_FILE: &str = "SSL_CERT_FILE";

/// Where an upstream is, and the limits of its calls. Its name, such as `PRICES`, begins the name of each variable.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The upstream's name.
    pub(crate) name: &'static str,
    /// The URL: `https`, or `http` to this machine itself.
    pub(crate) url: Url,
    /// The Secrets Manager secret that is sent as a bearer token.
    pub(crate) secret_id: Option<String>,
    /// If the secret is a JSON object: the name of the member that is the token.
    pub(crate) secret_json_key: Option<String>,
    /// The time limit of a whole request, retries included.
    pub(crate) timeout: Duration,
    /// The time limit of one attempt, from connect to the last byte.
    pub(crate) attempt_timeout: Duration,
    /// How long nothing may arrive of a body that is passed on as it arrives.
    #[cfg(feature = "stream")]
    pub(crate) idle_timeout: Duration,
    /// How many attempts a request may make, the first one included.
    pub(crate) max_attempts: u32,
    /// From when on the circuit breaker counts a call as a failure, whatever it came to.
    pub(crate) slow_call: Option<Duration>,
    /// After how long without the head of a response another connection gets a repeatable request too.
    pub(crate) hedge_after: Option<Duration>,
    /// The largest body, after decompression.
    pub(crate) max_body_bytes: usize,
    /// How long the last good response may be used instead of an error.
    pub(crate) stale_if_error: Duration,
    /// CA certificates in PEM to trust for the upstream, instead of Mozilla's.
    pub(crate) ca_file: Option<CaFile>,
    /// The DynamoDB table through which environments share what they know of the upstream.
    pub(crate) shared_state_table: Option<String>,
    /// How long a request may wait for that table.
    pub(crate) shared_state_timeout: Duration,
}

impl Settings {
    /// Reads the settings of the upstream `name` from `variable`, which returns the value of an environment variable. An
    /// empty value counts as unset, because a template cannot leave a variable out.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is missing or invalid.
    pub(crate) fn read(name: &'static str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidSetting> {
        let variable = |setting: &str| variable(setting).filter(|value| !value.is_empty());
        let own = |setting: &str| format!("{name}_{setting}");
        let number = |setting: String, default, allowed: RangeInclusive<u32>| match variable(&setting) {
            None => Ok(default),
            Some(value) => value.parse().ok().filter(|value| allowed.contains(value)).ok_or(InvalidSetting {
                must: format!("must be a whole number from {} to {}", allowed.start(), allowed.end()),
                name: setting,
            }),
        };
        let milliseconds =
            |setting, default| number(setting, default, 1..=900_000).map(|ms| Duration::from_millis(ms.into()));
        let optional =
            |setting: &str| variable(&own(setting)).map(|_| milliseconds(own(setting), Default::default())).transpose();
        let stale_if_error = Some(own(STALE_IF_ERROR_SECONDS)).filter(|own| variable(own).is_some());
        let stale_if_error = stale_if_error.unwrap_or_else(|| STALE_IF_ERROR_SECONDS.to_owned());
        Ok(Self {
            name,
            url: url(own("URL"), variable)?,
            secret_id: variable(&own("SECRET_ID")),
            secret_json_key: variable(&own("SECRET_JSON_KEY")),
            timeout: milliseconds(own("TIMEOUT_MS"), 5000)?,
            attempt_timeout: milliseconds(own("ATTEMPT_TIMEOUT_MS"), 2000)?,
            #[cfg(feature = "stream")]
            idle_timeout: milliseconds(own("IDLE_TIMEOUT_MS"), 30_000)?,
            max_attempts: number(own("MAX_ATTEMPTS"), 3, 1..=10)?,
            slow_call: optional("SLOW_CALL_MS")?,
            hedge_after: optional("HEDGE_AFTER_MS")?,
            // Lambda's answer holds 6 MB, and base64 turns three bytes into four.
            max_body_bytes: number(own("MAX_BODY_BYTES"), 4_194_304, 1..=4_500_000)? as usize,
            stale_if_error: Duration::from_secs(number(stale_if_error, 3600, 0..=31_536_000)?.into()),
            ca_file: [own("CA_FILE"), SSL_CERT_FILE.to_owned()]
                .into_iter()
                .find_map(|setting| Some(CaFile { path: variable(&setting)?.into(), setting })),
            shared_state_table: variable(SHARED_STATE_TABLE),
            shared_state_timeout: milliseconds(SHARED_STATE_TIMEOUT_MS.to_owned(), 40)?,
        })
    }
}

fn url(name: String, variable: impl Fn(&str) -> Option<String>) -> Result<Url, InvalidSetting> {
    let value = variable(&name);
    let invalid = |must: &str| InvalidSetting { name, must: must.to_owned() };
    let Some(value) = value else { return Err(invalid("must be set to the URL to fetch")) };
    let Ok(url) = Url::parse(&value) else { return Err(invalid("must be an absolute URL")) };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("must not hold credentials"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(invalid("must be https, or http to a loopback address")),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// A file of CA certificates, and the variable that names it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CaFile {
    pub(crate) setting: String,
    pub(crate) path: PathBuf,
}

impl fmt::Display for CaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.setting, self.path.display())
    }
}

/// A setting that is missing or invalid. It names the variable and what it must be, but not its value, which may be
/// secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InvalidSetting {
    name: String,
    must: String,
}

impl InvalidSetting {
    pub(crate) fn new(name: &str, must: &str) -> Self {
        Self { name: name.to_owned(), must: must.to_owned() }
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment variable {} {}", self.name, self.must)
    }
}

impl Error for InvalidSetting {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::read("UPSTREAM", variable).map_err(|error| error.to_string())
    }

    #[test]
    fn an_upstream_is_https_or_on_this_machine() {
        for (url, valid) in [
            ("https://example.com/path?query", true),
            ("http://localhost:9000/time", true),
            ("http://127.0.0.1/", true),
            ("http://127.8.9.1:80", true),
            ("http://[::1]:8080/", true),
            ("http://example.com", false),
            ("http://localhost.example.com", false),
            ("http://169.254.169.254/latest/meta-data", false),
            ("http://[::ffff:10.0.0.1]/", false),
            ("https://user:secret@example.com", false),
            ("https://user@example.com", false),
            ("file:///etc/passwd", false),
            ("/time", false),
            ("", false),
        ] {
            let settings = read(&[("UPSTREAM_URL", url)]);
            assert_eq!(settings.is_ok(), valid, "{url}");
            if let Err(error) = settings {
                assert!(error.contains("UPSTREAM_URL") && !error.contains("secret"), "{error}");
            }
        }
    }

    #[test]
    fn numbers_have_defaults_and_bounds() {
        let url = ("UPSTREAM_URL", "https://example.com");
        let settings = read(&[url, ("UPSTREAM_TIMEOUT_MS", ""), ("UPSTREAM_ATTEMPT_TIMEOUT_MS", "750")]).unwrap();
        assert_eq!(settings.timeout, Duration::from_secs(5));
        assert_eq!(settings.attempt_timeout, Duration::from_millis(750));
        assert_eq!(settings.max_body_bytes, 4 * 1024 * 1024);
        assert_eq!((settings.slow_call, settings.hedge_after), (None, None));
        let settings = read(&[url, ("UPSTREAM_SLOW_CALL_MS", "900"), ("UPSTREAM_HEDGE_AFTER_MS", "80")]).unwrap();
        assert_eq!([settings.slow_call, settings.hedge_after], [900, 80].map(|ms| Some(Duration::from_millis(ms))));
        for (name, value) in [
            ("UPSTREAM_TIMEOUT_MS", "0"),
            ("UPSTREAM_ATTEMPT_TIMEOUT_MS", "1.5"),
            ("UPSTREAM_MAX_BODY_BYTES", "5000000"),
            ("UPSTREAM_SLOW_CALL_MS", "0"),
            ("UPSTREAM_HEDGE_AFTER_MS", "soon"),
        ] {
            let error = read(&[url, (name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains("whole number from 1 to"), "{error}");
        }
    }

    #[test]
    fn upstream_ca_file_takes_precedence_over_ssl_cert_file() {
        let url = ("UPSTREAM_URL", "https://example.com");
        for (variables, file) in [
            (&[url][..], None),
            (&[url, (SSL_CERT_FILE, "")], None),
            (&[url, (SSL_CERT_FILE, "/all.pem")], Some("SSL_CERT_FILE (/all.pem)")),
            (&[url, (SSL_CERT_FILE, "/all.pem"), ("UPSTREAM_CA_FILE", "")], Some("SSL_CERT_FILE (/all.pem)")),
            (
                &[url, (SSL_CERT_FILE, "/all.pem"), ("UPSTREAM_CA_FILE", "/own.pem")],
                Some("UPSTREAM_CA_FILE (/own.pem)"),
            ),
        ] {
            let used = read(variables).unwrap().ca_file.map(|used| used.to_string());
            assert_eq!(used.as_deref(), file);
        }
    }
}
