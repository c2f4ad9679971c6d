//! The gate: what the functions cost must be what was agreed, as the committed budget says it.

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

/// The gate holds what it is for: a start that loads what no request has asked for yet. A debug build, which need not be
/// made for it, shows that as well as the packaged one.
#[tokio::test]
async fn eager_configuration_breaks_the_budget() {
    if !is_countable() {
        return;
    }
    let mut budget = Budget::default();
    budget.set("fetch", start("fetch", &debug_build(&[]).join("fetch")).await);
    let eager = debug_build(&["--workspace", "--example", "eager"]).join("examples/eager");
    let eager = start("fetch", &eager).await;
    assert!(!budget.overruns("fetch", &eager).is_empty(), "it passed: {eager:?}, {budget:?}");
}
