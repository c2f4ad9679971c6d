//! `make events`: writes the payloads of all triggers into target/events, and says which cannot be made.

#![expect(clippy::expect_used, reason = "a tool that cannot go on panics, and says why")]

use std::fs;

use testbed::{Case, functions, root};

fn main() {
    let folder = root().join("target/events");
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("target/events can be cleared");
    }
    for function in functions() {
        fs::create_dir_all(folder.join(&function)).expect("a folder in target");
        for case in Case::all(&function) {
            let file = folder.join(format!("{}.json", case.name));
            fs::write(file, case.invocation().payload).expect("a file in target/events");
        }
        for skipped in Case::skipped(&function) {
            println!("skipped: {skipped}");
        }
    }
    println!("target/events has the payloads");
}
