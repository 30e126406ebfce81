//! Webhook endpoints and the event feed over the REST API, on real sockets.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use weir_origin::control::{
    addresses::{AddressBook, Addresses},
    api::{self, ApiState},
    api_webhooks::{self, WebhookState},
    delivery::DurableOutbox,
    guard::Guard,
    metrics::ControlMetrics,
    model::Scope,
    node::Nowhere,
    notice::Notice,
    secret,
    service::Control as Service,
    sse::Feeds,
};
use weir_shared::serve::drain::Drain;
use weir_tests::{
    client::Reply,
    control::{Control, poster, project},
    database,
    receiver::{Manner, Receiver},
    rest::{Feed, Rest},
};

const WEBHOOKS: &str = "/v1/projects/default/webhooks";

/// The API of a control plane, on a port of its own.
struct Api {
    control: Control,
    rest: Rest,
    stop: CancellationToken,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Api {
    /// One over each database that is there.
    async fn on_all() -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for url in database::urls().await? {
            all.push(Self::over(Control::open(&url).await?).await?);
        }
        Ok(all)
    }

    async fn over(control: Control) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let feeds = Feeds::new(control.store.clone(), control.metrics.clone(), stop.clone());
        let outbox = Arc::new(DurableOutbox::new(control.metrics.clone()));
        let counts = ControlMetrics::new()?;
        let state = ApiState {
            control: Service::new(control.store.clone(), Arc::new(Nowhere), outbox, counts.clone(), "node"),
            addresses: Arc::new(AddressBook::new(Addresses::default())),
        };
        let calls = api::calls().merge(api_webhooks::router(WebhookState {
            api: state.clone(),
            guard: Arc::new(Guard::parse(&["127.0.0.1".to_owned()])?),
            feeds: feeds.clone(),
            clock: control.clock(),
            metrics: control.metrics.clone(),
        }));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let served = api::serve(listener, api::router(calls, state), counts, Drain::new());
        let tasks = [tokio::spawn(served), tokio::spawn(feeds.run())].map(AbortOnDropHandle::new);
        let mut api = Self {
            control,
            rest: Rest {
                addr,
                key: String::new(),
            },
            stop,
            _tasks: tasks,
        };
        api.rest = api.caller(&[Scope::Admin]).await?;
        Ok(api)
    }

    /// A caller with a key of these scopes in the default project.
    async fn caller(&self, scopes: &[Scope]) -> anyhow::Result<Rest> {
        let (key, new) = secret::api_key(Some(project()?), "test", scopes.to_vec(), 0);
        let mut tx = self.control.store.begin().await?;
        tx.insert_key(&new).await?;
        tx.commit().await?;
        Ok(Rest {
            addr: self.rest.addr,
            key,
        })
    }

    async fn create(&self, url: &str) -> anyhow::Result<Value> {
        let made = self.rest.post(WEBHOOKS, json!({ "url": url })).await?;
        anyhow::ensure!(made.status == StatusCode::CREATED, "{}", made.text());
        body(&made)
    }
}

fn body(reply: &Reply) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&reply.body)?)
}

fn path(parts: &[&str]) -> String {
    format!("{WEBHOOKS}/{}", parts.join("/"))
}

async fn types(feed: &mut Feed, count: usize) -> anyhow::Result<Vec<String>> {
    let mut types = Vec::new();
    for _ in 0..count {
        types.push(feed.next().await?.expect("the feed goes on").event);
    }
    Ok(types)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_made_changed_and_removed_and_its_secret_shown_once() -> anyhow::Result<()> {
    for api in Api::on_all().await? {
        let made = api.create("https://example.com/hook").await?;
        assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
        let id = made["webhook"]["id"].as_str().unwrap();
        assert_eq!(made["webhook"]["events"], json!(["*"]));

        let one = api.rest.get(&path(&[id])).await?;
        assert_eq!(body(&one)?, made["webhook"]);
        assert!(!one.text().contains("whsec_"));
        let all = api.rest.get(WEBHOOKS).await?;
        assert_eq!(body(&all)?["items"], json!([made["webhook"]]));
        assert!(!all.text().contains("whsec_"));

        let change =
            json!({"events": ["stream.*", "stream.*", "recording.failed"], "active": false, "description": "mine"});
        let changed = api.rest.call(Method::PATCH, &path(&[id]), Some(change)).await?;
        let changed = body(&changed)?;
        assert_eq!(changed["events"], json!(["stream.*", "recording.failed"]));
        assert_eq!(
            (&changed["active"], &changed["description"]),
            (&json!(false), &json!("mine"))
        );
        assert_eq!(changed["url"], "https://example.com/hook");

        let renewed = body(&api.rest.post(&path(&[id, "rotate-secret"]), json!({})).await?)?;
        assert_ne!(renewed["secret"], made["secret"]);

        let gone = api.rest.call(Method::DELETE, &path(&[id]), None).await?;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
        for call in [
            (Method::GET, vec![id]),
            (Method::DELETE, vec![id]),
            (Method::GET, vec![id, "deliveries"]),
        ] {
            let reply = api.rest.call(call.0, &path(&call.1), None).await?;
            assert_eq!(reply.status, StatusCode::NOT_FOUND, "{}", reply.text());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_changes_nothing() -> anyhow::Result<()> {
    for api in Api::on_all().await? {
        for (sent, field) in [
            (json!({"url": "http://169.254.169.254/latest"}), "url"),
            (json!({"url": "http://[::ffff:10.0.0.1]/"}), "url"),
            (json!({"url": "ftp://example.com/"}), "url"),
            (json!({"url": "https://user:pw@example.com/"}), "url"),
            (json!({"url": 7}), "url"),
            (json!({}), "url"),
            (json!({"url": "https://example.com/", "events": []}), "events"),
            (
                json!({"url": "https://example.com/", "events": ["stream.exploded"]}),
                "events[0]",
            ),
            (
                json!({"url": "https://example.com/", "description": "a\u{0}b"}),
                "description",
            ),
            (json!({"url": "https://example.com/", "secret": "mine"}), "secret"),
        ] {
            let refused = api.rest.post(WEBHOOKS, sent.clone()).await?;
            assert_eq!(
                refused.status,
                StatusCode::UNPROCESSABLE_ENTITY,
                "{sent}: {}",
                refused.text()
            );
            assert_eq!(refused.header("content-type"), "application/problem+json");
            assert_eq!(
                body(&refused)?["errors"][0]["field"],
                field,
                "{sent}: {}",
                refused.text()
            );
        }
        assert_eq!(body(&api.rest.get(WEBHOOKS).await?)?["items"], json!([]));
        for (path, status) in [
            ("/v1/projects/other/webhooks", 404),
            ("/v1/projects/default/webhooks/whk_none", 404),
            ("/v1/projects/default/webhooks/%00", 404),
            ("/v1/projects/default/webhooks/';DROP%20TABLE%20events", 404),
            ("/v1/projects/default/webhooks/whk_none/deliveries?limit=101", 422),
            ("/v1/projects/default/events?lastEventId=7", 422),
            ("/v1/projects/other/events", 404),
        ] {
            assert_eq!(api.rest.get(path).await?.status.as_u16(), status, "{path}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_scope_gets_nowhere() -> anyhow::Result<()> {
    for api in Api::on_all().await? {
        let made = api.create("https://example.com/").await?;
        let id = made["webhook"]["id"].as_str().unwrap();
        let reader = api.caller(&[Scope::StreamsRead]).await?;
        let writer = api.caller(&[Scope::WebhooksWrite]).await?;
        for (method, path) in [
            (Method::GET, WEBHOOKS.to_owned()),
            (Method::GET, path(&[id])),
            (Method::DELETE, path(&[id])),
            (Method::POST, path(&[id, "rotate-secret"])),
            (Method::GET, path(&[id, "deliveries"])),
        ] {
            let refused = reader.call(method.clone(), &path, None).await?;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
        }
        assert_eq!(writer.get(&path(&[id])).await?.status, StatusCode::OK);
        assert_eq!(
            writer.get("/v1/projects/default/events").await?.status,
            StatusCode::FORBIDDEN
        );
        let nobody = Rest {
            addr: api.rest.addr,
            key: "weir_made-up".to_owned(),
        };
        assert_eq!(nobody.get(WEBHOOKS).await?.status, StatusCode::UNAUTHORIZED);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_in_the_log_and_sent_again_on_request() -> anyhow::Result<()> {
    for api in Api::on_all().await? {
        let receiver = Receiver::start(Manner::Status(200)).await?;
        let made = api.create(&receiver.url()).await?;
        let id = made["webhook"]["id"].as_str().unwrap();
        let dispatcher = api.control.dispatch(poster()?);
        // The API's calls happen by the machine's clock: for the dispatcher, in the past.
        api.control.turn_clock(Duration::from_secs(60));
        let created = api
            .rest
            .post("/v1/projects/default/streams", json!({"name": "x"}))
            .await?;
        assert_eq!(created.status, StatusCode::CREATED, "{}", created.text());
        let first = receiver.wait_for(1).await?.remove(0);
        assert_eq!(first.event("type"), "stream.created");

        let endpoint = weir_origin::control::delivery::Endpoint::list(&api.control.store, &project()?)
            .await?
            .remove(0);
        api.control.delivered(&endpoint).await?;
        let log = body(&api.rest.get(&path(&[id, "deliveries"])).await?)?;
        assert_eq!((&log["total"], &log["limit"]), (&json!(1), &json!(20)));
        let delivery = &log["items"][0];
        assert_eq!(delivery["eventType"], "stream.created");
        assert_eq!(delivery["attempts"][0]["status"], 200);
        let delivery = delivery["id"].as_str().unwrap();

        let again = api
            .rest
            .post(&path(&[id, "deliveries", delivery, "redeliver"]), json!({}))
            .await?;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.text());
        assert_eq!(body(&again)?["redeliveryOf"], delivery);
        let second = receiver.wait_for(2).await?.remove(1);
        assert_eq!(second.body, first.body);
        assert_ne!(second.header("weir-delivery"), first.header("weir-delivery"));
        dispatcher.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_feed_comes_back_and_has_missed_nothing() -> anyhow::Result<()> {
    for api in Api::on_all().await? {
        let mut show = api.control.add_stream("show").await?;
        let mut feed = api.rest.follow("default", None).await?;
        api.control.tell(&mut show, Notice::Live).await?;
        api.control.tell(&mut show, Notice::Interrupted).await?;
        let live = feed.next().await?.expect("an event");
        assert_eq!(
            (live.event.as_str(), &live.data["type"]),
            ("stream.live", &json!("stream.live"))
        );
        assert_eq!(
            live.data["id"],
            live.id.as_str(),
            "what happened before it was opened is not in it"
        );
        drop(feed);

        api.control.tell(&mut show, Notice::Resumed).await?;
        let mut feed = api.rest.follow("default", Some(&live.id)).await?;
        assert_eq!(types(&mut feed, 2).await?, ["stream.interrupted", "stream.resumed"]);
        api.control.tell(&mut show, Notice::Ended).await?;
        assert_eq!(types(&mut feed, 1).await?, ["stream.ended"]);

        // More than one page, in order.
        for _ in 0..130 {
            api.control.tell(&mut show, Notice::Live).await?;
            api.control.tell(&mut show, Notice::Ended).await?;
        }
        let all = types(&mut feed, 260).await?;
        assert!(all.chunks(2).all(|pair| pair == ["stream.live", "stream.ended"]));

        // An event that is forgotten already, or never was: what came after its time.
        let mut feed = api
            .rest
            .follow("default", Some("01935bd2-7c41-7000-8000-000000000000"))
            .await?;
        assert_eq!(types(&mut feed, 2).await?, ["stream.created", "stream.live"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_end_with_the_node() -> anyhow::Result<()> {
    for api in Api::on_all().await? {
        let mut feed = api.rest.follow("default", None).await?;
        api.stop.cancel();
        assert_eq!(feed.next().await?, None);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_every_call_and_every_event() -> anyhow::Result<()> {
    for api in Api::on_all().await? {
        let document = body(&api.rest.get("/openapi.json").await?)?;
        for (path, method) in [
            ("/v1/projects/{project}/webhooks", "post"),
            ("/v1/projects/{project}/webhooks/{webhook}", "patch"),
            ("/v1/projects/{project}/webhooks/{webhook}/deliveries", "get"),
            (
                "/v1/projects/{project}/webhooks/{webhook}/deliveries/{delivery}/redeliver",
                "post",
            ),
            ("/v1/projects/{project}/events", "get"),
        ] {
            assert!(
                document["paths"][path][method]["operationId"].is_string(),
                "{method} {path}"
            );
        }
        let schemas = &document["components"]["schemas"];
        let text = schemas.to_string();
        for kind in weir_origin::control::events::Kind::ALL {
            assert!(text.contains(&format!("\"{}\"", kind.as_str())), "{}", kind.as_str());
            assert!(
                schemas[format!("{kind:?}")]["properties"].is_object()
                    || schemas[format!("{kind:?}")]["type"] == "object",
                "{kind:?}"
            );
        }
    }
    Ok(())
}
