//! The gate: the functions must not cost more than the committed budget allows.

use futures_util::future::join_all;
use testbed::{
    budget::{Budget, cost, debug_build, is_countable, start},
    functions,
};

#[tokio::test]
async fn no_function_costs_more_than_its_budget() {
    let budget = Budget::committed();
    let functions = functions();
    let costs = join_all(functions.iter().map(|function| cost(function))).await;
    let mut overruns = Vec::new();
    for (function, cost) in functions.iter().zip(costs) {
        println!("{function}: {cost:?}");
        overruns.extend(budget.overruns(function, &cost));
    }
    assert!(overruns.is_empty(), "{}\nIf that is worth it, `make budget` makes it the budget.", overruns.join("\n"));
}

/// The gate catches what it is meant for: a start that loads what no request needs yet. A debug build shows that as
/// well as the packaged one, and exists anyway.
#[tokio::test]
async fn eager_configuration_breaks_the_budget() {
    if !is_countable() {
        return;
    }
    let mut budget = Budget::default();
    budget.set("fetch", start("fetch", &debug_build(&["--bins"]).join("fetch")).await);
    let eager = debug_build(&["--example", "eager"]).join("examples/eager");
    let eager = start("fetch", &eager).await;
    assert!(!budget.overruns("fetch", &eager).is_empty(), "it passed: {eager:?}, {budget:?}");
}
