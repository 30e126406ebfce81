//! Who may do what in the REST API, and what becomes of requests that make no sense.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use weir_origin::control::model::Scope;
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

#[tokio::test]
async fn without_a_valid_key_nothing_is_answered() -> anyhow::Result<()> {
    for api in apis().await? {
        for header in [
            None,
            Some("Bearer "),
            Some("Bearer weir_unknown"),
            Some("Basic d2Vpcg=="),
            Some("weir_x"),
        ] {
            let mut request = Request::get(STREAMS);
            if let Some(value) = header {
                request = request.header("authorization", value);
            }
            let refused = api.send(request.body(Body::empty())?).await?;
            assert_eq!(
                (refused.status, refused.problem()?.as_str()),
                (StatusCode::UNAUTHORIZED, "unauthorized")
            );
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_key_is_shown_once_and_revoked_at_the_very_next_call() -> anyhow::Result<()> {
    for api in apis().await? {
        let order = json!({"name": "ci", "scopes": ["streams:read"]});
        let made = api.post("/v1/projects/default/keys", order).await?;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let key = made.json["key"].as_str().unwrap().to_owned();
        let list = api.get("/v1/projects/default/keys").await?;
        assert!(!list.text.contains(&key), "a list shows no key");
        assert_eq!(
            api.call_as(&key, Method::GET, STREAMS, None).await?.status,
            StatusCode::OK
        );

        let id = made.json["record"]["id"].as_str().unwrap();
        let path = format!("/v1/projects/default/keys/{id}");
        assert_eq!(
            api.call(Method::DELETE, &path, None).await?.status,
            StatusCode::NO_CONTENT
        );
        let refused = api.call_as(&key, Method::GET, STREAMS, None).await?;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{}", refused.text);
        assert_eq!(
            api.call(Method::DELETE, &path, None).await?.status,
            StatusCode::NO_CONTENT,
            "again"
        );
        let unknown = api
            .call(Method::DELETE, "/v1/projects/default/keys/key_%00", None)
            .await?;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    }
    Ok(())
}

/// Role × verb: which scopes a call takes.
#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_nothing_else() -> anyhow::Result<()> {
    let api = Api::over(database::stores().await?.remove(0)).await?;
    let (_, path) = api.stream(json!({})).await?;
    let calls = [
        (Method::GET, path.clone(), Scope::StreamsRead),
        (Method::GET, STREAMS.to_owned(), Scope::StreamsRead),
        (Method::GET, format!("{path}/health"), Scope::StreamsRead),
        (Method::POST, STREAMS.to_owned(), Scope::StreamsWrite),
        (Method::PATCH, path.clone(), Scope::StreamsWrite),
        (Method::POST, format!("{path}/activate"), Scope::StreamsWrite),
        (Method::POST, format!("{path}/disable"), Scope::StreamsWrite),
        (Method::POST, format!("{path}/rotate-push"), Scope::StreamsWrite),
        (Method::POST, format!("{path}/regenerate-token"), Scope::StreamsWrite),
        (Method::POST, format!("{path}/clear-dvr"), Scope::StreamsWrite),
        (Method::POST, format!("{path}/playback-ticket"), Scope::StreamsWrite),
        (Method::GET, format!("{path}/signed-playback"), Scope::StreamsWrite),
        (Method::POST, format!("{path}/go-live"), Scope::BroadcastStart),
        (
            Method::POST,
            format!("{path}/start-broadcasting"),
            Scope::BroadcastStart,
        ),
        (Method::POST, format!("{path}/stop-broadcasting"), Scope::BroadcastStop),
        (Method::POST, format!("{path}/start-recording"), Scope::Vod),
        (Method::POST, format!("{path}/stop-recording"), Scope::Vod),
        (Method::GET, "/v1/projects/default/keys".to_owned(), Scope::Admin),
        (Method::GET, "/v1/projects".to_owned(), Scope::Admin),
        (Method::GET, "/v1/plans".to_owned(), Scope::Admin),
    ];
    for held in Scope::ALL {
        let key = api.key_with(None, &[held]).await?;
        for (method, path, needed) in &calls {
            let body = matches!(*method, Method::POST | Method::PATCH).then(|| json!({}));
            let answer = api.call_as(&key, method.clone(), path, body).await?;
            let refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(
                refused,
                !held.covers(*needed),
                "{held:?}: {method} {path}: {}",
                answer.text
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_project_does_not_exist() -> anyhow::Result<()> {
    for api in apis().await? {
        let project = json!({"name": "Other", "plan": "default"});
        assert_eq!(
            api.call(Method::PUT, "/v1/projects/other", Some(project)).await?.status,
            StatusCode::OK
        );
        let (_, path) = api.stream(json!({})).await?;
        let theirs = api.key_with(Some("other"), &[Scope::Admin]).await?;
        for (method, path) in [
            (Method::GET, path.clone()),
            (Method::GET, STREAMS.to_owned()),
            (Method::POST, STREAMS.to_owned()),
            (Method::DELETE, format!("{path}?purge=true")),
            (Method::GET, "/v1/projects/default/keys".to_owned()),
        ] {
            let body = (method == Method::POST).then(|| json!({}));
            let refused = api.call_as(&theirs, method, &path, body).await?;
            assert_eq!(
                (refused.status, refused.problem()?.as_str()),
                (StatusCode::NOT_FOUND, "not-found"),
                "{path}"
            );
        }
        // The right project, another one's stream.
        let crossed = path.replace("/default/", "/other/");
        assert_eq!(
            api.call_as(&theirs, Method::GET, &crossed, None).await?.status,
            StatusCode::NOT_FOUND
        );
        let own = "/v1/projects/other";
        assert_eq!(
            api.call_as(&theirs, Method::GET, own, None).await?.status,
            StatusCode::OK
        );
        let all = api.call_as(&theirs, Method::GET, "/v1/projects", None).await?;
        assert_eq!(all.status, StatusCode::FORBIDDEN, "its own project only");
        assert_eq!(
            api.get("/v1/projects/nowhere/streams").await?.status,
            StatusCode::NOT_FOUND
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_plan_holds() -> anyhow::Result<()> {
    for api in apis().await? {
        let plan = json!({"streams": 2, "dvrSeconds": 600, "qualities": 1});
        let made = api.call(Method::PUT, "/v1/plans/small", Some(plan)).await?;
        assert_eq!(
            (made.status, &made.json["limits"]["graceSeconds"]),
            (StatusCode::OK, &json!(10)),
            "{}",
            made.text
        );
        let project = json!({"name": "Small", "plan": "small"});
        api.call(Method::PUT, "/v1/projects/small", Some(project)).await?;
        let streams = "/v1/projects/small/streams";
        for (body, field) in [
            (json!({"dvrEnabled": true, "dvrDuration": 601}), "dvrDuration"),
            (json!({"qualities": ["720p", "480p"]}), "qualities"),
        ] {
            let refused = api.post(streams, body).await?;
            assert_eq!(
                (refused.problem()?.as_str(), refused.wrong_fields()),
                ("over-plan", vec![field])
            );
            if field == "dvrDuration" {
                assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
                assert!(refused.text.contains("30 to 600 seconds"), "{}", refused.text);
            }
        }
        for _ in 0..2 {
            assert_eq!(api.post(streams, json!({})).await?.status, StatusCode::CREATED);
        }
        let refused = api.post(streams, json!({})).await?;
        assert_eq!(
            (refused.status, refused.wrong_fields()),
            (StatusCode::FORBIDDEN, vec!["streams"])
        );
        let unknown = json!({"name": "x", "plan": "none"});
        assert_eq!(
            api.call(Method::PUT, "/v1/projects/x", Some(unknown)).await?.status,
            StatusCode::NOT_FOUND
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_makes_no_sense_is_refused_and_nothing_else_happens() -> anyhow::Result<()> {
    for api in apis().await? {
        let key = api.key.clone();
        let send = async |kind: &str, body: Body| -> anyhow::Result<Answer> {
            let request = Request::post(STREAMS)
                .header("authorization", format!("Bearer {key}"))
                .header("content-type", kind)
                .body(body)?;
            api.send(request).await
        };
        let large = json!({"name": "x".repeat(1 << 20)}).to_string();
        let metadata = json!({"metadata": {"a": "x".repeat(65_536)}}).to_string();
        let deep = format!("{{\"metadata\": {{\"a\": {}1{}}}}}", "[".repeat(5000), "]".repeat(5000));
        let sql = json!({"streamKey": "'; DROP TABLE streams; --"}).to_string();
        for (kind, body, status, field) in [
            ("application/json", "{".to_owned(), 400, ""),
            ("application/json", "{} {}".to_owned(), 400, ""),
            ("application/json", deep, 400, ""),
            ("application/json", String::new(), 400, ""),
            ("text/plain", "{}".to_owned(), 415, ""),
            ("application/json", large, 413, ""),
            ("application/json", metadata, 413, "metadata"),
            ("application/json", "[]".to_owned(), 422, "body"),
            ("application/json", json!({"nmae": "x"}).to_string(), 422, "nmae"),
            ("application/json", json!({"name": 7}).to_string(), 422, "name"),
            (
                "application/json",
                json!({"dvrDuration": 29}).to_string(),
                422,
                "dvrDuration",
            ),
            (
                "application/json",
                json!({"dvrDuration": -1}).to_string(),
                422,
                "dvrDuration",
            ),
            (
                "application/json",
                json!({"protocols": ["llhls", "flash"]}).to_string(),
                422,
                "protocols[1]",
            ),
            ("application/json", json!({"metadata": []}).to_string(), 422, "metadata"),
            ("application/json", sql, 422, "streamKey"),
        ] {
            let shown: String = body.chars().take(60).collect();
            let refused = send(kind, body.into()).await?;
            refused.problem()?;
            let fields = refused.wrong_fields().join(",");
            assert_eq!(
                (refused.status.as_u16(), fields.as_str()),
                (status, field),
                "{shown}: {}",
                refused.text
            );
        }
        assert_eq!(api.get(STREAMS).await?.json["total"], 0);
    }
    Ok(())
}

#[tokio::test]
async fn names_that_look_like_sql_are_only_names() -> anyhow::Result<()> {
    for api in apis().await? {
        let name = "Robert'); DROP TABLE streams;-- \" \\ % _";
        let (made, path) = api.stream(json!({"name": name, "clientUserId": "$1 ?1 {}"})).await?;
        assert_eq!(made["name"], name);
        assert_eq!(api.get(&path).await?.json["clientUserId"], "$1 ?1 {}");
        let found = api.get(&format!("{STREAMS}?q=DROP%20TABLE")).await?;
        assert_eq!(found.json["total"], 1);
        for odd in ["%27%20OR%201=1", "..%2f..%2fkeys", "str_%00", &"x".repeat(5000)] {
            let answer = api.get(&format!("{STREAMS}/{odd}")).await?;
            assert_eq!(
                (answer.status, answer.problem()?.as_str()),
                (StatusCode::NOT_FOUND, "not-found"),
                "{odd}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_wrong_address_and_method_gets_a_problem_document() -> anyhow::Result<()> {
    let api = Api::over(database::stores().await?.remove(0)).await?;
    assert_eq!(api.get("/v2/streams").await?.problem()?, "not-found");
    let wrong = api.call(Method::PUT, STREAMS, Some(json!({}))).await?;
    assert_eq!(
        (wrong.status, wrong.problem()?.as_str()),
        (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed")
    );
    assert!(wrong.header("allow").contains("POST"), "{:?}", wrong.headers);
    assert_eq!(wrong.header("cache-control"), "no-store");
    Ok(())
}

#[tokio::test]
async fn two_streams_never_have_one_key() -> anyhow::Result<()> {
    for api in apis().await? {
        api.stream(json!({"streamKey": "show"})).await?;
        let refused = api.post(STREAMS, json!({"streamKey": "show"})).await?;
        assert_eq!(
            (refused.problem()?.as_str(), refused.wrong_fields()),
            ("taken", vec!["streamKey"])
        );
        let (_, other) = api.stream(json!({})).await?;
        let refused = api
            .call(Method::PATCH, &other, Some(json!({"streamKey": "show"})))
            .await?;
        assert_eq!(
            (refused.status, refused.problem()?.as_str()),
            (StatusCode::CONFLICT, "fixed")
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_ticket_is_signed_with_the_streams_own_secret() -> anyhow::Result<()> {
    for api in apis().await? {
        let (made, path) = api.stream(json!({"streamKey": "show", "signedPlayback": true})).await?;
        let settings = api.get(&format!("{path}/signed-playback")).await?.json;
        assert_eq!(
            (&settings["enabled"], &made["signedPlayback"]),
            (&json!(true), &json!(true))
        );
        let order = json!({"expiresInSec": 60, "allowIp": "203.0.113.0/24", "streamExpireSec": 600, "preview": true});
        let ticket = api.post(&format!("{path}/playback-ticket"), order).await?.json;
        let url = ticket["playbackUrls"]["llhls"].as_str().unwrap();
        assert!(
            url.starts_with("https://watch.example.com/app/show/index.m3u8?policy="),
            "{url}"
        );
        assert_eq!(
            ticket["signature"].as_str().map(str::len),
            Some(43),
            "HMAC-SHA256, base64url without padding"
        );

        let other = json!({"enabled": false, "rotateSecret": true});
        let changed = api
            .call(Method::PUT, &format!("{path}/signed-playback"), Some(other))
            .await?;
        assert_ne!(changed.json["secret"], settings["secret"]);
        assert_eq!(api.get(&path).await?.json["signedPlayback"], false);
        let bad = api
            .post(
                &format!("{path}/playback-ticket"),
                json!({"allowIp": "here", "expiresInSec": 0}),
            )
            .await?;
        assert_eq!(bad.wrong_fields(), ["expiresInSec", "allowIp"]);
    }
    Ok(())
}

#[tokio::test]
async fn the_document_describes_every_call() -> anyhow::Result<()> {
    let api = Api::over(database::stores().await?.remove(0)).await?;
    let document = api.send(Request::get("/openapi.json").body(Body::empty())?).await?.json;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["components"]["securitySchemes"]["apiKey"]["scheme"], "bearer");
    let paths = document["paths"].as_object().unwrap();
    let stream = "/v1/projects/{project}/streams/{stream}";
    for call in [
        "activate disable rotate-push regenerate-token clear-dvr go-live start-broadcasting stop-broadcasting \
         start-recording stop-recording playback-ticket signed-playback health",
    ]
    .into_iter()
    .flat_map(str::split_whitespace)
    {
        assert!(paths.contains_key(&format!("{stream}/{call}")), "{call}");
    }
    // Whatever a reference points at is there.
    let text = document.to_string();
    for name in text
        .split("#/components/schemas/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
    {
        assert_ne!(document["components"]["schemas"][name], Value::Null, "{name}");
    }
    let page = api.send(Request::get("/docs").body(Body::empty())?).await?;
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert!(
        !page.text.contains("https://") && !page.text.contains("src="),
        "the page calls nobody"
    );
    Ok(())
}
