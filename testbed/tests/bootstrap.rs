//! The functions as `make build` packaged them, run as processes against Lambda's Runtime API.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics, and says why")]

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use hyper::StatusCode;
use libtest_mimic::{Arguments, Failed, Trial};
use testbed::{Case, Fault, Function, Invocation, Outcome, example, functions, packaged, settings, steady_upstream};

fn main() -> ExitCode {
    let mut trials = vec![
        test("a_panic_is_a_problem_and_the_process_lives_on", a_panic_is_a_problem_and_the_process_lives_on()),
        test("a_deadline_in_the_past_is_ignored", a_deadline_in_the_past_is_ignored()),
        test("sigterm_ends_the_process_and_loses_no_line", sigterm_ends_the_process_and_loses_no_line()),
        test("many_invocations_at_a_time", many_invocations_at_a_time()),
        test("lambda_may_refuse_an_answer_or_send_no_invocation", lambda_may_refuse_an_answer_or_send_no_invocation()),
        test("without_lambda_it_says_what_to_do", without_lambda_it_says_what_to_do()),
    ];
    for function in functions() {
        let bootstrap = packaged(&function);
        for case in Case::all(&function) {
            let name = case.name.clone();
            trials.push(test(&name, replay_and_go_on(function.clone(), bootstrap.clone(), case)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Outcomes = Result<(), String>;

fn test(name: &str, test: impl Future<Output = Outcomes> + Send + 'static) -> Trial {
    Trial::test(name, || {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio.block_on(test).map_err(Failed::from)
    })
}

/// Checks the case's answer, and then the same process's answer to a plain request.
async fn replay_and_go_on(function: String, bootstrap: PathBuf, case: Case) -> Outcomes {
    let upstream = steady_upstream();
    let settings = settings(&function, &upstream);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut process = Function::start(&bootstrap, &settings).await;
    replay(&mut process, &case).await?;
    replay(&mut process, &Case::plain(&function)).await
}

async fn replay(process: &mut Function, case: &Case) -> Outcomes {
    let invocation = case.invocation();
    let outcome = process.invoke(&invocation).await;
    case.check(&invocation, &outcome)
}

fn named(name: &str) -> Invocation {
    let payload =
        String::from_utf8(Case::named("hello/name.http-api").invocation().payload).expect("JSON").replace("Ada", name);
    Invocation::new(payload)
}

async fn a_panic_is_a_problem_and_the_process_lives_on() -> Outcomes {
    let mut process = Function::start(&example("panics"), &[]).await;
    let Outcome::Answer(problem) = process.invoke(&named("Ada")).await else {
        return Err("the invocation failed".into());
    };
    expect(&problem, "urn:problem-type:internal")?;
    let Outcome::Answer(answer) = process.invoke(&Case::plain("hello").invocation()).await else {
        return Err("the next invocation failed".into());
    };
    expect(&answer, "Still here.")?;
    let lines = process.terminate().await.join("\n");
    expect(&lines, r#""level":"ERROR""#)?;
    expect(&lines, "a bug")?;
    (!problem.contains("a bug")).then_some(()).ok_or_else(|| format!("the caller was told: {problem}"))
}

/// `cargo lambda watch` sends such a deadline: ten minutes after the start of 1970.
async fn a_deadline_in_the_past_is_ignored() -> Outcomes {
    let mut process = Function::start(&packaged("hello"), &[]).await;
    let case = Case::plain("hello");
    for deadline_ms in [0, 600_000, now_ms() - 1] {
        let invocation = Invocation { deadline_ms, ..case.invocation() };
        let outcome = process.invoke(&invocation).await;
        case.check(&invocation, &outcome)?;
    }
    Ok(())
}

async fn sigterm_ends_the_process_and_loses_no_line() -> Outcomes {
    let mut process = Function::start(&packaged("hello"), &[]).await;
    let case = Case::plain("hello");
    replay(&mut process, &case).await?;
    replay(&mut process, &case).await?;
    let lines = process.terminate().await;
    let invocations = lines.iter().filter(|line| line.contains(r#""message":"invocation""#)).count();
    (invocations == 2).then_some(()).ok_or_else(|| format!("two invocations, but the log is {lines:?}"))
}

/// As on Lambda Managed Instances: one process gets many requests at once, and each gets its own answer.
async fn many_invocations_at_a_time() -> Outcomes {
    let mut process = Function::start(&packaged("hello"), &[("AWS_LAMBDA_MAX_CONCURRENCY", "8")]).await;
    let names: Vec<String> = (0..64).map(|number| format!("caller-{number}-")).collect();
    let invocations: Vec<Invocation> = names.iter().map(|name| named(name)).collect();
    for (name, outcome) in names.iter().zip(process.invoke_all(&invocations).await) {
        let Outcome::Answer(answer) = outcome else { return Err(format!("{name} failed")) };
        expect(&answer, &format!("Hello, {name}!"))?;
    }
    Ok(())
}

/// Neither ends the function.
async fn lambda_may_refuse_an_answer_or_send_no_invocation() -> Outcomes {
    let mut process = Function::start(&packaged("hello"), &[]).await;
    let case = Case::plain("hello");
    for (end, status) in [("/response", 413), ("/response", 500), ("/next", 204)] {
        let status = StatusCode::from_u16(status).map_err(|error| error.to_string())?;
        process.runtime_api().fail(end, Fault::Status(status));
        replay(&mut process, &case).await?;
        replay(&mut process, &case).await?;
    }
    let lines = process.terminate().await.join("\n");
    expect(&lines, "Lambda refused the result of the invocation: 413")
}

async fn without_lambda_it_says_what_to_do() -> Outcomes {
    let output = tokio::process::Command::new(packaged("hello")).env_clear().output().await;
    let output = output.map_err(|error| error.to_string())?;
    expect(&String::from_utf8_lossy(&output.stdout), "start it with `make run`")?;
    (output.status.code() == Some(1)).then_some(()).ok_or_else(|| output.status.to_string())
}

fn expect(text: &str, part: &str) -> Outcomes {
    text.contains(part).then_some(()).ok_or_else(|| format!("`{part}` is not in {text}"))
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    now.as_millis().try_into().unwrap_or(u64::MAX)
}
