//! House rules that a compiler does not check.

use std::{fs, path::Path};

/// Files that take bytes and a time and give back values.
const PURE: &[&str] = &[
    "shared/src/id.rs",
    "shared/src/media",
    "shared/src/hls",
    "shared/src/retry.rs",
    "shared/src/srt.rs",
    "shared/src/srt",
    "shared/src/directory.rs",
    "edge/src/cache/freshness.rs",
    "edge/src/route/place.rs",
    "edge/src/route/range.rs",
    "edge/src/upstream/health.rs",
    "edge/src/upstream/placement.rs",
    "shared/src/playback.rs",
    "shared/src/playback",
    "shared/src/serve/limits.rs",
    "shared/src/serve/pace.rs",
    "edge/src/target.rs",
    "edge/src/viewers/audience.rs",
    "edge/src/entrance.rs",
    "edge/src/auth/credentials.rs",
    "origin/src/control/events.rs",
    "origin/src/control/events",
    "origin/src/control/directory/changes.rs",
    "origin/src/control/webhook.rs",
    "origin/src/codec",
    "origin/src/package",
    "origin/src/ingest/admission/adobe.rs",
    "origin/src/ingest/admission/claims.rs",
    "origin/src/ingest/admission/judge.rs",
    "origin/src/ingest/catalog/policy.rs",
    "origin/src/ingest/webhook/message.rs",
    "origin/src/ingest/ports/range.rs",
    "origin/src/ingest/ports/table.rs",
    "origin/src/ingest/secret.rs",
    "origin/src/ingest/flv.rs",
    "origin/src/ingest/flv",
    "origin/src/ingest/language.rs",
    "origin/src/ingest/rtmp/enhanced.rs",
    "origin/src/ingest/srt/acks.rs",
    "origin/src/ingest/srt/clock.rs",
    "origin/src/ingest/srt/cookie.rs",
    "origin/src/ingest/srt/handshake.rs",
    "origin/src/ingest/srt/receiver.rs",
    "origin/src/ingest/srt/reject.rs",
    "origin/src/ingest/srt/session.rs",
    "origin/src/ingest/srt/streamid.rs",
    "origin/src/ingest/timeline.rs",
    "origin/src/ingest/ts.rs",
    "origin/src/ingest/rtmp/chunk.rs",
    "origin/src/dvr/budget.rs",
    "origin/src/live/lifecycle.rs",
    "origin/src/live/failover.rs",
    "origin/src/live/splice.rs",
    "origin/src/live/standby.rs",
    "origin/src/live/health/meter.rs",
    "origin/src/ingest/rtmp/amf0.rs",
    "origin/src/control/lifecycle.rs",
    "origin/src/control/service/owned.rs",
    "origin/src/control/model.rs",
    "origin/src/control/health.rs",
    "origin/src/control/number.rs",
    "origin/src/record/boxes.rs",
    "origin/src/record/collect.rs",
    "origin/src/record/ledger.rs",
    "origin/src/record/ledger",
    "origin/src/record/manifest.rs",
    "origin/src/record/manifest",
    "origin/src/record/thumbnails/plan.rs",
    "origin/src/record/remux.rs",
    "shared/src/serve/h1/answer.rs",
    "shared/src/serve/h1/head.rs",
    "shared/src/serve/h1/outgoing.rs",
    "loadtest/src/address.rs",
    "loadtest/src/arrival.rs",
    "loadtest/src/content.rs",
    "loadtest/src/floor/answer.rs",
    "loadtest/src/headers.rs",
    "loadtest/src/limits.rs",
    "loadtest/src/listing.rs",
    "loadtest/src/listing",
    "loadtest/src/moment.rs",
    "loadtest/src/mux.rs",
    "loadtest/src/oracle.rs",
    "loadtest/src/oracle",
    "loadtest/src/rhythm.rs",
    "loadtest/src/rule.rs",
    "loadtest/src/srt/caller.rs",
    "loadtest/src/srt/url.rs",
    "loadtest/src/stamp.rs",
    "loadtest/src/tally.rs",
    "loadtest/src/ticket.rs",
    "loadtest/src/viewer.rs",
    "loadtest/src/viewer",
];

/// What a pure file must not reach for.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "hyper",
];

fn rust_files(at: &Path, found: &mut Vec<(String, String)>) {
    if at.is_dir() {
        let entries = fs::read_dir(at).expect("a source folder can be listed");
        for entry in entries {
            rust_files(&entry.expect("a source folder can be listed").path(), found);
        }
    } else if at.extension().is_some_and(|e| e == "rs") {
        let text = fs::read_to_string(at).expect("a source file can be read");
        found.push((at.display().to_string(), text));
    }
}

/// The code of a file: without its tests and comments.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]").next().unwrap_or(text);
    body.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn pure_files_reach_for_no_runtime_socket_or_clock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for pure in PURE {
        let mut files = Vec::new();
        let at = root.join(pure);
        assert!(at.exists(), "{pure} moved: correct this list");
        rust_files(&at, &mut files);
        for (name, text) in files.iter().filter(|(name, _)| !name.ends_with("tests.rs")) {
            for word in FORBIDDEN {
                assert!(!code(text).contains(word), "{name} is pure and uses {word}");
            }
        }
    }
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace has a manifest");
    assert!(workspace.contains("unsafe_code = \"forbid\""));
    for member in ["shared", "origin", "edge", "loadtest", "tests", "."] {
        let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).expect("a crate has a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member}");
    }
}

#[test]
fn sample_configurations_are_valid() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    weir_shared::config::load::<weir_origin::config::Config>(&config.join("origin.yaml")).expect("origin.yaml");
    weir_shared::config::load::<weir_edge::config::Config>(&config.join("edge.yaml")).expect("edge.yaml");
}

#[test]
fn sample_configurations_say_the_defaults() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let origin = weir_shared::config::load::<weir_origin::config::Config>(&config.join("origin.yaml")).expect("valid");
    let default = weir_origin::config::Config::default();
    assert_eq!(origin.packaging.part_target, default.packaging.part_target);
    assert_eq!(origin.packaging.segment_target, default.packaging.segment_target);
    assert_eq!(origin.packaging.window, default.packaging.window);
    assert_eq!(origin.max_streams, default.max_streams);
    assert_eq!(origin.rtmp_limits(), default.rtmp_limits());
    assert_eq!(origin.ingest.grace, default.ingest.grace);
    assert_eq!(origin.ingest.failover_after, default.ingest.failover_after);
    assert_eq!(origin.ingest.revert, default.ingest.revert);
    assert_eq!(origin.ingest.stable_for, default.ingest.stable_for);
    let edge = weir_shared::config::load::<weir_edge::config::Config>(&config.join("edge.yaml")).expect("valid");
    let default = weir_edge::config::Config::default();
    assert_eq!(edge.cache.max_bytes, default.cache.max_bytes);
    assert_eq!(edge.follow.idle, default.follow.idle);
    assert_eq!(edge.max_connections, default.max_connections);
}
