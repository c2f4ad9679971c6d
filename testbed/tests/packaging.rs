//! Checks the zips: they need nothing that Lambda's image lacks, and contain nothing that a function does not need.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says why")]

use std::{collections::BTreeSet, fs, process::Command};

use object::{
    Endianness,
    elf::{FileHeader64, PT_DYNAMIC, PT_INTERP},
    read::elf::{FileHeader, ProgramHeader, SectionTable},
};
use testbed::{functions, packaged};

/// The version in Amazon Linux 2023.
const GLIBC: (u32, u32) = (2, 34);

#[test]
fn no_symbol_is_newer_than_the_glibc_of_lambdas_image() {
    for function in functions() {
        let binary = fs::read(packaged(&function)).unwrap();
        let Some(needed) = glibc_versions(&binary) else {
            assert!(is_static(&binary), "{function} has a loader, and needs no glibc: is this the right file?");
            continue;
        };
        let newer: Vec<_> = needed.iter().filter(|version| **version > GLIBC).collect();
        assert!(newer.is_empty(), "{function} needs glibc {newer:?}");
    }
}

#[test]
fn functions_are_linked_statically_if_possible() {
    let make = Command::new("make").args(["--silent", "--no-print-directory", "link"]).current_dir("..").output();
    let make = make.unwrap();
    assert!(make.status.success(), "{}", String::from_utf8_lossy(&make.stderr));
    let expected = String::from_utf8_lossy(&make.stdout).contains("crt-static");
    for function in functions() {
        assert_eq!(is_static(&fs::read(packaged(&function)).unwrap()), expected, "{function}");
    }
}

/// Whether the executable needs no loader.
fn is_static(binary: &[u8]) -> bool {
    let header = FileHeader64::<Endianness>::parse(binary).unwrap();
    let endian = header.endian().unwrap();
    let loaded = [PT_INTERP, PT_DYNAMIC];
    header.program_headers(endian, binary).unwrap().iter().all(|header| !loaded.contains(&header.p_type(endian)))
}

/// The glibc versions that a dynamic executable needs.
fn glibc_versions(binary: &[u8]) -> Option<BTreeSet<(u32, u32)>> {
    let header = FileHeader64::<Endianness>::parse(binary).unwrap();
    let endian = header.endian().unwrap();
    let sections: SectionTable<_> = header.sections(endian, binary).unwrap();
    let (mut needs, link) = sections.gnu_verneed(endian, binary).unwrap()?;
    let strings = sections.strings(endian, binary, link).unwrap();
    let mut versions = BTreeSet::new();
    while let Some((_, mut symbols)) = needs.next().unwrap() {
        while let Some(symbol) = symbols.next().unwrap() {
            let name = std::str::from_utf8(symbol.name(endian, strings).unwrap()).unwrap();
            if let Some((major, minor)) = name.strip_prefix("GLIBC_").and_then(|version| version.split_once('.')) {
                let minor = minor.split('.').next().unwrap_or(minor);
                versions.insert((major.parse().unwrap(), minor.parse().unwrap()));
            }
        }
    }
    Some(versions)
}

/// What a function links only if its Cargo.toml declares it, and how the names of such packages begin.
const DECLARED: [(&str, &[&str]); 2] =
    [("aws", &["aws-", "aws_"]), ("http", &["hyper-rustls", "hyper-tls", "reqwest", "ring", "rustls"])];

#[test]
fn a_function_links_the_clients_that_it_declares_and_no_others() {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let mut wrong = Vec::new();
    for function in functions() {
        let package = format!("{function}-function");
        let manifest = metadata["packages"].as_array().unwrap().iter().find(|found| found["name"] == *package).unwrap();
        let links = &manifest["metadata"]["endpoint"]["links"];
        let declared: Vec<&str> =
            links.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
        let tree = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--package", &package]);
        wrong.extend(links_differ(&function, &declared, &tree));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is linked without being declared, or declared without being linked. The AWS SDK brings an HTTP client with it.
fn links_differ(function: &str, declared: &[&str], tree: &str) -> Vec<String> {
    let place = format!("[package.metadata.endpoint] in functions/{function}/Cargo.toml");
    let mut wrong = Vec::new();
    for (kind, prefixes) in DECLARED {
        let linked: BTreeSet<&str> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)) && *name != "aws_lambda_events")
            .collect();
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

#[test]
fn undeclared_and_unused_links_are_found() {
    let tree = "orders-function v0.1.0\naws_lambda_events v1.2.0\naws-config v1.8.0\nring v0.17.0\n";
    assert_eq!(links_differ("orders", &["aws"], tree), Vec::<String>::new());
    assert_eq!(links_differ("orders", &[], tree).len(), 2);
    assert_eq!(links_differ("orders", &[], "aws_lambda_events v1.2.0"), Vec::<String>::new());
    assert_eq!(links_differ("orders", &["http"], "hyper v1.0.0").len(), 1);
    assert!(links_differ("orders", &[], tree)[0].contains(r#"`links = ["aws"]` into [package.metadata.endpoint]"#));
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
