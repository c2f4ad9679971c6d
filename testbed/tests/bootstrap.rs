//! Replays all cases through the functions as `make build` packaged them, run as processes against Lambda's Runtime API.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use testbed::{Case, Function, Tables, packaged, settings, steady_upstream, tested};

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for function in tested() {
        // Before any trial: a file that is being written cannot be executed.
        let _ = packaged(&function);
        for case in Case::all(&function) {
            let function = function.clone();
            trials.push(Trial::test(case.name.clone(), move || {
                let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                tokio.block_on(replay_and_go_on(&function, &case)).map_err(Failed::from)
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Checks the case's answer, and then the same process's answer to a plain request.
async fn replay_and_go_on(function: &str, case: &Case) -> Result<(), String> {
    let upstream = steady_upstream();
    let settings = settings(function, &upstream);
    let tables = Tables::of(&settings);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut process = Function::start(&packaged(function), &settings).await;
    for case in [case, &Case::plain(function)] {
        case.prepare(&tables);
        let invocation = case.invocation();
        let outcome = process.invoke(&invocation).await;
        case.check(&invocation, &outcome)?;
        case.check_items(&tables)?;
    }
    Ok(())
}
