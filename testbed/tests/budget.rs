//! The gate: what the functions cost must be what was agreed, as the committed budget says it.

use std::{path::Path, process::Command};

use testbed::{
    budget::{Budget, cost, instructions, is_countable},
    functions, outside_of_cargo, unpacked,
};

#[tokio::test]
async fn no_function_costs_more_than_its_budget() {
    let budget = Budget::committed();
    let mut overruns = Vec::new();
    for function in functions() {
        let cost = cost(&function).await;
        println!("{function}: {cost:?}");
        overruns.extend(budget.overruns(&function, &cost));
    }
    assert!(overruns.is_empty(), "{}\nIf that is worth it, `make budget` makes it the budget.", overruns.join("\n"));
}

/// The gate holds what it is for: a start that loads what no request has asked for yet.
#[tokio::test]
async fn eager_configuration_breaks_the_budget() {
    let budget = Budget::committed();
    if !budget.is_comparable() || !is_countable() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("target/tmp/eager");
    // Beside `make build`'s, so that only the function itself is compiled anew.
    let flags = format!("BUILD_FLAGS=--features eager-aws-config --lambda-dir '{}'", folder.display());
    let mut build = Command::new("make");
    build.args(["--silent", "build", "FUNCTIONS=fetch", &flags]).current_dir(root);
    let build = outside_of_cargo(&mut build).status();
    assert!(build.is_ok_and(|status| status.success()), "`make build` failed; does `make test` do?");
    let zip = folder.join("fetch/bootstrap.zip");
    let eager = instructions("fetch", &unpacked("eager", &zip)).await;
    println!("{eager:?}");
    let overruns = budget.overruns("fetch", &eager);
    assert!(overruns.iter().any(|overrun| overrun.contains("start_instructions")), "it passed: {eager:?}");
}
