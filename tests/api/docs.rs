//! Runs every example of docs/api.md, docs/webhooks.md and docs/signed-playback.md, in order, against `weir up`, and the
//! README's about streams: commands must succeed, and what they print must have everything that the answer shown after
//! them has. Then the command line as people and programs use it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// A running `weir up`; ended when dropped.
struct Server {
    child: Child,
    api: String,
    edge: String,
    key: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already, or ended now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> Server {
    let mut child = Command::new(WEIR)
        .args(["up", "--ephemeral", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("weir starts");
    let out = child.stdout.take().expect("its output");
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).expect("a ready line");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    Server {
        child,
        api: text(&ready["origin"]["api"]),
        edge: text(&ready["edge"]["http"]),
        key: text(&ready["firstKey"]),
    }
}

/// Fenced blocks of a language, in order.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some((language, String::new())),
            (Some(_), Some(block)) => found.push(block),
            (None, Some((language, text))) => open = Some((language, text + line + "\n")),
            (None, None) => {}
        }
    }
    found
}

/// Everything that `shown` has must be in `found`; values that differ from run to run only by their kind.
fn has(found: &Value, shown: &Value, at: &str) {
    match (found, shown) {
        (Value::Object(found), Value::Object(shown)) => {
            for (name, value) in shown {
                let inner = found.get(name).unwrap_or_else(|| panic!("{at}.{name} is missing"));
                has(inner, value, &format!("{at}.{name}"));
            }
        }
        (Value::Array(found), Value::Array(shown)) => {
            assert_eq!(found.len(), shown.len(), "{at}");
            for (found, shown) in found.iter().zip(shown) {
                has(found, shown, at);
            }
        }
        (Value::String(found), Value::String(shown)) => {
            let fixed = [
                "type",
                "title",
                "detail",
                "expected",
                "field",
                "name",
                "streamKey",
                "status",
                "clientUserId",
                "eventType",
                "Weir-Signature",
                "Webhook-Signature",
            ];
            if fixed.iter().any(|name| at.ends_with(&format!(".{name}"))) {
                assert_eq!(found, shown, "{at}");
            }
        }
        (Value::Number(_), Value::Number(_)) if at.ends_with("Port") => {}
        (found, shown) => assert_eq!(found, shown, "{at}"),
    }
}

/// The whole stream has no more fields than the page shows.
fn fields(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect()
}

#[test]
fn every_example_of_the_api_page_works() {
    every_example_works("docs/api.md", 10);
}

#[test]
fn every_example_of_the_webhooks_page_works() {
    every_example_works("docs/webhooks.md", 4);
}

#[test]
fn every_example_of_the_signed_playback_page_works() {
    every_example_works("docs/signed-playback.md", 7);
}

/// `more_than`: how many examples there are at the least.
fn every_example_works(page: &str, more_than: usize) {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: curl is not installed, the examples of {page} were not run");
        return;
    }
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("the page");
    let server = server();
    let folder = Path::new(WEIR).parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    // Examples build on each other's variables: each one runs after all before it, and only its own output is looked at.
    let mark = "<<<the example begins here>>>";
    let blocks = blocks(&page);
    let mut variables = String::new();
    let mut run = 0;
    for (n, (language, text)) in blocks.iter().enumerate() {
        if *language != "sh" {
            continue;
        }
        let script = format!("set -euo pipefail\n{variables}\necho '{mark}'\n{text}");
        let done = Command::new("bash")
            .args(["-c", &script])
            .env("PATH", &path)
            .env("WEIR_API", &server.api)
            .env("WEIR_API_KEY", &server.key)
            .env("WEIR_EDGE", &server.edge)
            .env_remove("WEIR_PROJECT")
            .env_remove("WEIR_DATABASE")
            .output()
            .expect("bash");
        let out = String::from_utf8_lossy(&done.stdout);
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{text}\n{out}\n{err}");
        run += 1;
        if text.starts_with("STREAM=") || text.starts_with("SECRET=") {
            variables.push_str(text);
        }
        if let Some(("json", shown)) = blocks.get(n + 1).map(|(language, text)| (*language, text)) {
            let out = out.split(mark).nth(1).unwrap_or_default();
            let found: Value = serde_json::from_str(out.trim()).unwrap_or_else(|error| panic!("{error}: {out}"));
            let shown: Value = serde_json::from_str(shown).expect("the page shows JSON");
            has(&found, &shown, "");
            if text.contains("Idempotency-Key") {
                assert_eq!(fields(&found), fields(&shown), "the page shows the whole stream");
            }
        }
    }
    assert!(run > more_than, "{run} examples were found");
}

#[test]
fn the_readme_makes_a_stream_of_ones_own() {
    let readme = include_str!("../../README.md");
    let blocks = blocks(readme);
    let (_, text) = blocks
        .iter()
        .find(|(_, text)| text.contains("streams create"))
        .expect("the example");
    let (export, rest) = text.split_once('\n').expect("lines");
    assert!(
        export.starts_with("export WEIR_API=http://127.0.0.1:8082 WEIR_API_KEY="),
        "{export}"
    );
    let server = server();
    let done = Command::new("bash")
        .args(["-c", &rest.replace("target/release/weir", WEIR)])
        .env("WEIR_API", &server.api)
        .env("WEIR_API_KEY", &server.key)
        .output()
        .expect("bash");
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{out}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(out.contains("push to     rtmp://") && out.contains("1 of 1"), "{out}");
}

/// What a command of the command line says, and to whom.
struct Said {
    fine: bool,
    out: String,
    err: String,
}

fn weir(server: &Server, arguments: &[&str], key: &str) -> Said {
    let done = Command::new(WEIR)
        .args(arguments)
        .env("WEIR_API", &server.api)
        .env("WEIR_API_KEY", key)
        .env_remove("WEIR_PROJECT")
        .env_remove("WEIR_DATABASE")
        .output()
        .expect("weir runs");
    Said {
        fine: done.status.success(),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// Every command twice: as a person reads it, and as a program does.
#[test]
fn the_command_line_tells_people_and_programs_the_same() {
    let server = server();
    let text = |arguments: &[&str]| {
        let said = weir(&server, arguments, &server.key);
        assert!(said.fine, "{arguments:?}: {}", said.err);
        said.out
    };
    let json = |arguments: &[&str]| -> Value {
        let all = [arguments, &["--json"]].concat();
        serde_json::from_str(&text(&all)).expect("JSON and nothing else")
    };
    let made = json(&[
        "streams",
        "create",
        "--name",
        "Morning show",
        "--stream-key",
        "morning",
        "--dvr",
        "600",
    ]);
    let id = made["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (&made["dvrEnabled"], &made["dvrDuration"]),
        (&Value::Bool(true), &600.into())
    );

    let shown = text(&["streams", "show", &id]);
    for (what, value) in [
        ("status", "IDLE"),
        ("stream key", "morning"),
        ("password", made["ingest"]["password"].as_str().expect("a password")),
    ] {
        assert!(shown.contains(&format!("{what:<12}{value}\n")), "{what}: {shown}");
    }
    let list = text(&["streams", "list", "--q", "morn"]);
    let heading: Vec<_> = list.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heading, ["ID", "STATUS", "STREAM", "KEY", "CREATED", "NAME"]);
    assert!(list.contains(&id) && list.ends_with("1 of 1\n"), "{list}");
    assert_eq!(json(&["streams", "list", "--status", "LIVE"])["total"], 0);

    let rotated = json(&["streams", "rotate", &id]);
    assert_ne!(rotated["ingest"]["password"], made["ingest"]["password"]);
    assert_eq!(rotated["ingest"]["token"], made["ingest"]["token"]);
    let token = json(&["streams", "rotate", &id, "--token"]);
    assert_ne!(token["ingest"]["token"], made["ingest"]["token"]);
    assert_eq!(token["ingest"]["password"], rotated["ingest"]["password"]);

    assert!(text(&["streams", "disable", &id]).contains("status      DISABLED\n"));
    assert_eq!(json(&["streams", "activate", &id])["status"], "IDLE");
    assert_eq!(text(&["streams", "delete", &id, "--purge"]), "removed\n");
    assert_eq!(json(&["streams", "list"])["total"], 0);

    let key = json(&["keys", "create", "--name", "reader", "--scope", "streams:read"]);
    let secret = key["key"].as_str().expect("the key").to_owned();
    let key_id = key["record"]["id"].as_str().expect("its id").to_owned();
    assert!(weir(&server, &["streams", "list"], &secret).fine);
    let refused = weir(&server, &["streams", "create"], &secret);
    assert!(
        !refused.fine && refused.err.contains("scope streams:write (403)"),
        "{}",
        refused.err
    );
    let keys = text(&["keys", "list"]);
    assert!(
        keys.contains("valid") && keys.contains("streams:read") && !keys.contains(&secret),
        "{keys}"
    );
    assert_eq!(text(&["keys", "revoke", &key_id]), "revoked\n");
    assert!(text(&["keys", "list"]).contains("revoked"));
    assert!(weir(&server, &["streams", "list"], &secret).err.contains("(401)"));

    let sign = ["sign", "morning", "--secret", "0123456789", "--expires", "2h"];
    let query = text(&sign);
    assert!(query.starts_with("policy=") && query.contains("&signature="), "{query}");
    assert!(
        json(&sign)["query"]
            .as_str()
            .is_some_and(|query| query.starts_with("policy="))
    );
}

#[test]
fn the_command_line_says_what_is_wrong_and_fails() {
    let server = server();
    for (arguments, key, told) in [
        (
            &["streams", "show", "str_none"][..],
            server.key.as_str(),
            "there is no such stream in this project (404)",
        ),
        (
            &["streams", "list", "--limit=0"],
            &server.key,
            "limit: expected 1 to 100 (422)",
        ),
        (&["streams", "list", "--status=live"], &server.key, "(422)"),
        (&["streams", "list"], "weir_wrong", "this API key is unknown (401)"),
        (&["streams", "list"], "", "an API key is needed"),
        (
            &["streams", "list", "--api=http://127.0.0.1:1"],
            &server.key,
            "is `weir up` running?",
        ),
        (
            &["streams", "list", "--api=ftp://127.0.0.1"],
            &server.key,
            "expected http://host:port or https://host",
        ),
        (
            &["streams", "list", "--project=none"],
            &server.key,
            "there is no such project (404)",
        ),
        (
            &["streams", "create", "--dvr=29"],
            &server.key,
            "dvrDuration: expected 30 to 86400 seconds (422)",
        ),
        (
            &["streams", "create", "--metadata=[]"],
            &server.key,
            "expected a JSON object",
        ),
        (&["streams", "rotate"], &server.key, "<ID>"),
        (
            &["keys", "create", "--name=x", "--scope=all"],
            &server.key,
            "`all` is no scope: expected streams:read",
        ),
        (
            &["keys", "revoke", "key_none"],
            &server.key,
            "there is no such API key in this project (404)",
        ),
        (&["sign", "a b", "--secret=x"], &server.key, "A-Z, a-z, 0-9"),
    ] {
        let said = weir(&server, arguments, key);
        assert!(!said.fine && said.err.contains(told), "{arguments:?}: {}", said.err);
        assert!(!said.err.contains(&server.key), "an error shows no key");
        assert_eq!(said.out, "", "{arguments:?}");
    }
}
