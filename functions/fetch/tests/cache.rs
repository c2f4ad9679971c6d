//! Tests the packaged `fetch` as a cache, rule by rule. This includes what the public test suite for HTTP caches
//! (<https://github.com/http-tests/cache-tests>) tests in a cache for one URL. Some checks use its names.

mod bed;

use std::{
    fmt::Write,
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use bed::{Bed, ENDPOINT, Endpoint, expect};
use libtest_mimic::{Arguments, Failed, Trial};
use testbed::upstream::{Answer, Behaviour, Upstream};

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let mut trials = vec![Trial::test("the_docs_have_the_table_of_rules", || Ok(table()?))];
    for endpoint in [Endpoint::Fetch, Endpoint::PairFailing] {
        for Rule { section, what, checks, .. } in rules() {
            assert!(!checks.is_empty(), "{section} is not checked");
            trials.push(Trial::test(format!("{section}: {what}{}", endpoint.suffix()), move || {
                let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                for check in checks {
                    let what = format!("{check:?}");
                    let outcome = tokio.block_on(ENDPOINT.scope(endpoint, check.run()));
                    outcome.map_err(|error| Failed::from(format!("{error}\n{what}")))?;
                }
                Ok(())
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// What an RFC says, and what is done.
struct Rule {
    section: &'static str,
    what: &'static str,
    done: &'static str,
    checks: Vec<Check>,
}

/// Two requests, and the expected outcome of the second one.
#[derive(Debug)]
struct Check {
    first: Answer,
    then: Behaviour,
    with: Vec<(&'static str, String)>,
    expected: Expected,
}

#[derive(Clone, Debug)]
enum Expected {
    /// The stored response, without a call.
    Reused,
    /// Another response.
    Fetched,
    /// The stored response, after a call that had conditions and got a 304.
    Validated,
    /// The same, and then once more without a call.
    Freshened,
    /// The response to another call, because the 304 to the first was not about the stored response.
    FetchedAfterAll,
    /// The stored response, for this reason.
    Stale(&'static str),
    /// No response: this problem.
    Problem(&'static str),
    /// 304, without a call.
    NotModified,
    /// Another response, with this value of a header or without the header.
    Header(&'static str, Option<&'static str>),
}

impl Check {
    fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        let with = [self.with, vec![(name, value.into())]].concat();
        Self { with, ..self }
    }

    fn then(self, then: impl Into<Behaviour>) -> Self {
        Self { then: then.into(), ..self }
    }

    async fn run(self) -> Outcome {
        let mut bed = Bed::new(Upstream::start(), &[]).await;
        bed.upstream.then(self.first).always(self.then);
        let first = bed.get(&[]).await?;
        let calls = bed.upstream.calls();
        let with: Vec<(&str, &str)> = self.with.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = bed.get(&with).await?;
        let calls = bed.upstream.calls() - calls;
        let conditions = bed.upstream.requests().iter().map(is_conditional).collect::<Vec<_>>();
        let comes_from = |bodies: &[&str], made: usize, status: &str| {
            let is_one = bodies.contains(&answer.body.as_str());
            let told = answer.header("cache-status");
            let differs = || format!("got {answer:?} after {calls} calls; the first was {first:?}");
            (is_one && calls == made && told.contains(status)).then_some(()).ok_or_else(differs)
        };
        match self.expected {
            Expected::Reused => {
                comes_from(&[&first.body], 0, "fetch; hit; ttl=")?;
                expect("status", &answer.status, &first.status)
            }
            Expected::Fetched => comes_from(&["second"], 1, "fetch; fwd="),
            Expected::Validated => {
                comes_from(&[&first.body], 1, "fetch; fwd=stale; fwd-status=304")?;
                expect("conditions", &conditions, &vec![false, true])
            }
            Expected::Freshened => {
                comes_from(&[&first.body], 1, "fetch; fwd=stale; fwd-status=304")?;
                let told = bed.get(&[]).await?.header("cache-status").to_owned();
                told.starts_with("fetch; hit; ttl=").then_some(()).ok_or(format!("then {told}"))
            }
            Expected::FetchedAfterAll => {
                comes_from(&["second"], 2, "fetch; fwd=stale; fwd-status=200")?;
                expect("conditions", &conditions, &vec![false, true, false])
            }
            Expected::Stale(reason) => comes_from(&[&first.body], calls, &format!("; detail={reason}")),
            Expected::Problem(problem) => expect("problem", &answer.problem(), &problem.to_owned()),
            Expected::NotModified => {
                expect("status", &(answer.status, answer.body.as_str(), calls), &(304, "", 0))?;
                expect("etag", &answer.header("etag"), &first.header("etag"))
            }
            Expected::Header(name, value) => expect(name, &answer.headers.get(name).map(String::as_str), &value),
        }
    }
}

fn is_conditional(request: &testbed::upstream::Request) -> bool {
    request.header("if-none-match").is_some() || request.header("if-modified-since").is_some()
}

/// A first response of `status` with these header lines.
fn check(status: u16, lines: &[&str], expected: Expected) -> Check {
    let first = with_lines(Answer::status(status).body(if status == 204 { "" } else { "first" }), lines);
    let second = Answer::ok("second").cache_control("no-store");
    Check { first, then: second.into(), with: Vec::new(), expected }
}

fn with_lines(answer: Answer, lines: &[&str]) -> Answer {
    lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .fold(answer, |answer, (name, value)| answer.header(name, value))
}

fn reused(lines: &[&str]) -> Check {
    check(200, lines, Expected::Reused)
}

fn fetched(lines: &[&str]) -> Check {
    check(200, lines, Expected::Fetched)
}

/// The upstream answers a conditional request with a 304 that has these lines, and any other with a response.
fn asked(first: &[&str], not_modified: &[&str], expected: Expected) -> Check {
    let not_modified = with_lines(Answer::status(304), not_modified);
    let second = Answer::ok("second").cache_control("no-store");
    let decide = move |request: &testbed::upstream::Request| {
        if is_conditional(request) { not_modified.clone().into() } else { second.clone().into() }
    };
    check(200, first, expected).then(Behaviour::decide(decide))
}

/// The upstream fails.
fn failing(first: &[&str], expected: Expected) -> Check {
    check(200, first, expected).then(Answer::status(500))
}

/// A date header, `seconds` from now.
fn dated(name: &str, seconds: i64) -> String {
    let now = SystemTime::now();
    let by = Duration::from_secs(seconds.unsigned_abs());
    format!("{name}: {}", httpdate::fmt_http_date(if seconds < 0 { now - by } else { now + by }))
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn rules() -> Vec<Rule> {
    let rule = |section, what, done, checks| Rule { section, what, done, checks };
    let (soon, past, ago) = (&*dated("expires", 3600), &*dated("expires", -1), &*dated("last-modified", -100_000));
    let (long_ago, now) = (&*dated("date", -7200), &*dated("date", 0));
    let expired = "cache-control: max-age=100, must-revalidate";
    vec![
        rule(
            "RFC 9111, 3",
            "which responses may be stored",
            "Successes that have a lifetime, are `public`, or have a heuristically cacheable status. A success's status is stored and passed on (201, 202, 203, 204, 299). Responses with other statuses are neither.",
            vec![
                reused(&["cache-control: max-age=60"]),
                check(201, &["cache-control: max-age=60"], Expected::Reused),
                check(202, &["cache-control: max-age=60"], Expected::Reused),
                check(203, &["cache-control: max-age=60"], Expected::Reused),
                check(204, &["cache-control: max-age=60"], Expected::Reused),
                check(299, &["cache-control: max-age=60"], Expected::Reused),
                check(404, &["cache-control: max-age=60"], Expected::Fetched),
                check(500, &["cache-control: max-age=60"], Expected::Fetched),
                // Stored, although it says nothing about freshness: it stands in.
                failing(&[], Expected::Stale("stale-if-error")),
                check(201, &[], Expected::Problem("upstream-error")).then(Answer::status(500)),
            ],
        ),
        rule(
            "RFC 9111, 3.1",
            "which header fields are stored",
            "Those that a caller gets, and those that caching depends on. `Set-Cookie` and the connection's fields are not stored, so a response that has them may be.",
            vec![
                reused(&["cache-control: max-age=60", "set-cookie: a=b", "connection: x-a", "x-a: b"]),
                check(200, &["cache-control: max-age=60", "set-cookie: a=b"], Expected::Header("set-cookie", None)),
            ],
        ),
        rule(
            "RFC 9111, 3.2 and 4.3.4",
            "a 304 updates the stored response",
            "It updates the stored fields, and so the freshness, which counts from the 304's own `Age` and `Date`. If its validators are another response's, it updates nothing, and the upstream is asked again without conditions.",
            vec![
                asked(&[expired, "age: 100", "etag: \"1\""], &["etag: \"1\""], Expected::Validated),
                asked(&[expired, "age: 100", "etag: \"1\""], &[], Expected::Validated),
                asked(&[expired, "age: 100", "etag: W/\"1\""], &["etag: W/\"1\""], Expected::Validated),
                asked(&[expired, "age: 100", "etag: \"1\""], &["etag: \"2\""], Expected::FetchedAfterAll),
                asked(&[expired, "age: 100", ago], &["etag: \"2\""], Expected::FetchedAfterAll),
                asked(
                    &[expired, "age: 100", "etag: \"1\"", "content-language: en"],
                    &["content-language: de"],
                    Expected::Header("content-language", Some("de")),
                ),
                asked(&[expired, "age: 500", "etag: \"1\""], &["etag: \"1\""], Expected::Freshened),
            ],
        ),
        rule(
            "RFC 9111, 3.3 and 3.4",
            "incomplete and partial responses",
            "Never stored and never passed on: 502. No `Range` is sent, except an author's own.",
            vec![
                check(206, &["cache-control: max-age=60", "content-range: bytes 0-4/9"], Expected::Fetched),
                check(200, &["cache-control: max-age=0"], Expected::Problem("upstream-unreachable"))
                    .then(with_lines(Answer::status(206).body("part"), &["content-range: bytes 0-3/9"])),
            ]
            .into_iter()
            .map(|check| Check { first: check.first.cache_control("must-revalidate"), ..check })
            .collect(),
        ),
        rule(
            "RFC 9111, 3.5",
            "responses to requests with `Authorization`",
            "With the secret's token they are stored like others: it is the operator's, and the same for every caller. With an author's own `Authorization` they are not. A caller's is not sent on by itself.",
            vec![reused(&["cache-control: max-age=60"]).with("authorization", "Bearer callers-own")],
        ),
        rule(
            "RFC 9111, 4.1",
            "`Vary`",
            "Up to 16 responses to a URL are stored, by the values of the headers that it names. A response that varies by `Authorization`, `traceparent`, `X-Amzn-Trace-Id` or `*` is not stored.",
            vec![
                reused(&["cache-control: max-age=60", "vary: accept, user-agent"]),
                fetched(&["cache-control: max-age=60", "vary: *"]),
                fetched(&["cache-control: max-age=60", "vary: accept", "vary: Traceparent"]),
            ],
        ),
        rule(
            "RFC 9111, 4.2.1",
            "the lifetime",
            "`s-maxage`, else `max-age`, else `Expires` minus `Date`. A directive that has two values, or one that is not a number of seconds, makes the response stale.",
            vec![
                fetched(&["cache-control: max-age=60, s-maxage=0"]),
                fetched(&["cache-control: s-maxage=0", "cache-control: max-age=60"]),
                reused(&["cache-control: max-age=0, s-maxage=60", past]),
                reused(&["cache-control: max-age=60", past]),
                reused(&["cache-control: max-age=60", "expires: 0"]),
                fetched(&["cache-control: max-age=0", soon]),
                fetched(&["cache-control: max-age=60, max-age=0"]),
                fetched(&["cache-control: max-age=0, max-age=60"]),
                fetched(&["cache-control: max-age='60'"]),
                reused(&["cache-control: max-age=60, extension=\"max-age=0\""]),
                fetched(&["cache-control: extension=\"max-age=60\", max-age=0"]),
            ],
        ),
        rule(
            "RFC 9111, 1.2.2",
            "numbers of seconds",
            "A number above 2,147,483,648 counts as 2,147,483,648.",
            vec![
                reused(&["cache-control: max-age=9223372036854775807"]),
                reused(&["cache-control: max-age=99999999999999999999"]),
                fetched(&["cache-control: max-age=3600", "age: 99999999999999999999"]),
                reused(&["cache-control: max-age=003600"]),
            ],
        ),
        rule(
            "RFC 9111, 4.2.2",
            "the heuristic",
            "A tenth of the time since `Last-Modified`, for 200, 203 and 204, and for other successes that are `public`.",
            vec![
                reused(&[ago]),
                check(203, &[ago], Expected::Reused),
                check(204, &[ago], Expected::Reused),
                check(201, &[ago], Expected::Fetched),
                check(202, &[ago], Expected::Fetched),
                check(299, &[ago], Expected::Fetched),
                check(299, &[ago, "cache-control: public"], Expected::Reused),
                fetched(&[ago, "expires: never"]),
                fetched(&[]),
            ],
        ),
        rule(
            "RFC 9111, 4.2.3",
            "the age",
            "As in the RFC: `Age` plus the response's delay, or the time since `Date` if that is more.",
            vec![
                fetched(&["cache-control: max-age=3600", "age: 3600"]),
                fetched(&["cache-control: max-age=3600", long_ago]),
                reused(&["cache-control: max-age=3600", "age: 30", now]),
                fetched(&[soon, now, "age: 7200"]),
            ],
        ),
        rule(
            "RFC 9111, 4.2.4",
            "stale responses",
            "Used where RFC 5861 or `STALE_IF_ERROR_SECONDS` allows it. `no-cache`, `must-revalidate` and `proxy-revalidate` forbid it. So does `s-maxage`, unless a directive of RFC 5861 is beside it.",
            vec![
                failing(&["cache-control: max-age=0"], Expected::Stale("stale-if-error")),
                failing(&["cache-control: max-age=0, must-revalidate"], Expected::Problem("upstream-error")),
                failing(&["cache-control: max-age=0, Proxy-Revalidate"], Expected::Problem("upstream-error")),
                failing(&["cache-control: max-age=0", "cache-control: no-cache"], Expected::Problem("upstream-error")),
                failing(&["cache-control: s-maxage=0"], Expected::Problem("upstream-error")),
                failing(&["cache-control: s-maxage=0, stale-if-error=60"], Expected::Stale("stale-if-error")),
                failing(
                    &["cache-control: max-age=0, must-revalidate, stale-if-error=60, stale-while-revalidate=60"],
                    Expected::Problem("upstream-error"),
                ),
            ],
        ),
        rule(
            "RFC 9111, 4.3.1",
            "validation requests",
            "With `If-None-Match`, `If-Modified-Since`, or both, depending on which validators the response has.",
            vec![
                asked(&["cache-control: no-cache", "etag: \"1\""], &[], Expected::Validated),
                asked(&["cache-control: no-cache, max-age=60", "etag: W/\"1\""], &[], Expected::Validated),
                asked(&[expired, "age: 100", ago], &[], Expected::Validated),
                asked(&["cache-control: max-age=0"], &[], Expected::Fetched),
            ],
        ),
        rule(
            "RFC 9111, 4.3.2; RFC 9110, 13",
            "a caller's conditions",
            "`If-None-Match`, or else `If-Modified-Since`, gets 304 from the stored response. Neither is sent on.",
            vec![
                check(200, &["cache-control: max-age=60", "etag: \"1,2\""], Expected::NotModified)
                    .with("if-none-match", "\"0\", W/\"1,2\""),
                reused(&["cache-control: max-age=60", "etag: \"1\"", ago])
                    .with("if-none-match", "\"2\"")
                    .with("if-modified-since", dated("", 0).split_off(2)),
                check(200, &["cache-control: max-age=60", ago], Expected::NotModified)
                    .with("if-modified-since", ago.split_at("last-modified: ".len()).1),
                reused(&["cache-control: max-age=60", ago]).with("if-modified-since", dated("", -200_000).split_off(2)),
                reused(&["cache-control: max-age=60", ago]).with("if-modified-since", "yesterday"),
            ],
        ),
        rule(
            "RFC 9111, 4.3.3",
            "validation responses",
            "304: the stored response is used. Another success replaces it. After a failure, the stale response may be used.",
            vec![
                asked(&["cache-control: no-cache", "etag: \"1\""], &[], Expected::Validated),
                fetched(&["cache-control: no-cache", "etag: \"1\""]),
                failing(&["cache-control: max-age=0", "etag: \"1\""], Expected::Stale("stale-if-error")),
            ],
        ),
        rule(
            "RFC 9111, 4.3.5 and 4.4",
            "`HEAD`, and methods that change something",
            "A response to `GET` answers `HEAD`, too. One to `HEAD` freshens nothing. A request with an unsafe method that succeeds, or is redirected, removes the responses to its URL, and to its response's `Location` and `Content-Location` within the origin.",
            vec![reused(&["cache-control: max-age=60"])],
        ),
        rule(
            "RFC 9111, 5.1",
            "`Age`",
            "In every answer. If the upstream's response has several, the first counts. One that is not a number is ignored.",
            vec![
                reused(&["cache-control: max-age=3600", "age: abc"]),
                reused(&["cache-control: max-age=3600", "age: -7200"]),
                reused(&["cache-control: max-age=3600", "age: 7200.5"]),
                reused(&["cache-control: max-age=3600", "age: 0, 7200"]),
                reused(&["cache-control: max-age=3600", "age: 0", "age: 7200"]),
                reused(&["cache-control: max-age=3600", "age: 0, 0"]),
                fetched(&["cache-control: max-age=3600", "age: 7200, 0"]),
                fetched(&["cache-control: max-age=3600", "age: 7200", "age: 0"]),
            ],
        ),
        rule(
            "RFC 9111, 5.2.1",
            "directives of a request",
            "Ignored: callers can't cause calls to the upstream.",
            vec![
                reused(&["cache-control: max-age=60"]).with("cache-control", "no-cache"),
                reused(&["cache-control: max-age=60"])
                    .with("cache-control", "max-age=0, no-store")
                    .with("pragma", "no-cache"),
            ],
        ),
        rule(
            "RFC 9111, 5.2.2",
            "directives of a response",
            "Those below, in upper or lower case, in one line or several. Callers get all lines as one.",
            vec![
                reused(&["cache-control: MaX-AgE=60"]),
                reused(&["cache-control: max-age=\"60\""]),
                check(
                    200,
                    &["cache-control: max-age=60"],
                    Expected::Header("cache-control", Some("max-age=60, Must-Revalidate")),
                )
                .then(with_lines(Answer::ok("x"), &["cache-control: max-age=60", "cache-control: Must-Revalidate"])),
            ]
            .into_iter()
            .map(|check| match check.expected {
                Expected::Header(..) => Check { first: Answer::ok("first").cache_control("max-age=0"), ..check },
                _ => check,
            })
            .collect(),
        ),
        rule(
            "RFC 9111, 5.2.2.2 and 5.2.2.8",
            "`must-revalidate`, `proxy-revalidate`",
            "The response is used while it is fresh, and never when it is stale.",
            vec![
                reused(&["cache-control: max-age=60, must-revalidate"]),
                failing(
                    &["cache-control: max-age=60", "cache-control: MUST-revalidate", "age: 60"],
                    Expected::Problem("upstream-error"),
                ),
                failing(
                    &["cache-control: max-age=60, proxy-revalidate", "age: 60"],
                    Expected::Problem("upstream-error"),
                ),
            ],
        ),
        rule(
            "RFC 9111, 5.2.2.3",
            "`must-understand`",
            "With it, `no-store` has no effect if the status is 200, 203 or 204. With another status the response is not stored.",
            vec![
                reused(&["cache-control: max-age=60, no-store, must-understand"]),
                check(299, &["cache-control: max-age=60, no-store, must-understand"], Expected::Fetched),
                check(299, &["cache-control: max-age=60, must-understand"], Expected::Fetched),
            ],
        ),
        rule(
            "RFC 9111, 5.2.2.4",
            "`no-cache`",
            "Stored, and validated before each use. Field names after it make no difference.",
            vec![
                fetched(&["cache-control: No-CaChE, max-age=60", soon]),
                asked(&["cache-control: no-cache=\"a, b\", max-age=60", "etag: \"1\""], &[], Expected::Validated),
            ],
        ),
        rule(
            "RFC 9111, 5.2.2.5",
            "`no-store`",
            "Not stored, and the response stored before is not used again.",
            vec![
                fetched(&["cache-control: no-store"]),
                fetched(&["cache-control: No-StOrE, max-age=60", soon]),
                fetched(&["cache-control: max-age=60", "cache-control: no-store"]),
            ],
        ),
        rule(
            "RFC 9111, 5.2.2.7",
            "`private`",
            "Not stored. Field names after it make no difference.",
            vec![
                fetched(&["cache-control: Private, max-age=60"]),
                fetched(&["cache-control: max-age=60", "cache-control: private"]),
                fetched(&["cache-control: max-age=60, private=\"set-cookie\""]),
            ],
        ),
        rule(
            "RFC 9111, 5.3",
            "`Expires`",
            "In any of the three date formats (RFC 9110, 5.6.7). A malformed date means that the response has expired.",
            vec![
                reused(&[soon]),
                reused(&["expires: Thursday, 18-Aug-50 02:01:18 GMT"]),
                reused(&["expires: Mon Aug  8 02:01:18 2050"]),
                fetched(&[past]),
                fetched(&["expires: 0"]),
                fetched(&["expires: Thu, 18 Aug 2050 02:01:18 AEST"]),
                fetched(&[soon, soon]),
                reused(&[soon, "date: the other day"]),
            ],
        ),
        rule(
            "RFC 9111, 5.4 and 5.5",
            "`Pragma`, `Warning`",
            "`Pragma: no-cache` in a response without `Cache-Control` counts as `no-cache`, which is what HTTP/1.0 servers mean. No `Warning` is sent: it is obsolete.",
            vec![fetched(&["pragma: no-cache", soon]), reused(&["pragma: no-cache", "cache-control: max-age=60"])],
        ),
        rule(
            "RFC 5861, 3",
            "`stale-while-revalidate`",
            "The caller gets the stale response at once. One call gets a new response, before the process can be frozen.",
            vec![
                check(
                    200,
                    &["cache-control: max-age=60, stale-while-revalidate=60", "age: 90"],
                    Expected::Stale("stale-while-revalidate"),
                ),
                fetched(&["cache-control: max-age=60, stale-while-revalidate=10", "age: 90"]),
                fetched(&["cache-control: max-age=60, stale-while-revalidate=60, must-revalidate", "age: 90"]),
            ],
        ),
        rule(
            "RFC 5861, 4",
            "`stale-if-error`",
            "The stale response is used instead of an error, for as long as both this and `STALE_IF_ERROR_SECONDS` allow.",
            vec![
                failing(
                    &["cache-control: max-age=60, stale-if-error=60", "age: 90"],
                    Expected::Stale("stale-if-error"),
                ),
                failing(
                    &["cache-control: max-age=60, stale-if-error=10", "age: 90"],
                    Expected::Problem("upstream-error"),
                ),
                failing(
                    &["cache-control: max-age=60, stale-if-error=9999", "age: 9000"],
                    Expected::Problem("upstream-error"),
                ),
            ],
        ),
        rule(
            "RFC 9211",
            "`Cache-Status`",
            "`hit`, `fwd` (`miss`, `stale`), `fwd-status`, `ttl`, and `detail`: why a stale response was used. `shared` is the table, before the endpoint. `key`, `stored` and `collapsed` are not sent.",
            vec![
                reused(&["cache-control: max-age=60", "age: 20"]),
                check(
                    200,
                    &["cache-control: no-store"],
                    Expected::Header("cache-status", Some("fetch; fwd=miss; fwd-status=200")),
                ),
                check(
                    200,
                    &["cache-control: max-age=0"],
                    Expected::Header("cache-status", Some("fetch; fwd=stale; fwd-status=200")),
                ),
            ],
        ),
    ]
}

/// Checks that the table in the docs matches these rules.
fn table() -> Outcome {
    let mut table = String::from("| section | subject | what is done |\n| --- | --- | --- |\n");
    for Rule { section, what, done, .. } in rules() {
        writeln!(table, "| {section} | {what} | {done} |").map_err(|error| error.to_string())?;
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/upstream.md");
    let text = fs::read_to_string(&docs).map_err(|error| error.to_string())?;
    text.contains(&table).then_some(()).ok_or_else(|| format!("docs/upstream.md must have this table:\n\n{table}"))
}
