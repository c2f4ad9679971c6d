//! The faults of docs/upstream.md, by name.

use std::time::Duration;

use replay::{
    Case, HttpAnswer, settings, steady_upstream,
    upstream::{Answer, Behaviour, Certificate, Upstream},
};

use crate::Function;

/// A way in which an upstream fails, and what the crate `upstream` makes of it with three attempts: a line of the table
/// "Fault by fault" in docs/upstream.md.
///
/// ```
/// use testbed::upstream::Fault;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let fault = Fault::named("answers 503");
/// let upstream = fault.upstream();
/// // The client under test gets `upstream.url("/")`, and good responses until the upstream fails:
/// fault.begin(&upstream).await;
/// assert_eq!((fault.status, fault.what), (502, "upstream-error"));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    /// What the upstream does, in the words of the table.
    pub name: &'static str,
    /// The status that a caller gets if no response is stored.
    pub status: u16,
    /// The name of the problem that a caller then gets, or the body if the status is 200.
    pub what: &'static str,
    /// How many calls the upstream then gets.
    pub calls: usize,
    /// Whether a caller gets a stale response if one is stored.
    pub allows_stale: bool,
    does: Does,
}

#[derive(Clone, Debug)]
enum Does {
    Behave(Behaviour),
    Refuse,
    Present(Certificate),
}

impl Fault {
    /// The upstream does not answer again for a minute, as it has asked for that itself.
    pub const ASKS_FOR_A_PAUSE: &str = "answers 503, Retry-After: 60";

    /// Every fault, in the order of the table.
    pub fn all() -> Vec<Self> {
        use Behaviour::{
            CloseIdle, Drip, EndlessBody, GzipBomb, LengthTooLong, MalformedChunks, MalformedHeaders, ManyHeaders,
            ResetAtConnect, ResetMidBody, ResetMidHeader, Silent, Truncate,
        };
        let unreachable = (502, "upstream-unreachable");
        let error = (502, "upstream-error");
        let too_large = (502, "upstream-response-too-large");
        let timeout = (504, "upstream-timeout");
        let fault =
            |name, does, (status, what), calls, allows_stale| Self { name, status, what, calls, allows_stale, does };
        let status = |status| Does::from(Answer::status(status));
        let with = |name, value: &str| Does::from(Answer::ok("first").cache_control("max-age=60").header(name, value));
        // The rest looks like another response, but must not be used as one.
        let head = "HTTP/1.1 200 OK\ncache-control: max-age=60\ncontent-length: 5";
        let two = Behaviour::raw(head, format!("first{}\r\n\r\nsmuggled", head.replace('\n', "\r\n")), false);
        let redirect = |location| Does::from(Behaviour::redirect(302, location));
        let late = Behaviour::late(Duration::from_secs(10), Answer::ok("late"));
        vec![
            fault("refuses connections", Does::Refuse, unreachable, 0, true),
            fault("resets the connection", ResetAtConnect.into(), unreachable, 0, true),
            fault("resets in the header", ResetMidHeader.into(), unreachable, 3, true),
            fault("resets in the body", ResetMidBody.into(), unreachable, 3, true),
            fault("ends the connection in the body", Truncate.into(), unreachable, 3, true),
            fault("sends nothing", Silent.into(), timeout, 3, true),
            fault("sends a byte a second", Drip.into(), timeout, 3, true),
            fault("answers too late", late.into(), timeout, 3, true),
            fault("answers 400", status(400), error, 1, false),
            fault("answers 401", status(401), error, 1, false),
            fault("answers 404", status(404), error, 1, false),
            fault("answers 429", status(429), error, 3, true),
            fault("answers 500", status(500), error, 1, true),
            fault("answers 502", status(502), error, 3, true),
            fault("answers 503", status(503), error, 3, true),
            fault(Self::ASKS_FOR_A_PAUSE, Answer::status(503).retry_after(60).into(), error, 1, true),
            fault("answers 504", status(504), error, 3, true),
            fault("sends more than its Content-Length", two.into(), (200, "first"), 1, false),
            fault("sends less than its Content-Length", LengthTooLong.into(), timeout, 3, true),
            fault("sends malformed chunks", MalformedChunks.into(), unreachable, 3, true),
            fault("sends malformed headers", MalformedHeaders.into(), unreachable, 3, true),
            fault("sends 100,000 header lines", ManyHeaders.into(), unreachable, 3, true),
            fault("sends a body without end", EndlessBody.into(), too_large, 1, true),
            fault("sends a gzip bomb", GzipBomb.into(), too_large, 1, true),
            fault("sends bad gzip", with("content-encoding", "gzip"), unreachable, 3, true),
            fault("sends an encoding that was not asked for", with("content-encoding", "br"), unreachable, 1, true),
            fault("sends a part that was not asked for", Answer::status(206).body("part").into(), unreachable, 1, true),
            fault("redirects to itself", redirect("/"), error, 4, false),
            fault("redirects to a link-local address", redirect("http://169.254.169.254/"), error, 1, false),
            fault("has another host's certificate", Does::Present(Certificate::WrongName), unreachable, 0, true),
            fault("has an expired certificate", Does::Present(Certificate::Expired), unreachable, 0, true),
            fault("closes idle connections", CloseIdle(Answer::ok("first")).into(), (200, "first"), 1, false),
        ]
    }

    /// The fault with this name.
    pub fn named(name: &str) -> Self {
        let mut all = Self::all();
        let names: Vec<_> = all.iter().map(|fault| fault.name).collect();
        let found = names.iter().position(|other| *other == name);
        all.swap_remove(found.unwrap_or_else(|| panic!("no fault is named {name:?}; there are {names:?}")))
    }

    /// Starts an upstream that can have this fault. It is well until [`begin`](Self::begin), unless the fault is its
    /// certificate.
    pub fn upstream(&self) -> Upstream {
        match self.does {
            Does::Present(certificate) => Upstream::start_tls(certificate),
            _ => Upstream::start(),
        }
    }

    /// From now on, `upstream` has this fault.
    pub async fn begin(&self, upstream: &Upstream) {
        match &self.does {
            Does::Behave(behaviour) => drop(upstream.always(behaviour.clone())),
            Does::Refuse => upstream.refuse().await,
            Does::Present(_) => {}
        }
    }

    /// The answer of `function` to its plain case, while its upstream `name` has this fault and its others are well. The
    /// `executable` is `env!("CARGO_BIN_EXE_…")` in a test of the function's package.
    pub async fn answer_of(&self, function: &str, executable: &str, name: &str) -> HttpAnswer {
        let (well, failing) = (steady_upstream(), self.upstream());
        self.begin(&failing).await;
        let ca_file = failing.ca_file().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        let of_upstream = |setting: &str, value: &str| (format!("{name}_{setting}"), value.to_owned());
        let mut all = settings(function, &well);
        all.extend([
            of_upstream("URL", &failing.url("/")),
            of_upstream("CA_FILE", &ca_file),
            of_upstream("TIMEOUT_MS", "60000"),
            of_upstream("ATTEMPT_TIMEOUT_MS", self.attempt_timeout_ms()),
        ]);
        let all: Vec<_> = all.iter().map(|(name, value)| (&**name, &**value)).collect();
        let outcome =
            Function::start(executable.as_ref(), &all).await.invoke(&Case::plain(function).invocation()).await;
        HttpAnswer::try_from(outcome).expect("an answer")
    }

    /// Whether the upstream's certificate is at fault, which cannot begin or end while the upstream runs.
    pub fn is_permanent(&self) -> bool {
        matches!(self.does, Does::Present(_))
    }

    /// The time limit of one attempt in milliseconds with which a test notices the fault. It is a minute, which no busy
    /// machine exceeds, unless the fault is that the upstream takes too long.
    pub fn attempt_timeout_ms(&self) -> &'static str {
        if self.what == "upstream-timeout" { "1000" } else { "60000" }
    }
}

impl<B: Into<Behaviour>> From<B> for Does {
    fn from(behaviour: B) -> Self {
        Self::Behave(behaviour.into())
    }
}
