#![no_main]

#[path = "../transport.rs"]
#[allow(dead_code)]
mod transport;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = transport::ts(bytes);
});
