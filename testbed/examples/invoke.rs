//! Runs a packaged function and gives it the events that come on standard input, one a line: the answers go to standard
//! output, one a line, and in the end the function's log to standard error. For tests in other languages.
//!
//! The function gets this process's environment.

#![expect(clippy::expect_used, reason = "a tool of the tests: it ends, and says why")]

use std::{env, io};

use testbed::{Function, Invocation, Outcome, packaged};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let function = env::args().nth(1).expect("the function's name is the argument");
    let variables: Vec<(String, String)> = env::vars().collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut process = Function::start(&packaged(&function), &variables).await;
    for event in io::stdin().lines() {
        let event = event.expect("events in UTF-8");
        match process.invoke(&Invocation::new(event)).await {
            Outcome::Answer(answer) => println!("{answer}"),
            Outcome::Failure(message) => println!("{message:?}"),
        }
    }
    for line in process.terminate().await {
        eprintln!("{line}");
    }
}
