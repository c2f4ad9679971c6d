//! The properties of `handler` and `upstream`. The first byte of the input chooses one.

#![no_main]

#[path = "../../../functions/handler/tests/properties.rs"]
mod handlers;
#[path = "../../../functions/upstream/tests/properties.rs"]
mod upstreams;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let all = [&handlers::PROPERTIES[..], &upstreams::PROPERTIES].concat();
    let (_, property) = all[usize::from(*first) % all.len()];
    let _ended = property(&mut Unstructured::new(rest));
});
