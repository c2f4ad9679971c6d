//! The gate: the functions must not cost more than the committed budget allows.

use futures_util::future::join_all;
use testbed::{
    budget::{Budget, cost},
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
