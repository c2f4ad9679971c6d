//! Writes functions/NAME/budget.json of each function: its costs, as `make build` packaged it.

#![expect(clippy::expect_used, reason = "a tool that cannot go on panics, and says why")]

use testbed::{
    budget::{Budget, cost},
    functions,
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for function in functions() {
        let cost = cost(&function).await;
        assert!(cost.contains_key("start_instructions"), "a budget needs valgrind, and an x86_64 machine");
        println!("{function}: {cost:?}");
        Budget::new(cost).write(&function).expect("budget.json to be writable");
    }
}
