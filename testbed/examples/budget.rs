//! Writes testbed/budget.json: the costs of the functions, as `make build` packaged them.

#![expect(clippy::expect_used, reason = "a tool that cannot go on panics, and says why")]

use testbed::{
    budget::{Budget, cost},
    functions,
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut budget = Budget::default();
    for function in functions() {
        let cost = cost(&function).await;
        assert!(cost.contains_key("start_instructions"), "a budget needs valgrind, and an x86_64 machine");
        println!("{function}: {cost:?}");
        budget.set(&function, cost);
    }
    budget.write().expect("testbed/budget.json to be writable");
}
