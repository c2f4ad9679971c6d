//! Checks the zips: they need nothing that Lambda's image lacks, contain nothing that a function does not need, cost no more
//! than the committed budget allows, and log one line per invocation, in a known format, with nothing of the caller or an
//! upstream.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says why")]

#[path = "../../functions/handler/tests/lines/mod.rs"]
mod lines;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    process::Command,
};

use futures_util::future::join_all;
use lines::read;
use object::{
    Endianness,
    elf::{FileHeader64, PT_DYNAMIC, PT_INTERP},
    read::elf::{FileHeader, ProgramHeader},
};
use rawzip::ZipArchive;
use serde_json::{Map, Value, json};
use testbed::{
    Case, Function, Invocation, TRIGGERS,
    budget::{Budget, cost, linked},
    has_upstream, packaged, packaged_zip, settings, steady_upstream, tested,
    upstream::{Answer, Behaviour, Upstream},
};

/// The version in Amazon Linux 2023.
const GLIBC: (u32, u32) = (2, 34);

#[test]
fn no_symbol_is_newer_than_the_glibc_of_lambdas_image() {
    for function in tested() {
        let binary = fs::read(packaged(&function)).unwrap();
        let needed = glibc_versions(&binary);
        assert!(
            is_static(&binary) || !needed.is_empty(),
            "{function} has a loader, and needs no glibc: is this the right file?"
        );
        let newer: Vec<_> = needed.iter().filter(|version| **version > GLIBC).collect();
        assert!(newer.is_empty(), "{function} needs glibc {newer:?}");
    }
}

#[test]
fn functions_are_linked_statically_if_possible() {
    let link = ["--silent", "--no-print-directory", "--directory=..", "link"];
    let expected = said("make", &link).contains("crt-static");
    for function in tested() {
        assert_eq!(is_static(&fs::read(packaged(&function)).unwrap()), expected, "{function}");
    }
}

#[test]
fn a_package_has_the_function_alone_and_nothing_that_is_for_make_run() {
    let issuer = fs::read_to_string("caller.py").unwrap();
    let issuer = issuer.lines().find_map(|line| line.strip_prefix("ISSUER = \"")?.strip_suffix('"')).unwrap();
    for function in tested() {
        let zip = fs::read(packaged_zip(&function)).unwrap();
        assert_eq!(ZipArchive::from_slice(&zip).unwrap().entries_hint(), 1, "{function}");
        let bootstrap = fs::read(packaged(&function)).unwrap();
        assert!(!String::from_utf8_lossy(&bootstrap).contains(issuer), "{function}");
    }
}

/// Whether the executable needs no loader.
fn is_static(binary: &[u8]) -> bool {
    let header = FileHeader64::<Endianness>::parse(binary).unwrap();
    let endian = header.endian().unwrap();
    let loaded = [PT_INTERP, PT_DYNAMIC];
    header.program_headers(endian, binary).unwrap().iter().all(|header| !loaded.contains(&header.p_type(endian)))
}

/// The glibc versions that the executable names: a dynamic one those that it needs, and a static one none.
fn glibc_versions(binary: &[u8]) -> BTreeSet<(u32, u32)> {
    let text = String::from_utf8_lossy(binary);
    let versions = text.split("GLIBC_").skip(1).filter_map(|rest| rest.split('\0').next()?.split_once('.'));
    versions.filter_map(|(major, minor)| Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))).collect()
}

/// With the variable `WRITE_BUDGET`, which `make budget` sets, what they cost becomes their budget.
#[tokio::test]
async fn no_function_costs_more_than_its_budget() {
    let functions = tested();
    let costs = join_all(functions.iter().map(|function| cost(function))).await;
    let mut overruns = Vec::new();
    for (function, cost) in functions.iter().zip(costs) {
        println!("{function}: {cost:?}");
        if env::var_os("WRITE_BUDGET").is_some() {
            assert!(cost.contains_key("start_instructions"), "a budget needs valgrind, and an x86_64 machine");
            Budget::new(cost).write(function).unwrap();
        } else if let Some(budget) = Budget::committed(function) {
            overruns.extend(budget.overruns(function, &cost));
        }
    }
    assert!(overruns.is_empty(), "{}\nIf that is worth it, `make budget` makes it the budget.", overruns.join("\n"));
}

#[test]
fn a_function_links_the_clients_that_it_declares_and_no_others() {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = said(env!("CARGO"), &["metadata", "--format-version", "1", "--filter-platform", &platform]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let of_handler = linked("lambda-endpoint-handler");
    let mut wrong = Vec::new();
    for function in tested() {
        let name = format!("{function}-function");
        let manifest = packages.iter().find(|package| package["name"] == *name).unwrap();
        let declared = texts(&manifest["metadata"]["endpoint"]["links"]);
        let linked = linked(&name);
        let own = packages.iter().filter(|package| {
            let package = format!("{} v{}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
            linked.contains(&package) && !of_handler.contains(&package)
        });
        wrong.extend(links_differ(&function, &declared, own));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a function links only if its Cargo.toml declares it: the AWS SDK, an HTTP client or TLS. Packages say so
/// themselves.
fn kind(package: &Value) -> Option<&'static str> {
    let name = package["name"].as_str().unwrap_or_default();
    // aws-lc is a library for cryptography.
    if name.starts_with("aws-") && !name.starts_with("aws-lc") {
        return Some("aws");
    }
    let is_client = texts(&package["categories"]).contains(&"web-programming::http-client");
    let is_tls = ["tls", "ssl"].iter().any(|tls| name.contains(tls) || texts(&package["keywords"]).contains(tls));
    (is_client || is_tls).then_some("http")
}

/// What is linked, besides `handler`, without being declared, or declared without being linked. The AWS SDK brings an
/// HTTP client with it.
fn links_differ<'a>(function: &str, declared: &[&str], own: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let place = format!("[package.metadata.endpoint] in functions/{function}/Cargo.toml");
    let mut linked = BTreeMap::from([("aws", BTreeSet::new()), ("http", BTreeSet::new())]);
    for package in own {
        if let Some(kind) = kind(package) {
            linked.entry(kind).or_default().insert(package["name"].as_str().unwrap_or_default());
        }
    }
    let mut wrong = Vec::new();
    for (kind, linked) in linked {
        let may = declared.contains(&kind) || (kind == "http" && declared.contains(&"aws"));
        if !may && !linked.is_empty() {
            let mut line = declared.to_vec();
            line.push(kind);
            wrong.push(format!("{function} links {linked:?}: if it needs that, write `links = {line:?}` into {place}"));
        }
        if declared.contains(&kind) && linked.is_empty() {
            wrong.push(format!("{function} does not link {kind:?}: remove it from `links` in {place}"));
        }
    }
    wrong
}

/// That is for development: a release is started by Lambda alone.
#[test]
fn without_lambda_a_function_says_what_to_do_and_does_not_serve_by_itself() {
    for function in tested() {
        let package = format!("{function}-function");
        let tree =
            said(env!("CARGO"), &["tree", "--edges", "normal,features", "--prefix", "none", "--package", &package]);
        assert!(
            tree.contains("lambda-endpoint-handler v") && !tree.contains("lambda-endpoint-handler feature \"serve\""),
            "{function}: {tree}"
        );
        let output = Command::new(packaged(&function)).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("start it with `make run`") && output.status.code() == Some(1), "{function}: {output:?}");
    }
}

#[test]
fn undeclared_and_unused_links_are_found() {
    let package = |name: &str, about: &str| json!({ "name": name, "categories": [about], "keywords": [about] });
    let sdk = [package("aws-config", ""), package("rustls", "network-programming")];
    let differ = |declared: &[&str], own: &[Value]| links_differ("orders", declared, own.iter());
    assert_eq!(differ(&["aws"], &sdk), Vec::<String>::new());
    assert_eq!(differ(&[], &sdk).len(), 2);
    assert!(differ(&[], &sdk)[0].contains(r#"`links = ["aws"]` into [package.metadata.endpoint]"#));
    for client in [
        package("ureq", "web-programming::http-client"),
        package("curl", "web-programming::http-client"),
        package("native-tls", "network-programming"),
        package("openssl-sys", "cryptography"),
        package("boring", "ssl"),
    ] {
        assert_eq!(differ(&[], std::slice::from_ref(&client)).len(), 1, "{client}");
        assert_eq!(differ(&["http"], &[client]), Vec::<String>::new());
    }
    let others = [package("axum", "web-programming::http-server"), package("aws-lc-rs", "cryptography")];
    assert_eq!(differ(&[], &others), Vec::<String>::new());
    assert_eq!(differ(&["http"], &others).len(), 1);
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A marker in every place where a caller or an upstream can put something.
const PLANTED: &str = "PLANTED";

/// The callers' addresses in events/.
const ADDRESSES: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

/// The payload of `case`, with [`PLANTED`] wherever a caller can put something, also `in_path`.
fn planted(case: &Case, in_path: bool) -> Invocation {
    let mut event: Map<String, Value> = serde_json::from_slice(&case.invocation().payload).unwrap();
    for map in ["headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters"] {
        if let Some(Value::Object(map)) = event.get_mut(map) {
            let lists = map.values().next().is_some_and(Value::is_array);
            for name in ["authorization", "cookie", "x-api-key", "traceparent", PLANTED] {
                map.insert(name.into(), if lists { json!([PLANTED]) } else { PLANTED.into() });
            }
        }
    }
    if let Some(Value::String(query)) = event.get_mut("rawQueryString") {
        *query = format!("{query}&{PLANTED}={PLANTED}");
        event.insert("cookies".into(), json!([format!("session={PLANTED}")]));
    }
    for path in ["rawPath", "path"].into_iter().filter(|_| in_path) {
        if let Some(Value::String(path)) = event.get_mut(path) {
            *path = format!("{path}/{PLANTED}");
        }
    }
    event.insert("body".into(), PLANTED.into());
    Invocation::new(serde_json::to_vec(&event).unwrap())
}

/// Sends `function` all of its cases and what is none, twice, with [`PLANTED`] in them. Returns its log, which has a line for each, and
/// nothing of what the caller or the upstream sent.
async fn log_of(function: &str, upstream: &Upstream, level: &str) -> Vec<Value> {
    let query = format!("?{PLANTED}={PLANTED}");
    let mut settings = settings(function, upstream);
    let of_upstream = settings.iter_mut().filter(|(_, value)| value.starts_with(&upstream.url("")));
    of_upstream.for_each(|(_, url)| url.push_str(&query));
    settings.push(("AWS_LAMBDA_LOG_LEVEL".into(), level.into()));
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut process = Function::start(&packaged(function), &settings).await;
    let cases = Case::all(function);
    let mut events: Vec<Invocation> = cases.iter().map(|case| planted(case, true)).collect();
    // An endpoint with a path answers 404 to any other, and calls no upstream.
    let routed = cases.iter().filter(|case| case.name.ends_with(".http-api"));
    events.extend(routed.map(|case| planted(case, false)));
    // These are not from an HTTP trigger.
    events.extend([PLANTED.to_owned(), json!({ PLANTED: PLANTED }).to_string()].map(Invocation::new));
    let mut sent = BTreeSet::new();
    for event in events.iter().chain(&events) {
        let invocation = Invocation::new(event.payload.clone());
        process.invoke(&invocation).await;
        sent.insert(invocation.request_id);
    }
    let lines = process.terminate().await;
    for secret in [PLANTED, ADDRESSES[0], ADDRESSES[1]] {
        assert!(lines.iter().all(|line| !line.contains(secret)), "{secret} is in {lines:#?}");
    }
    let events = read(&lines);
    let is_line = |event: &&Value| ["invocation", "the invocation failed"].iter().any(|it| event["message"] == *it);
    let lines: Vec<&str> = events.iter().filter(is_line).filter_map(|event| event["request_id"].as_str()).collect();
    assert!(lines.len() == sent.len() && lines.iter().all(|id| sent.contains(*id)), "{function}: {events:#?}");
    events
}

#[tokio::test]
async fn an_invocation_logs_one_line_without_caller_data() {
    let upstream = steady_upstream();
    for function in tested() {
        let events = log_of(&function, &upstream, "INFO").await;
        assert_eq!(events.iter().filter(|event| event["cold_start"] == true).count(), 1, "{function}");
        let logged: BTreeSet<&str> = events.iter().filter_map(|event| event["trigger"].as_str()).collect();
        let cases = Case::all(&function);
        let sent = cases.iter().filter_map(|case| TRIGGERS.into_iter().find(|trigger| case.name.ends_with(trigger)));
        let sent: BTreeSet<&str> = sent.map(|trigger| trigger.trim_end_matches("-multi-value")).collect();
        assert_eq!(logged, sent, "{function}");
        let traced = log_of(&function, &upstream, "TRACE").await;
        // The clients trace; `handler` does not.
        let is_traced = traced.len() > events.len() || !has_upstream(&function);
        assert!(is_traced, "{function}: nothing was traced, so nothing was searched");
    }
}

#[tokio::test]
async fn upstream_data_stays_out_of_the_log() {
    let upstream = Upstream::start();
    let good = Answer::ok(PLANTED).header("x-secret", PLANTED).header("set-cookie", PLANTED);
    // A new process each time: one that has met a fault may answer from its cache, or because its circuit breaker is open.
    let log_all = async || {
        for function in tested().iter().filter(|function| has_upstream(function)) {
            log_of(function, &upstream, "TRACE").await;
        }
    };
    for behaviour in [
        Behaviour::from(good),
        Answer::status(503).into(),
        Answer::status(404).into(),
        Behaviour::redirect(302, format!("/{PLANTED}?{PLANTED}")),
        Behaviour::redirect(302, format!("http://127.0.0.1:1/?{PLANTED}")),
        Behaviour::redirect(302, format!("not a url {PLANTED}")),
        Behaviour::ResetMidBody,
        Behaviour::MalformedHeaders,
        Behaviour::Truncate,
    ] {
        upstream.always(behaviour);
        log_all().await;
    }
    upstream.refuse().await;
    log_all().await;
}
