//! The properties of `handler`. The first byte of the input chooses one.

#![no_main]

#[path = "../../../functions/handler/tests/property/mod.rs"]
mod property;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use property::PROPERTIES;

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let (_, property) = PROPERTIES[usize::from(*first) % PROPERTIES.len()];
    let _ended = property(&mut Unstructured::new(rest));
});
