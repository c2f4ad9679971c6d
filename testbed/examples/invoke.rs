//! Runs a packaged function, for tests in other languages. It sends the function the events from standard input, one
//! per line. In place of an event, a line can have a request, as a case in events/ has it. It writes the answers to standard output, one per line, and at the end the function's log to standard
//! error.
//!
//! With two numbers after the function's name, each event goes to new environments: the first number says to how many,
//! the second to how many at a time.
//!
//! The function gets this process's environment variables. Instead of its name, the path of an executable can be given.

#![expect(clippy::expect_used, reason = "a tool that cannot go on panics, and says why")]

use std::{env, io, path::PathBuf, time::Duration};

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use testbed::{Function, Invocation, InvocationResult, Request, packaged};

/// A line with a request.
#[derive(Deserialize)]
struct Line {
    request: Request,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = env::args().skip(1);
    let function = arguments.next().expect("the function's name is the argument");
    let numbers: Vec<usize> = arguments.map(|number| number.parse().expect("a number")).collect();
    let executable = if function.contains('/') { PathBuf::from(&function) } else { packaged(&function) };
    let variables: Vec<(String, String)> = env::vars().collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let start = || Function::start(&executable, &variables);
    let event = |line: String| match serde_json::from_str(&line) {
        Ok(Line { request }) => request.call(&function).event("http-api", &function).expect("an event").to_string(),
        Err(_) => line,
    };
    let events = io::stdin().lines().map(|line| event(line.expect("events in UTF-8")));
    if let [environments, at_a_time] = numbers[..] {
        for event in events {
            let invoke_new = async |_| {
                let mut process = start().await;
                invoke(&mut process, &event).await;
                log(process).await;
            };
            stream::iter(0..environments).map(invoke_new).buffer_unordered(at_a_time).collect::<()>().await;
        }
    } else {
        let mut process = start().await;
        for event in events {
            invoke(&mut process, &event).await;
        }
        log(process).await;
    }
}

/// Prints the outcome. There is time enough for many environments on a busy machine.
async fn invoke(process: &mut Function, event: &str) {
    match process.invoke(&Invocation::new(event).with_timeout(Duration::from_mins(2))).await {
        InvocationResult::Response(answer) => println!("{answer}"),
        InvocationResult::Error(message) => println!("{message:?}"),
        InvocationResult::Stream(streamed) => println!("{streamed:?}"),
    }
}

async fn log(process: Function) {
    for line in process.terminate().await {
        eprintln!("{line}");
    }
}
