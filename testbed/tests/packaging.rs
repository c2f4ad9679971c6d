//! What is in the zips: nothing that Lambda's image lacks, and nothing that a function does not need.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on panics, and says why")]

use std::{collections::BTreeSet, fs, process::Command};

use object::{
    Endianness,
    elf::FileHeader64,
    read::elf::{FileHeader, SectionTable},
};
use testbed::{functions, packaged};

/// Amazon Linux 2023's.
const GLIBC: (u32, u32) = (2, 34);

#[test]
fn no_symbol_is_newer_than_the_glibc_of_lambdas_image() {
    for function in functions() {
        let binary = fs::read(packaged(&function)).unwrap();
        let needed = glibc_versions(&binary);
        assert!(!needed.is_empty(), "{function} needs no glibc at all: is this the right file?");
        let newer: Vec<_> = needed.iter().filter(|version| **version > GLIBC).collect();
        assert!(newer.is_empty(), "{function} needs glibc {newer:?}");
    }
}

fn glibc_versions(binary: &[u8]) -> BTreeSet<(u32, u32)> {
    let header = FileHeader64::<Endianness>::parse(binary).unwrap();
    let endian = header.endian().unwrap();
    let sections: SectionTable<_> = header.sections(endian, binary).unwrap();
    let (mut needs, link) = sections.gnu_verneed(endian, binary).unwrap().expect("a dynamic executable");
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
    versions
}

#[test]
fn only_fetch_links_an_http_client_tls_and_the_sdk() {
    let allowed = "aws_lambda_events";
    for function in functions() {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--edges", "normal", "--prefix", "none", "--package"])
            .arg(format!("{function}@{}", env!("CARGO_PKG_VERSION")))
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
        // That `fetch` does link them shows that they would be found.
        assert_eq!(!found.is_empty(), function == "fetch", "{function} links {found:?}");
    }
}
