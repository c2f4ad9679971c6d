//! The gate of `testbed/tests/packaging.rs` catches what it is meant for.

use testbed::budget::{Budget, debug_build, is_countable, start};

/// A start that loads what no request needs yet is over the budget. A debug build shows that as well as the packaged one,
/// and exists anyway.
#[tokio::test]
async fn eager_configuration_breaks_the_budget() {
    if !is_countable() {
        return;
    }
    let budget = Budget::new(start("fetch", &debug_build(&["--bins"]).join("fetch")).await);
    let eager = debug_build(&["--example", "eager"]).join("examples/eager");
    let eager = start("fetch", &eager).await;
    assert!(!budget.overruns("fetch", &eager).is_empty(), "it passed: {eager:?}, {budget:?}");
}
