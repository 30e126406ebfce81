//! `weir up --check`: both nodes' sections in one file, and what its flags add.
//!
//! Beside `weir-tests` and not in it, because only a package's own tests know where its program is.

use std::process::{Command, Output};

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .output()
        .unwrap()
}

fn message(output: Output) -> String {
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    message
}

/// Checks a file with this text; gives the message of its refusal.
fn refused(name: &str, text: &str) -> String {
    let file = std::env::temp_dir().join(format!("weir-{}-{name}.yaml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let output = weir(&["up", "--check", "--config", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    message(output)
}

#[test]
fn the_defaults_and_the_shipped_configuration_are_valid() {
    for arguments in [
        &["up", "--check"][..],
        &["up", "--check", "--config", "config/weir.yaml"],
    ] {
        let output = weir(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn faults_of_both_nodes_are_told_together_in_their_own_sections() {
    let text = "edge:\n  https:\n    listen: 127.0.0.1:0\n    certificate: /x.pem\n  max_connections: 0\n\
                origin:\n  packaging:\n    part_target: 20ms\n  streams:\n    - key: ab\n";
    let message = refused("both", text);
    for told in [
        "both.yaml",
        "line 8: origin.packaging.part_target: expected 100ms to 2s",
        "line 2: edge.https.key: expected certificate and key together",
        "line 5: edge.max_connections: expected 1 to 1000000",
    ] {
        assert!(message.contains(told), "{told:?} is not in: {message}");
    }
}

#[test]
fn a_key_of_the_other_node_is_unknown() {
    let message = refused("swapped", "origin:\n  any_key: true\n  max_connections: 7\n");
    for told in ["swapped.yaml", "line 3 column 3", "unknown field `max_connections`"] {
        assert!(message.contains(told), "{told:?} is not in: {message}");
    }
}

#[test]
fn flags_are_checked_like_the_file() {
    let refused = message(weir(&["up", "--check", "--part-target", "20ms"]));
    assert!(
        refused.contains("packaging.part_target: expected 100ms to 2s"),
        "{refused}"
    );
    let refused = message(weir(&["up", "--check", "--part-target", "20"]));
    assert!(refused.contains("like 250ms or 2s"), "{refused}");
}
