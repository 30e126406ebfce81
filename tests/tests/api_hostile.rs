//! Requests that nobody means well with: each one gets a problem document, and nothing else happens.

use anyhow::Context as _;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use weir_origin::control::{
    lifecycle::Slot,
    model::Scope,
    node::{Happening, News},
};
use weir_tests::{
    api::{Answer, Api},
    database,
};

const STREAMS: &str = "/v1/projects/default/streams";

async fn apis() -> anyhow::Result<Vec<Api>> {
    let mut apis = Vec::new();
    for store in database::stores().await? {
        apis.push(Api::over(store).await?);
    }
    Ok(apis)
}

/// Every call of the OpenAPI document, with a stream's and others' names filled in.
async fn every_call(api: &Api, stream: &str) -> anyhow::Result<Vec<(Method, String)>> {
    let document = api.get("/openapi.json").await?.json;
    let mut calls = Vec::new();
    for (path, methods) in document["paths"].as_object().context("paths")? {
        let path = path
            .replace("{project}", "default")
            .replace("{stream}", stream)
            .replace("{plan}", "default")
            .replace("{key}", "key_none")
            .replace("{recording}", "20261121T084000Z");
        anyhow::ensure!(!path.contains('{'), "{path}: what should stand there?");
        for method in methods.as_object().context("methods")?.keys() {
            if let Ok(method) = method.to_uppercase().parse::<Method>() {
                calls.push((method, path.clone()));
            }
        }
    }
    anyhow::ensure!(calls.len() >= 30, "{calls:?}");
    Ok(calls)
}

/// Everything that a call could have changed.
async fn everything(api: &Api) -> anyhow::Result<Value> {
    let mut all = Vec::new();
    for path in [STREAMS, "/v1/projects/default/keys", "/v1/projects", "/v1/plans"] {
        let answer = api.get(path).await?;
        anyhow::ensure!(answer.status.is_success(), "{path}: {}", answer.text);
        all.push(answer.json);
    }
    Ok(all.into())
}

/// No call of the document is forgotten: those that are written tomorrow are asked, too.
#[tokio::test]
async fn no_call_at_all_does_anything_without_a_key_that_may() -> anyhow::Result<()> {
    for api in apis().await? {
        let (made, _) = api.stream(json!({"streamKey": "show"})).await?;
        let id = made["id"].as_str().context("an id")?;
        let project = json!({"name": "Other", "plan": "default"});
        api.call(Method::PUT, "/v1/projects/other", Some(project)).await?;
        let theirs = api.key_with(Some("other"), &[Scope::Admin]).await?;
        let calls = every_call(&api, id).await?;
        let before = everything(&api).await?;
        api.node.take();
        for (method, path) in calls {
            let body = matches!(method, Method::POST | Method::PUT | Method::PATCH).then(|| json!({}));
            for (key, statuses) in [
                ("", &[StatusCode::UNAUTHORIZED][..]),
                ("weir_unknown", &[StatusCode::UNAUTHORIZED]),
                // Plans and the list of projects are no project's: there the key is one that may not.
                (theirs.as_str(), &[StatusCode::NOT_FOUND, StatusCode::FORBIDDEN]),
            ] {
                let refused = api.call_as(key, method.clone(), &path, body.clone()).await?;
                let in_project = path.starts_with("/v1/projects/default/");
                let expected = if in_project && statuses.len() > 1 {
                    &statuses[..1]
                } else {
                    statuses
                };
                // A body that the call does not take may be told before who it is that may not.
                let malformed = refused.status == StatusCode::UNPROCESSABLE_ENTITY && key == theirs;
                assert!(
                    expected.contains(&refused.status) || malformed,
                    "{method} {path}: {} {}",
                    refused.status,
                    refused.text
                );
                refused.problem()?;
                assert!(
                    !refused.text.contains(id),
                    "{method} {path} tells of a stream: {}",
                    refused.text
                );
            }
        }
        assert_eq!(everything(&api).await?, before);
        assert_eq!(
            api.node.take(),
            Vec::<String>::new(),
            "the node was asked to do nothing"
        );
    }
    Ok(())
}

/// A request with these headers besides the key and a JSON body.
async fn create(api: &Api, headers: &[(&str, &[u8])], body: &[u8]) -> anyhow::Result<Answer> {
    let mut request = Request::post(STREAMS);
    for (name, value) in headers {
        request = request.header(*name, http::HeaderValue::from_bytes(value)?);
    }
    api.send(request.body(Body::from(body.to_vec()))?).await
}

#[tokio::test]
async fn headers_that_are_tricks_create_nothing() -> anyhow::Result<()> {
    for api in apis().await? {
        let key = format!("Bearer {}", api.key).into_bytes();
        let (auth, kind) = (
            ("authorization", key.as_slice()),
            ("content-type", &b"application/json"[..]),
        );
        let long = vec![b'x'; 60_000];
        let longest = [key.as_slice(), &long].concat();
        let padded = [b"Bearer ".as_slice(), &vec![b' '; 5000], &key[7..]].concat();
        for (what, headers, status) in [
            ("two keys, both right", &[auth, auth, kind][..], 401),
            (
                "a wrong key before the right one",
                &[("authorization", b"Bearer weir_x"), auth, kind],
                401,
            ),
            (
                "a wrong key after the right one",
                &[auth, ("authorization", b"Bearer weir_x"), kind],
                401,
            ),
            ("a key of 60 000 characters", &[("authorization", &longest), kind], 401),
            (
                "a key in other letters than ASCII",
                &[("authorization", "Bearer weir_ü".as_bytes()), kind],
                401,
            ),
            (
                "bytes that are no text",
                &[("authorization", b"Bearer weir_\xff\xfe"), kind],
                401,
            ),
            ("a key in another scheme", &[("authorization", &key[7..]), kind], 401),
            ("no type", &[auth], 415),
            ("two types", &[auth, kind, ("content-type", b"text/plain")], 415),
            (
                "a type that only begins like JSON",
                &[auth, ("content-type", b"application/jsonp")],
                415,
            ),
            ("an empty Idempotency-Key", &[auth, kind, ("idempotency-key", b"")], 422),
            (
                "a long Idempotency-Key",
                &[auth, kind, ("idempotency-key", &long[..256])],
                422,
            ),
            (
                "a very long Idempotency-Key",
                &[auth, kind, ("idempotency-key", &long)],
                422,
            ),
            (
                "two Idempotency-Keys",
                &[auth, kind, ("idempotency-key", b"a"), ("idempotency-key", b"b")],
                422,
            ),
            (
                "an Idempotency-Key with a space",
                &[auth, kind, ("idempotency-key", b"a b")],
                422,
            ),
            (
                "an Idempotency-Key that is no text",
                &[auth, kind, ("idempotency-key", b"\xc3\x28")],
                422,
            ),
        ] {
            let refused = create(&api, headers, b"{}").await?;
            assert_eq!(refused.status.as_u16(), status, "{what}: {}", refused.text);
            refused.problem()?;
            assert!(!refused.text.contains(&api.key), "{what}");
        }
        // What looks odd and is right.
        for (what, headers) in [
            (
                "spaces before the key",
                &[("authorization", padded.as_slice()), kind][..],
            ),
            (
                "another case of the scheme",
                &[("authorization", &[b"bEARER ".as_slice(), &key[7..]].concat()), kind],
            ),
            (
                "SQL",
                &[auth, kind, ("idempotency-key", b"';DROP/**/TABLE/**/streams;--")],
            ),
            ("as long as may be", &[auth, kind, ("idempotency-key", &long[..255])]),
            (
                "a character set",
                &[auth, ("content-type", b"Application/JSON; charset=utf-8")],
            ),
        ] {
            let made = create(&api, headers, b"{}").await?;
            assert_eq!(made.status, StatusCode::CREATED, "{what}: {}", made.text);
        }
        assert_eq!(api.get(STREAMS).await?.json["total"], 5);
    }
    Ok(())
}

#[tokio::test]
async fn a_change_is_made_only_if_one_of_the_tags_is_the_right_one() -> anyhow::Result<()> {
    for api in apis().await? {
        let (_, path) = api.stream(json!({"name": "before"})).await?;
        let patch = async |tags: &[&[u8]]| {
            let mut request = Request::patch(&path)
                .header("authorization", format!("Bearer {}", api.key))
                .header("content-type", "application/json");
            for tag in tags {
                request = request.header("if-match", http::HeaderValue::from_bytes(tag)?);
            }
            api.send(request.body(Body::from(r#"{"name": "after"}"#))?).await
        };
        let many = format!("\"9\"{}", ", \"8\"".repeat(10_000));
        for tags in [
            &[&b"\"2\""[..]][..],
            &[b"1"],
            &[b"W/\"1\""],
            &[b""],
            &[b"\"1\"2\""],
            &[b"\"01x\""],
            &[b"\"99999999999999999999999\""],
            &[b"\"1' OR '1'='1\""],
            &[b"\xff\xfe"],
            &[b"\"7\"", b"\"8\""],
            &[many.as_bytes()],
        ] {
            let refused = patch(tags).await?;
            assert_eq!(
                (refused.status, refused.problem()?.as_str()),
                (StatusCode::PRECONDITION_FAILED, "changed"),
                "{tags:?}"
            );
        }
        assert_eq!(api.get(&path).await?.json["name"], "before");
        let with_ours = patch(&[many.as_bytes(), b"\"3\" , \"1\""]).await?;
        assert_eq!(with_ours.status, StatusCode::OK, "{}", with_ours.text);
        assert_eq!(with_ours.json["name"], "after");
        assert_eq!(patch(&[b"\"7\"", b"*"]).await?.status, StatusCode::OK);
    }
    Ok(())
}

#[tokio::test]
async fn bodies_that_are_tricks_create_nothing() -> anyhow::Result<()> {
    for api in apis().await? {
        let key = format!("Bearer {}", api.key).into_bytes();
        let headers = [
            ("authorization", key.as_slice()),
            ("content-type", &b"application/json"[..]),
        ];
        for (body, status, field) in [
            (&b"{\"name\": \"\xff\"}"[..], 400, ""),
            (b"{\"name\": \"\\ud800\"}", 400, ""),
            (b"{\"name\": \"a\0b\"}", 400, ""),
            (b"\xef\xbb\xbf{}", 400, ""),
            (b"{\"name\": \"a\\u0000b\"}", 422, "name"),
            (b"{\"clientUserId\": \"\\u0000\"}", 422, "clientUserId"),
            (b"{\"metadata\": {\"a\": 1e999}}", 400, ""),
            (b"{\"name\": \"a\", \"name\": \"b\"}", 422, "name"),
            (b"{\"id\": \"str_mine\"}", 422, "id"),
            (b"{\"project\": \"other\"}", 422, "project"),
            (b"{\"status\": \"LIVE\"}", 422, "status"),
            (b"{\"__proto__\": {}}", 422, "__proto__"),
            (b"{\"dvrDuration\": 4294967326}", 422, "dvrDuration"),
            (b"{\"dvrDuration\": 30.5}", 422, "dvrDuration"),
            (b"{\"dvrDuration\": \"60\"}", 422, "dvrDuration"),
            (b"{\"active\": \"true\"}", 422, "active"),
            (b"{\"active\": 1}", 422, "active"),
            (b"{\"protocols\": \"llhls\"}", 422, "protocols"),
            (
                b"{\"qualities\": [\"720p\", \"720p\", \"720p\", \"720p\", \"720p\", \"720p\"]}",
                422,
                "qualities",
            ),
            (b"{\"uri\": \"http://a\\r\\nHost: b\"}", 422, "uri"),
            (b"null", 422, "body"),
            (b"true", 422, "body"),
            (b"\"{}\"", 422, "body"),
        ] {
            let shown = String::from_utf8_lossy(body);
            let refused = create(&api, &headers, body).await?;
            assert_eq!(
                (refused.status.as_u16(), refused.wrong_fields().join(",").as_str()),
                (status, field),
                "{shown}: {}",
                refused.text
            );
            refused.problem()?;
        }
        assert_eq!(api.get(STREAMS).await?.json["total"], 0);
    }
    Ok(())
}

#[tokio::test]
async fn addresses_that_are_tricks_find_nothing() -> anyhow::Result<()> {
    for api in apis().await? {
        api.stream(json!({"streamKey": "show", "name": "a\u{fffd}b"})).await?;
        let long = "x".repeat(50_000);
        for (path, status) in [
            (format!("{STREAMS}/%ff%fe"), 404),
            (format!("{STREAMS}/%c0%ae%c0%ae"), 404),
            (format!("{STREAMS}/%00"), 404),
            (format!("{STREAMS}/%0d%0aSet-Cookie:%20a=b"), 404),
            (format!("{STREAMS}/{long}"), 404),
            (format!("{STREAMS}/../keys"), 404),
            (format!("/v1/projects/{long}/streams"), 404),
            ("/v1/projects/%2e%2e/streams".to_owned(), 404),
            ("/v1/projects/default%00/streams".to_owned(), 404),
            ("/v1/projects/Default/streams".to_owned(), 404),
            ("//v1/projects/default/streams".to_owned(), 404),
            (format!("{STREAMS}/"), 404),
            (format!("{STREAMS}?limit=-1"), 422),
            (format!("{STREAMS}?limit=1e1"), 422),
            (format!("{STREAMS}?limit=%EF%BC%91"), 422),
            (format!("{STREAMS}?skip=4294967296"), 422),
            (format!("{STREAMS}?skip=1&skip=2"), 422),
            (format!("{STREAMS}?status=live"), 422),
            (format!("{STREAMS}?status=LIVE'--"), 422),
            (format!("{STREAMS}?from=yesterday"), 422),
            (format!("{STREAMS}?from=2026-02-30T00:00:00Z"), 422),
            (format!("{STREAMS}?q=%00"), 422),
            (format!("{STREAMS}?q={long}"), 422),
            (format!("{STREAMS}?order=name;DROP"), 422),
            (
                "/v1/projects/default/streams?q=%27%20UNION%20SELECT%20doc%20FROM%20streams--".to_owned(),
                200,
            ),
            // As browsers read such bytes; the replacement character in a name is found by it.
            (format!("{STREAMS}?q=a%ffb"), 200),
        ] {
            let shown: String = path.chars().take(80).collect();
            let answer = api.get(&path).await?;
            assert_eq!(answer.status.as_u16(), status, "{shown}: {}", answer.text);
            if status != 200 {
                answer.problem()?;
            }
            assert!(answer.headers.get("set-cookie").is_none());
        }
        let union = api.get(&format!("{STREAMS}?q=%27%20UNION%20SELECT%201--")).await?;
        assert_eq!(union.json["total"], 0);
    }
    Ok(())
}

#[tokio::test]
async fn every_state_says_which_calls_it_does_not_take() -> anyhow::Result<()> {
    for api in apis().await? {
        let (_, path) = api.stream(json!({"streamKey": "show"})).await?;
        let connected = News {
            key: "show".parse()?,
            what: Happening::Connected(Slot::Primary),
        };
        let start = ["go-live", "start-broadcasting", "start-recording"];
        for (state, refused) in [
            ("IDLE", &start[..]),
            // The node of these tests carries no media: there is nothing to record.
            ("LIVE", &["activate", "start-recording"]),
            ("DISABLED", &start),
        ] {
            match state {
                "LIVE" => api.control.hear(&connected).await?,
                "DISABLED" => {
                    let done = api.call(Method::POST, &format!("{path}/disable"), None).await?;
                    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
                }
                _ => {}
            }
            let before = api.get(&path).await?.json;
            assert_eq!(before["status"], state);
            for call in refused {
                let told = api.call(Method::POST, &format!("{path}/{call}"), None).await?;
                assert_eq!(
                    (told.status, told.problem()?.as_str()),
                    (StatusCode::CONFLICT, "illegal-state"),
                    "{call} while {state}: {}",
                    told.text
                );
                assert!(told.text.contains(state), "{call}: {}", told.text);
            }
            assert_eq!(api.get(&path).await?.json, before);
        }
    }
    Ok(())
}
