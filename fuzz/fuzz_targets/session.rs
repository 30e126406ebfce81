#![no_main]

#[path = "../ingest.rs"]
#[allow(dead_code)]
mod ingest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ingest::session(bytes);
});
