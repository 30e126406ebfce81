//! The REST API's promises, on SQLite and on PostgreSQL.

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

async fn apis() -> anyhow::Result<Vec<Api>> {
    let mut apis = Vec::new();
    for store in database::stores().await? {
        apis.push(Api::over(store).await?);
    }
    Ok(apis)
}

fn news(key: &Value, what: Happening) -> News {
    News {
        key: key.as_str().unwrap_or_default().parse().expect("a stream key"),
        what,
    }
}

const STREAMS: &str = "/v1/projects/default/streams";

#[tokio::test]
async fn a_stream_is_made_read_changed_and_removed() -> anyhow::Result<()> {
    for api in apis().await? {
        let metadata = json!({"event": {"id": 7}, "tags": ["a", null, 1.5]});
        let (made, path) = api
            .stream(
                json!({"name": "Evening show", "protocols": ["llhls", "dash"], "metadata": metadata,
                "clientUserId": "anna", "dvrEnabled": true, "dvrDuration": 600}),
            )
            .await?;
        assert_eq!(
            (&made["status"], &made["live"], &made["active"]),
            (&json!("IDLE"), &json!(false), &json!(true))
        );
        assert_eq!(made["metadata"], metadata);
        let key = made["streamKey"].as_str().unwrap();
        assert_eq!(made["ingest"]["rtmpUrl"], "rtmp://live.example.com:1935/app");
        assert_eq!(
            made["playbackUrls"]["llhls"],
            format!("https://watch.example.com/app/{key}/index.m3u8")
        );
        assert_eq!(made["playbackUrls"]["hls"], Value::Null, "it was not asked for");
        assert_eq!(api.outbox.take(), ["stream.created"]);
        assert!(api.node.policy(key).unwrap().accepts_publisher);

        let read = api.get(&path).await?;
        assert_eq!((read.status, &read.json), (StatusCode::OK, &made));

        let patched = api
            .call(
                Method::PATCH,
                &path,
                Some(json!({"name": "Late show", "clientUserId": null})),
            )
            .await?;
        assert_eq!(patched.status, StatusCode::OK, "{}", patched.text);
        assert_eq!(patched.json["name"], "Late show");
        assert_eq!(patched.json["clientUserId"], Value::Null);
        assert_eq!(patched.json["metadata"], metadata, "what is left out stays");

        let off = api.call(Method::DELETE, &path, None).await?;
        assert_eq!(
            (&off.json["status"], &off.json["active"]),
            (&json!("DISABLED"), &json!(false))
        );
        assert!(!api.node.policy(key).unwrap().accepts_publisher);
        let gone = api.call(Method::DELETE, &format!("{path}?purge=true"), None).await?;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
        assert_eq!(api.get(&path).await?.problem()?, "not-found");
        assert_eq!(api.node.take(), [format!("remove {key}")]);
    }
    Ok(())
}

#[tokio::test]
async fn every_field_of_the_contract_is_there() -> anyhow::Result<()> {
    let api = Api::over(database::stores().await?.remove(0)).await?;
    let (made, _) = api.stream(json!({})).await?;
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let all = fields(&made);
    for field in "id name project streamKey status protocols qualities dvrEnabled dvrDuration vodEnabled recordType \
        signedPlayback ingest playbackUrls egress live backupLive viewers recording recordingDuration active pull uri clientUserId \
        metadata createdAt updatedAt"
        .split_whitespace()
    {
        assert!(all.iter().any(|f| f == field), "{field} is missing");
    }
    let ingest = "backup passphrase password rtmpPort rtmpUrl rtmpsUrl srtPort srtUrl token username whipUrl";
    assert_eq!(fields(&made["ingest"]).join(" "), ingest);
    let playback = "dash hls llhls llhlsDirect player thumbnail webrtc";
    assert_eq!(fields(&made["playbackUrls"]).join(" "), playback);
    assert_eq!(
        made["egress"],
        json!({"broadcasting": false, "hls": {"playlistUrl": null}})
    );
    Ok(())
}

#[tokio::test]
async fn a_list_is_paged_searched_and_filtered_newest_first() -> anyhow::Result<()> {
    for api in apis().await? {
        for n in 0..25 {
            let (made, path) = api
                .stream(json!({"name": format!("Show {n:02} 50%_off"), "streamKey": format!("k{n:02}")}))
                .await?;
            if n < 3 {
                api.call(Method::POST, &format!("{path}/disable"), None).await?;
            }
            drop(made);
        }
        let list = async |query: &str| -> anyhow::Result<(Vec<String>, Value)> {
            let page = api.get(&format!("{STREAMS}{query}")).await?;
            anyhow::ensure!(page.status == StatusCode::OK, "{}", page.text);
            let items = page.json["items"].as_array().cloned().unwrap_or_default();
            let keys = items
                .iter()
                .filter_map(|i| Some(i["streamKey"].as_str()?.to_owned()))
                .collect();
            Ok((keys, page.json))
        };
        let (keys, page) = list("").await?;
        assert_eq!(
            (keys.len(), &page["total"], &page["skip"], &page["limit"]),
            (20, &json!(25), &json!(0), &json!(20))
        );
        let (rest, _) = list("?skip=20&limit=100").await?;
        assert_eq!(rest.len(), 5);
        let mut all: Vec<_> = keys.into_iter().chain(rest).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 25, "no stream twice, none left out");

        assert_eq!(list("?q=sHoW%2007").await?.0, ["k07"]);
        assert_eq!(list("?q=50%25_OFF&limit=1").await?.1["total"], 25);
        assert_eq!(list("?q=50__off").await?.1["total"], 0, "an underscore is no wildcard");
        assert_eq!(list("?status=DISABLED").await?.1["total"], 3);
        assert_eq!(
            list("?status=DISABLED&limit=1").await?.1["total"],
            3,
            "counted, not guessed from the page"
        );
        assert_eq!(list("?status=LIVE").await?.1["total"], 0);
        let (keys, page) = list("?skip=30").await?;
        assert_eq!((keys.len(), &page["total"]), (0, &json!(25)), "behind the end");
        assert_eq!(
            list("?from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00%2B01:00")
                .await?
                .1["total"],
            25
        );
        assert_eq!(list("?to=2000-01-01T00:00:00Z").await?.1["total"], 0);
        let id = list("?limit=1").await?.1["items"][0]["id"].as_str().unwrap().to_owned();
        api.call(Method::DELETE, &format!("{STREAMS}/{id}?purge=true"), None)
            .await?;
        assert_eq!(list("?limit=1").await?.1["total"], 24);
        assert_eq!(list("?limit=1&status=IDLE").await?.1["total"], 22 - 1);
        for (bad, field) in [
            ("?limit=0", "limit"),
            ("?limit=101", "limit"),
            ("?skip=-1", "skip"),
            ("?status=live", "status"),
            ("?from=yesterday", "from"),
            ("?q=%00", "q"),
            ("?sort=name", "sort"),
        ] {
            let refused = api.get(&format!("{STREAMS}{bad}")).await?;
            assert_eq!(
                (refused.problem()?.as_str(), refused.wrong_fields()),
                ("invalid", vec![field]),
                "{bad}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_change_is_made_only_to_the_version_that_was_read() -> anyhow::Result<()> {
    for api in apis().await? {
        let (_, path) = api.stream(json!({"name": "one"})).await?;
        let tag = api.get(&path).await?.header("etag").to_owned();
        let patch = async |tag: &str, name: &str| -> anyhow::Result<Answer> {
            let request = Request::patch(&path)
                .header("authorization", format!("Bearer {}", api.key))
                .header("content-type", "application/json; charset=utf-8")
                .header("if-match", tag)
                .body(json!({"name": name}).to_string().into())?;
            api.send(request).await
        };
        let mine = patch(&tag, "two").await?;
        assert_eq!(mine.status, StatusCode::OK);
        assert_ne!(mine.header("etag"), tag);
        let theirs = patch(&tag, "three").await?;
        assert_eq!(
            (theirs.status, theirs.problem()?.as_str()),
            (StatusCode::PRECONDITION_FAILED, "changed")
        );
        assert_eq!(
            patch("\"nonsense\"", "three").await?.status,
            StatusCode::PRECONDITION_FAILED
        );
        assert_eq!(patch("*", "four").await?.json["name"], "four");
        let same = patch("*", "four").await?;
        assert_eq!(
            same.header("etag"),
            api.get(&path).await?.header("etag"),
            "no change, no new version"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_repeated_request_creates_one_stream() -> anyhow::Result<()> {
    for api in apis().await? {
        let create = async |body: Value| -> anyhow::Result<Answer> {
            let request = Request::post(STREAMS)
                .header("authorization", format!("Bearer {}", api.key))
                .header("content-type", "application/json")
                .header("idempotency-key", "order-17")
                .body(body.to_string().into())?;
            api.send(request).await
        };
        let first = create(json!({"name": "once"})).await?;
        let again = create(json!({"name": "once"})).await?;
        assert_eq!((again.status, &again.json), (StatusCode::CREATED, &first.json));
        assert_eq!(
            (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
            ("", "true")
        );
        let other = create(json!({"name": "other"})).await?;
        assert_eq!(
            (other.status, other.wrong_fields()),
            (StatusCode::UNPROCESSABLE_ENTITY, vec!["Idempotency-Key"])
        );
        assert_eq!(api.get(STREAMS).await?.json["total"], 1);
    }
    Ok(())
}

#[tokio::test]
async fn an_illegal_move_is_refused_with_the_state_it_met() -> anyhow::Result<()> {
    for api in apis().await? {
        let (made, path) = api.stream(json!({})).await?;
        let early = api.post(&format!("{path}/go-live"), json!({})).await?;
        assert_eq!(
            (early.status, early.problem()?.as_str()),
            (StatusCode::CONFLICT, "illegal-state")
        );
        assert!(
            early.json["detail"].as_str().unwrap().contains("IDLE"),
            "{}",
            early.text
        );

        api.control
            .hear(&news(&made["streamKey"], Happening::Connected(Slot::Primary)))
            .await?;
        let live = api.post(&format!("{path}/activate"), json!({})).await?;
        assert!(live.json["detail"].as_str().unwrap().contains("LIVE"), "{}", live.text);
        for verb in ["start-recording", "stop-recording"] {
            let refused = api.call(Method::POST, &format!("{path}/{verb}"), None).await?;
            assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_broadcast_is_seen_in_the_api_from_the_push_to_the_end() -> anyhow::Result<()> {
    for api in apis().await? {
        let (made, path) = api.stream(json!({"backstage": true})).await?;
        let key = made["streamKey"].as_str().unwrap();
        api.outbox.take();

        api.control
            .hear(&news(&made["streamKey"], Happening::Connected(Slot::Primary)))
            .await?;
        let live = api.get(&path).await?.json;
        assert_eq!(
            (&live["status"], &live["live"], &live["backupLive"]),
            (&json!("LIVE"), &json!(true), &json!(false))
        );
        assert_eq!(live["egress"]["broadcasting"], false, "backstage");
        assert!(!api.node.policy(key).unwrap().broadcasting);

        for _ in 0..2 {
            let shown = api.post(&format!("{path}/go-live"), json!({"startHls": true})).await?;
            assert_eq!(shown.json["egress"]["broadcasting"], true, "{}", shown.text);
        }
        api.control
            .hear(&news(&made["streamKey"], Happening::Connected(Slot::Backup)))
            .await?;
        api.control
            .hear(&news(&made["streamKey"], Happening::Left(Slot::Primary)))
            .await?;
        let on_backup = api.get(&path).await?.json;
        assert_eq!(
            (&on_backup["live"], &on_backup["backupLive"]),
            (&json!(false), &json!(true))
        );

        let stopped = api
            .call(Method::POST, &format!("{path}/stop-broadcasting"), None)
            .await?;
        assert_eq!(stopped.json["egress"]["hls"]["playlistUrl"], Value::Null);
        assert_eq!(
            api.node.take(),
            [format!("show {key}"), format!("hide {key}")],
            "the publisher goes on"
        );

        api.control
            .hear(&news(&made["streamKey"], Happening::Left(Slot::Backup)))
            .await?;
        assert_eq!(api.get(&path).await?.json["status"], "LIVE", "the grace time runs");
        api.control.hear(&news(&made["streamKey"], Happening::Ended)).await?;
        assert_eq!(api.get(&path).await?.json["status"], "DISABLED");
        let told = [
            "stream.live",
            "broadcasting.started",
            "broadcasting.stopped",
            "stream.interrupted",
            "stream.ended",
        ];
        assert_eq!(api.outbox.take(), told);
        assert_eq!(
            api.post(&format!("{path}/activate"), json!({})).await?.json["status"],
            "IDLE"
        );
    }
    Ok(())
}

#[tokio::test]
async fn news_that_come_together_are_written_together_and_in_order() -> anyhow::Result<()> {
    for api in apis().await? {
        let (one, one_path) = api.stream(json!({"streamKey": "one"})).await?;
        let (two, two_path) = api.stream(json!({"streamKey": "two"})).await?;
        let (off, off_path) = api.stream(json!({"streamKey": "off", "active": false})).await?;
        let group = [
            news(&one["streamKey"], Happening::Connected(Slot::Primary)),
            news(&off["streamKey"], Happening::Connected(Slot::Primary)),
            news(&json!("unknown"), Happening::Connected(Slot::Primary)),
            news(&two["streamKey"], Happening::Connected(Slot::Backup)),
            news(&one["streamKey"], Happening::Left(Slot::Primary)),
            news(&off["streamKey"], Happening::Left(Slot::Primary)),
        ];
        let refused = api.control.hear_all(&group).await;
        let keys: Vec<_> = refused.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["off"], "one stream's refusal is not the others'");
        assert_eq!(api.node.take(), ["kick off"]);
        let state = async |path: &str| -> anyhow::Result<(Value, Value, Value)> {
            let read = api.get(path).await?.json;
            Ok((read["status"].clone(), read["live"].clone(), read["backupLive"].clone()))
        };
        assert_eq!(
            state(&one_path).await?,
            (json!("LIVE"), json!(false), json!(false)),
            "came and went: grace"
        );
        assert_eq!(state(&two_path).await?, (json!("LIVE"), json!(false), json!(true)));
        assert_eq!(state(&off_path).await?, (json!("IDLE"), json!(false), json!(false)));
        assert_eq!(api.get(&format!("{STREAMS}?status=LIVE")).await?.json["total"], 2);
    }
    Ok(())
}

#[tokio::test]
async fn switching_a_live_stream_off_cuts_its_publisher() -> anyhow::Result<()> {
    for api in apis().await? {
        let (made, path) = api.stream(json!({"streamKey": "show"})).await?;
        api.control
            .hear(&news(&made["streamKey"], Happening::Connected(Slot::Primary)))
            .await?;
        let off = api.call(Method::PATCH, &path, Some(json!({"active": false}))).await?;
        assert_eq!(
            (&off.json["status"], &off.json["active"]),
            (&json!("IDLE"), &json!(false))
        );
        assert_eq!(api.node.take(), ["kick show", "end show"]);
        let refused = api
            .control
            .hear(&news(&made["streamKey"], Happening::Connected(Slot::Primary)))
            .await;
        assert!(refused.is_err(), "an inactive stream takes no publisher");
        assert_eq!(api.node.take(), ["kick show"]);
    }
    Ok(())
}

#[tokio::test]
async fn rotating_credentials_keeps_the_publisher_unless_told_otherwise() -> anyhow::Result<()> {
    for api in apis().await? {
        let (made, path) = api.stream(json!({"streamKey": "show"})).await?;
        api.control
            .hear(&news(&made["streamKey"], Happening::Connected(Slot::Primary)))
            .await?;
        let rotated = api.call(Method::POST, &format!("{path}/rotate-push"), None).await?.json;
        assert_ne!(rotated["ingest"]["password"], made["ingest"]["password"]);
        assert_ne!(
            rotated["ingest"]["backup"]["password"],
            made["ingest"]["backup"]["password"]
        );
        assert_eq!(rotated["ingest"]["token"], made["ingest"]["token"]);
        let renewed = api
            .call(Method::POST, &format!("{path}/regenerate-token"), None)
            .await?
            .json;
        assert_ne!(renewed["ingest"]["token"], made["ingest"]["token"]);
        assert_eq!(api.node.take(), Vec::<String>::new());
        let known = api.node.policy("show").unwrap().credentials;
        assert_eq!(
            renewed["ingest"]["password"],
            known.password.as_str(),
            "the node has the new one"
        );

        api.call(Method::PATCH, &path, Some(json!({"onRotate": "kick"})))
            .await?;
        api.call(Method::POST, &format!("{path}/rotate-push"), None).await?;
        assert_eq!(api.node.take(), ["kick show"]);
    }
    Ok(())
}

#[tokio::test]
async fn an_origin_that_lost_its_stream_can_write_nothing_about_it() -> anyhow::Result<()> {
    for store in database::stores().await? {
        let paris = Api::over(store.clone()).await?;
        let (made, path) = paris.stream(json!({"streamKey": "show"})).await?;
        let tokyo = Api::over(store).await?;
        let tokyo_control = weir_origin::control::service::Control::new(
            tokyo.control.store.clone(),
            tokyo.node.clone(),
            tokyo.outbox.clone(),
            tokyo.control.metrics.clone(),
            "tokyo",
        );
        let connected = news(&made["streamKey"], Happening::Connected(Slot::Primary));
        paris.control.hear(&connected).await?;
        tokyo_control.hear(&connected).await?;
        let stale = paris
            .control
            .hear(&news(&made["streamKey"], Happening::Left(Slot::Primary)))
            .await;
        assert!(stale.is_err(), "the encoder is in Tokyo now");
        assert_eq!(paris.node.take(), ["hand over show primary"]);
        assert_eq!(paris.get(&path).await?.json["live"], true);
    }
    Ok(())
}

#[tokio::test]
async fn a_broadcast_cut_off_by_a_crash_is_picked_up_after_the_restart() -> anyhow::Result<()> {
    for store in database::stores().await? {
        let before = Api::over(store.clone()).await?;
        let (made, path) = before.stream(json!({})).await?;
        before
            .control
            .hear(&news(&made["streamKey"], Happening::Connected(Slot::Primary)))
            .await?;
        let key = before.key.clone();
        drop(before);

        let after = Api::over(store).await?;
        after.control.recover().await?;
        let read = after.call_as(&key, Method::GET, &path, None).await?.json;
        assert_eq!(
            (&read["status"], &read["live"]),
            (&json!("LIVE"), &json!(false)),
            "its encoder may come back"
        );
        assert_eq!(after.outbox.take(), ["stream.interrupted"]);
        assert!(after.node.policy(made["streamKey"].as_str().unwrap()).is_some());
    }
    Ok(())
}

#[tokio::test]
async fn whoever_may_only_read_sees_no_secret() -> anyhow::Result<()> {
    for api in apis().await? {
        let (made, path) = api.stream(json!({})).await?;
        let reader = api.key_with(Some("default"), &[Scope::StreamsRead]).await?;
        let seen = api.call_as(&reader, Method::GET, &path, None).await?;
        for secret in ["username", "password", "token", "passphrase", "srtUrl"] {
            assert_eq!(seen.json["ingest"][secret], Value::Null, "{secret}");
        }
        for secret in ["password", "token", "passphrase"] {
            assert!(
                !seen.text.contains(made["ingest"][secret].as_str().unwrap()),
                "{secret}"
            );
        }
    }
    Ok(())
}
