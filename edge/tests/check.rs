//! `weir-edge --check`: what an operator reads of a file that can't be used, and what a script sees.

use std::process::{Command, Output};

/// Checks a file with this text.
fn check(name: &str, text: &str) -> Output {
    let file = std::env::temp_dir().join(format!("weir-edge-{}-{name}.yaml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_weir-edge"))
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
    assert!(output.stdout.is_empty(), "nothing is valid");
    assert!(!message.contains("backtrace"), "{message}");
    for part in told.iter().copied().chain([&*format!("{name}.yaml")]) {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn the_shipped_configuration_is_valid() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-edge"))
        .args(["--check", "--config", "../config/edge.yaml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "../config/edge.yaml: valid\n"
    );
}

#[test]
fn senseless_values_are_told_together_with_line_key_and_expectation() {
    refused(
        "senseless",
        "origins: [\"ftp://x/y\"]\ncache: { max_bytes: 1MiB }\nfollow:\n  idle: 0s\n  max_renditions: 0\n",
        &[
            "line 1: origins: expected 1 to 16 addresses like http://10.0.0.5:8081",
            "line 2: cache.max_bytes: expected 16MiB or more",
            "line 4: follow.idle: expected 1s to 1h",
            "line 5: follow.max_renditions: expected 1 to 100000",
        ],
    );
}

#[test]
fn a_certificate_without_a_key_points_at_its_section() {
    refused(
        "half",
        "https:\n  listen: 127.0.0.1:0\n  certificate: /etc/weir/edge.crt\n",
        &["line 1: https.key: expected certificate and key together"],
    );
}

#[test]
fn wrong_forms_show_the_place_and_what_belongs_there() {
    for (name, text, told) in [
        (
            "unit",
            "follow:\n  idle: 30\n",
            ["line 2 column 9", "`30`", "like 250ms or 2s"],
        ),
        (
            "size",
            "cache: { max_bytes: lots }\n",
            ["line 1 column 21", "`lots`", "like 512MiB"],
        ),
        (
            "unknown",
            "cache:\n  max_bites: 1GiB\n",
            [
                "line 2 column 3",
                "unknown field `max_bites`",
                "expected one of max_bytes",
            ],
        ),
        (
            "listen",
            "http: { listen: nowhere }\n",
            [
                "line 1 column 17",
                "`nowhere`",
                "an address and a port, like 0.0.0.0:8080",
            ],
        ),
        (
            "kind",
            "origins: 7\n",
            ["line 1 column 10", "expected sequence", "origins: 7"],
        ),
        ("broken", "follow: [1\nx", ["line 1", "follow", "expected"]),
    ] {
        refused(name, text, &told);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-edge"))
        .args(["--check", "--config", "no/such.yaml"])
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(message.contains("no/such.yaml: can't be read"), "{message}");
}

#[test]
fn without_check_a_bad_file_binds_nothing_either() {
    let file = std::env::temp_dir().join(format!("weir-edge-{}-start.yaml", std::process::id()));
    std::fs::write(&file, "max_connections: 0\n").unwrap();
    // The ports of the defaults: had it started, it would not have come back.
    let output = Command::new(env!("CARGO_BIN_EXE_weir-edge"))
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
