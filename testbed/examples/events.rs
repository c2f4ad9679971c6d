//! `make events`: makes the payloads of the other triggers from those of HTTP APIs, so that each case is written only
//! once.

#![expect(clippy::expect_used, reason = "a tool that cannot go on panics, and says why")]

use std::fs;

fn main() {
    let made = testbed::made_payloads();
    for (file, payload) in made.payloads {
        if fs::read_to_string(&file).ok().as_ref() != Some(&payload) {
            fs::write(&file, payload).expect("events/ to be writable");
            println!("{}", file.display());
        }
    }
    for file in made.stale {
        fs::remove_file(&file).expect("events/ to be writable");
        println!("removed: {}", file.display());
    }
    for what in made.skipped {
        println!("not made: {what}");
    }
}
