//! Checks properties that must hold for any input, with random input. `PROPERTY_SEED=` repeats the same input.

mod property;

use testbed::property::check;

#[test]
fn directives_are_read_as_they_are_written() {
    check(&property::PROPERTIES, "directives_are_read_as_they_are_written", 20_000);
}

#[test]
fn headers_take_any_text() {
    check(&property::PROPERTIES, "headers_take_any_text", 20_000);
}

#[test]
fn settings_take_any_text() {
    check(&property::PROPERTIES, "settings_take_any_text", 5_000);
}

#[test]
fn a_stored_response_is_used_where_that_is_allowed() {
    check(&property::PROPERTIES, "a_stored_response_is_used_where_that_is_allowed", 1_000);
}
