//! Checks properties that must hold for any input, with random input. `PROPERTY_SEED=` repeats the same input.

mod property;

use property::PROPERTIES;
use testbed::property::check;

#[test]
fn any_event_gets_an_answer_or_a_named_failure() {
    check(&PROPERTIES, "any_event_gets_an_answer_or_a_named_failure", 20_000);
}

#[test]
fn a_request_gets_the_same_answer_through_every_trigger() {
    check(&PROPERTIES, "a_request_gets_the_same_answer_through_every_trigger", 3_000);
}

#[test]
fn any_body_is_read_or_all_its_faults_are_told() {
    check(&PROPERTIES, "any_body_is_read_or_all_its_faults_are_told", 5_000);
}

#[test]
fn a_list_of_faults_that_claims_to_be_complete_is() {
    check(&PROPERTIES, "a_list_of_faults_that_claims_to_be_complete_is", 3_000);
}

#[test]
fn any_form_is_read_or_refused() {
    check(&PROPERTIES, "any_form_is_read_or_refused", 5_000);
}

#[test]
fn any_multipart_form_is_read_or_refused() {
    check(&PROPERTIES, "any_multipart_form_is_read_or_refused", 5_000);
}

#[test]
fn accept_takes_any_text() {
    check(&PROPERTIES, "accept_takes_any_text", 20_000);
}

#[test]
fn traceparent_takes_any_text() {
    check(&PROPERTIES, "traceparent_takes_any_text", 20_000);
}
