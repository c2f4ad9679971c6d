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

#[test]
fn only_fetch_links_an_http_client_tls_and_the_sdk() {
    let allowed = "aws_lambda_events";
    for function in functions() {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--edges", "normal", "--prefix", "none", "--package"])
            .arg(format!("{function}-function"))
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let tree = String::from_utf8(tree.stdout).unwrap();
        let found: BTreeSet<&str> = tree
            .lines()
            .filter(|line| {
                ["aws", "hyper-tls", "hyper-rustls", "reqwest", "ring", "rustls"]
                    .iter()
                    .any(|name| line.starts_with(name))
            })
            .filter(|line| !line.starts_with(allowed))
            .collect();
        // `fetch` links them, which shows that this search finds them.
        assert_eq!(!found.is_empty(), function == "fetch", "{function} links {found:?}");
    }
}
