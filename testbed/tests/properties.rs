//! What must hold for any input at all, with made-up input. `PROPERTY_SEED=` makes the same up again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::env;

use arbitrary::Unstructured;
use proptest::{
    arbitrary::any,
    collection::vec,
    test_runner::{Config, RngSeed, TestRunner},
};
use testbed::property::{PROPERTIES, Property};

/// Checks the property that is called `name`.
fn check(name: &str, cases: u32) {
    let property: Property = PROPERTIES.iter().find(|(property, _)| *property == name).unwrap().1;
    let seed = env::var("PROPERTY_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("PROPERTY_SEED={seed}");
    let config = Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Config::default() };
    let held = TestRunner::new(config).run(&vec(any::<u8>(), 0..1024), |bytes| {
        // Input that ends too soon has been enough so far.
        let _ = property(&mut Unstructured::new(&bytes));
        Ok(())
    });
    held.unwrap();
}

#[test]
fn any_event_gets_an_answer_or_a_named_failure() {
    check("any_event_gets_an_answer_or_a_named_failure", 20_000);
}

#[test]
fn a_request_gets_the_same_answer_through_every_trigger() {
    check("a_request_gets_the_same_answer_through_every_trigger", 3_000);
}

#[test]
fn accept_takes_any_text() {
    check("accept_takes_any_text", 20_000);
}

#[test]
fn traceparent_takes_any_text() {
    check("traceparent_takes_any_text", 20_000);
}
