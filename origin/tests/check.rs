//! `weir-origin --check`: what an operator reads of a file that can't be used, and what a script sees.

use std::process::{Command, Output};

/// Checks a file with this text.
fn check(name: &str, text: &str) -> Output {
    let file = std::env::temp_dir().join(format!("weir-origin-{}-{name}.yaml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_weir-origin"))
        .args(["--check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    output
}

/// Asserts that the file is refused as a wrong use, and that the message says all this.
fn refused(name: &str, text: &str, told: &[&str]) {
    let output = check(name, text);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    for part in told.iter().copied().chain([&*format!("{name}.yaml")]) {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn the_shipped_configuration_is_valid() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-origin"))
        .args(["--check", "--config", "../config/origin.yaml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn senseless_values_are_told_together_with_line_key_and_expectation() {
    refused(
        "senseless",
        "packaging:\n  # Far too short.\n  part_target: 20ms\n  window: 5s\nmax_streams: 0\nany_key: true\n",
        &[
            "line 3: packaging.part_target: expected 100ms to 2s",
            "line 4: packaging.window: expected three target durations to 4h",
            "line 5: max_streams: expected 1 to 100000",
        ],
    );
}

#[test]
fn a_file_without_streams_says_what_is_missing() {
    refused(
        "empty",
        "max_streams: 5\n",
        &["streams: expected at least one {key: …}"],
    );
    refused(
        "twice",
        "streams:\n  - key: show\n  - key: show\n",
        &["line 1: streams: expected each key once"],
    );
}

#[test]
fn wrong_forms_show_the_place_and_what_belongs_there() {
    for (name, text, told) in [
        (
            "key",
            "streams:\n  - key: \"a b\"\n",
            ["line 2 column 10", "a stream key consists of", "\"a b\""],
        ),
        (
            "unit",
            "packaging: { part_target: 333 }\n",
            ["line 1 column 27", "`333`", "like 250ms or 2s"],
        ),
        (
            "unknown",
            "rtsp: {}\n",
            ["line 1 column 1", "unknown field `rtsp`", "expected one of http, rtmp"],
        ),
        (
            "listen",
            "rtmp: { listen: \"1935\" }\n",
            ["line 1 column 17", "`1935`", "an address and a port"],
        ),
    ] {
        refused(name, text, &told);
    }
}
