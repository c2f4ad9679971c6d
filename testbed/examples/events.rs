//! `make events`: writes the payloads of all triggers into target/events, and says which cannot be made.
//!
//! With `--needless`, it only lists the files in events/ that should not be there.

#![expect(clippy::expect_used, reason = "a tool that cannot go on panics, and says why")]

use std::{env, fs};

use testbed::{Case, Cases, functions, root};

fn main() {
    if env::args().any(|argument| argument == "--needless") {
        functions().iter().flat_map(|function| Cases::of(function).needless).for_each(|file| println!("{file}"));
        return;
    }
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
        Cases::of(&function).skipped.iter().for_each(|skipped| println!("skipped: {skipped}"));
    }
    println!("target/events has the payloads");
}
