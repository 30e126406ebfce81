#![no_main]

#[path = "../srt.rs"]
#[allow(dead_code)]
mod srt;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    srt::srt(bytes);
});
