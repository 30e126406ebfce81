//! Webhooks over real sockets: every committed event reaches every endpoint that wants it, whatever goes wrong between.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use weir_origin::control::{
    delivery::{Delivery, DeliveryState, DurableOutbox, Endpoint, Poster, Resolve, Resolving, Retention, Settings},
    events::Filter,
    guard::Guard,
    notice::{Notice, Outbox as _},
    webhook,
};
use weir_tests::{
    control::{Control, Disk, poster, project, stream},
    receiver::{Manner, Receiver},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_event_arrives_signed_and_is_in_the_log() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let receiver = Receiver::start(Manner::Status(204)).await?;
        let endpoint = control.add_endpoint(receiver.url()).await?;
        let dispatcher = control.dispatch(poster()?);
        control.add_stream("show").await?;

        let got = receiver.wait_for(1).await?.remove(0);
        assert_eq!(got.path, "/hook");
        assert_eq!(got.header("content-type"), Some("application/json"));
        let now = control.now() / 1000;
        assert_eq!(
            webhook::verify(&endpoint.secret, |name| got.header(name), &got.body, now),
            Ok(())
        );
        let event: serde_json::Value = serde_json::from_slice(&got.body)?;
        assert_eq!(event["type"], "stream.created");
        assert_eq!(
            event["stream"],
            serde_json::json!({"id": "str_show", "streamKey": "show"})
        );
        assert_eq!(event["data"], serde_json::json!({"name": "stream show"}));

        let delivery = control.delivered(&endpoint).await?;
        assert_eq!(Some(delivery.id.as_str()), got.header("weir-delivery"));
        assert_eq!(delivery.event_id, event["id"].as_str().unwrap());
        assert_eq!(delivery.attempts.len(), 1);
        assert_eq!(
            (delivery.attempts[0].status, delivery.attempts[0].error.as_ref()),
            (Some(204), None)
        );
        dispatcher.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_committed_is_never_told() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let receiver = Receiver::start(Manner::Status(200)).await?;
        control.add_endpoint(receiver.url()).await?;
        let dispatcher = control.dispatch(poster()?);
        let (outbox, unsure) = (DurableOutbox::new(control.metrics.clone()), stream("unsure", 1)?);
        let mut tx = control.store.begin().await?;
        tx.insert_stream(&unsure).await?;
        outbox.record(&mut tx, Notice::Created, &unsure, control.now()).await?;
        drop(tx);
        control.add_stream("sure").await?;
        let got = receiver.wait_for(1).await?;
        assert_eq!(got[0].event("type"), "stream.created");
        assert!(String::from_utf8_lossy(&got[0].body).contains("str_sure"));
        dispatcher.end().await?;
        assert_eq!(receiver.received().len(), 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_gets_the_event_once_it_is_back() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let receiver = Receiver::start(Manner::Status(503)).await?;
        let endpoint = control.add_endpoint(receiver.url()).await?;
        let dispatcher = control.dispatch(poster()?);
        control.add_stream("show").await?;

        for failures in 1..=3 {
            receiver.wait_for(failures).await?;
            let delivery = control.logged(&endpoint, |d| d.attempts.len() == failures).await?;
            assert_eq!(delivery.state, DeliveryState::Pending);
            let pause = delivery.next_at.unwrap() - control.now();
            let ceiling = 5000 << (failures - 1);
            assert!((ceiling / 2..=ceiling).contains(&pause), "{pause} ms after {failures}");
            if failures == 3 {
                receiver.behave(Manner::Status(200));
            }
            control.turn_clock(Duration::from_millis(pause.unsigned_abs()));
        }
        let delivery = control.delivered(&endpoint).await?;
        let statuses: Vec<_> = delivery.attempts.iter().map(|a| a.status).collect();
        assert_eq!(statuses, [Some(503), Some(503), Some(503), Some(200)]);
        let got = receiver.received();
        assert!(
            got.iter().all(|r| r.header("weir-delivery") == Some(&delivery.id)),
            "one delivery, four tries"
        );
        assert!(got.iter().all(|r| r.body == got[0].body));
        assert!(got[0].header("weir-timestamp") < got[3].header("weir-timestamp"));
        dispatcher.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_of_failures_a_delivery_is_given_up_and_can_be_redelivered() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let receiver = Receiver::start(Manner::Status(500)).await?;
        let endpoint = control.add_endpoint(receiver.url()).await?;
        let dispatcher = control.dispatch(poster()?);
        control.add_stream("show").await?;
        control.logged(&endpoint, |d| d.attempts.len() == 1).await?;
        control.turn_clock(Duration::from_secs(24 * 3600));
        let lost = control.logged(&endpoint, |d| d.state == DeliveryState::Failed).await?;
        assert_eq!(lost.attempts.len(), 2);

        receiver.behave(Manner::Status(200));
        let (at, metrics) = (control.now() + 1, &control.metrics);
        control.turn_clock(Duration::from_millis(1));
        let again = Delivery::redeliver(&control.store, &endpoint.id, &lost.id, at, metrics).await?;
        let (again, state) = again.expect("the delivery is in the log");
        assert_eq!(state, DeliveryState::Pending);
        let second = control.delivered(&endpoint).await?;
        assert_eq!((second.id, second.redelivery_of), (again, Some(lost.id.clone())));
        assert_eq!(second.event_id, lost.event_id);
        let none = Delivery::redeliver(&control.store, &endpoint.id, "no-such", at, metrics).await?;
        assert_eq!(none, None);
        dispatcher.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_delivered_when_the_origin_died_is_delivered_by_the_next_one() -> anyhow::Result<()> {
    let disk = Disk::new("crash");
    let receiver = Receiver::start(Manner::Silent).await?;
    let endpoint = {
        let control = Control::open(&disk.url()).await?;
        let endpoint = control.add_endpoint(receiver.url()).await?;
        // One is on its way when the origin dies, another was committed and not yet looked at.
        let dispatcher = control.dispatch(poster()?);
        control.add_stream("first").await?;
        receiver.wait_for(1).await?;
        drop(dispatcher);
        control.add_stream("second").await?;
        endpoint
    };
    receiver.behave(Manner::Status(200));
    let control = Control::open(&disk.url()).await?;
    let dispatcher = control.dispatch(poster()?);
    let got = receiver.wait_for(3).await?;
    let mut streams: Vec<_> = got[1..]
        .iter()
        .map(|r| serde_json::from_slice::<serde_json::Value>(&r.body).unwrap()["stream"]["id"].clone())
        .collect();
    streams.sort_by_key(ToString::to_string);
    assert_eq!(streams, ["str_first", "str_second"]);
    control.delivered(&endpoint).await?;
    dispatcher.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_never_answers_delays_nobody_else() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let (slow, quick) = (
            Receiver::start(Manner::Silent).await?,
            Receiver::start(Manner::Status(200)).await?,
        );
        control.add_endpoint(slow.url()).await?;
        control.add_endpoint(quick.url()).await?;
        let dispatcher = control.dispatch(poster()?);
        let begin = Instant::now();
        for number in 0..40 {
            control.add_stream(&format!("s{number}")).await?;
        }
        quick.wait_for(40).await?;
        // Far less than one timeout of ten seconds.
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert_eq!(slow.received().len(), 4, "a few at once and no more");
        drop(dispatcher);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_too_long_is_a_failure_that_says_so() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let receiver = Receiver::start(Manner::Silent).await?;
        let endpoint = control.add_endpoint(receiver.url()).await?;
        let dispatcher = control.dispatch(poster()?.within(Duration::from_millis(100)));
        control.add_stream("show").await?;
        let delivery = control.logged(&endpoint, |d| !d.attempts.is_empty()).await?;
        let tried = &delivery.attempts[0];
        assert_eq!(
            (tried.status, tried.error.as_deref()),
            (None, Some("no answer within 10 seconds"))
        );
        assert!(tried.ms >= 100, "{tried:?}");
        assert_eq!(delivery.state, DeliveryState::Pending);
        dispatcher.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_lead_nowhere() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let elsewhere = Receiver::start(Manner::Status(200)).await?;
        let receiver = Receiver::start(Manner::Redirect(elsewhere.addr)).await?;
        let endpoint = control.add_endpoint(receiver.url()).await?;
        let dispatcher = control.dispatch(poster()?);
        control.add_stream("show").await?;
        let delivery = control.logged(&endpoint, |d| !d.attempts.is_empty()).await?;
        assert_eq!(delivery.attempts[0].status, Some(302));
        assert_eq!(delivery.state, DeliveryState::Pending);
        dispatcher.end().await?;
        assert!(elsewhere.received().is_empty());
    }
    Ok(())
}

/// A name that leads to an allowed address when it is asked for, and to another one whenever it is asked again.
struct Rebinding(AtomicUsize);

impl Resolve for Rebinding {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        let first = self.0.fetch_add(1, Ordering::Relaxed) == 0;
        let addr = if first { [127, 0, 0, 1] } else { [127, 0, 0, 2] };
        Box::pin(async move { Ok(vec![IpAddr::from(addr)]) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_that_was_checked_is_the_address_that_is_called() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let receiver = Receiver::start(Manner::Status(200)).await?;
        let url = format!("http://rebinding.example:{}/hook", receiver.addr.port());
        let endpoint = control.add_endpoint(url).await?;
        let guard = Arc::new(Guard::parse(&["127.0.0.1/32".to_owned()])?);
        let resolver = Arc::new(Rebinding(AtomicUsize::new(0)));
        let dispatcher = control.dispatch(Poster::new(guard)?.resolving_with(resolver.clone()));
        control.add_stream("first").await?;
        control.delivered(&endpoint).await?;
        assert_eq!(resolver.0.load(Ordering::Relaxed), 1, "asked once");
        assert_eq!(
            receiver.received()[0].header("host"),
            Some(format!("rebinding.example:{}", receiver.addr.port()).as_str())
        );

        // From now on the name leads somewhere else: checked again, and not called.
        control.turn_clock(Duration::from_millis(1));
        control.add_stream("second").await?;
        let delivery = control
            .logged(&endpoint, |d| {
                d.state == DeliveryState::Pending && !d.attempts.is_empty()
            })
            .await?;
        let error = delivery.attempts[0].error.as_deref().unwrap_or_default();
        assert!(error.contains("loopback"), "{error}");
        assert_eq!(receiver.received().len(), 1);
        dispatcher.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_gets_what_it_asked_for_and_nothing_while_it_is_switched_off() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let (some, off) = (
            Receiver::start(Manner::Status(200)).await?,
            Receiver::start(Manner::Status(200)).await?,
        );
        let mut endpoint = Endpoint::new(project()?, some.url(), control.now());
        endpoint.filter = Filter::new(["broadcasting.*".parse()?, "stream.live".parse()?]);
        endpoint.add(&control.store).await?;
        let mut endpoint = Endpoint::new(project()?, off.url(), control.now());
        endpoint.active = false;
        endpoint.add(&control.store).await?;

        let dispatcher = control.dispatch(poster()?);
        let mut show = control.add_stream("show").await?;
        for notice in [
            Notice::Live,
            Notice::BroadcastingStarted,
            Notice::Interrupted,
            Notice::BroadcastingStopped,
        ] {
            control.tell(&mut show, notice).await?;
        }
        let mut types: Vec<_> = some.wait_for(3).await?.iter().map(|r| r.event("type")).collect();
        types.sort();
        assert_eq!(types, ["broadcasting.started", "broadcasting.stopped", "stream.live"]);
        dispatcher.end().await?;
        assert_eq!((some.received().len(), off.received().len()), (3, 0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_has_a_bounded_number_of_endpoints() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        for _ in 0..weir_origin::control::delivery::ENDPOINTS_PER_PROJECT {
            control.add_endpoint("https://example.com/".to_owned()).await?;
        }
        let refused = control.add_endpoint("https://example.com/".to_owned()).await;
        assert!(refused.unwrap_err().to_string().contains("16 webhook endpoints"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_and_long_logs_are_removed_but_nothing_that_waits() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let (up, down) = (
            Receiver::start(Manner::Status(200)).await?,
            Receiver::start(Manner::Status(500)).await?,
        );
        let (up, down) = (
            (control.add_endpoint(up.url()).await?, up),
            (control.add_endpoint(down.url()).await?, down),
        );
        let settings = Settings {
            retention: Retention {
                events: 5,
                deliveries_per_endpoint: 2,
                ..Retention::default()
            },
            ..Settings::default()
        };
        let dispatcher = control.dispatch_with(poster()?, settings.clone());
        for number in 0..4 {
            control.add_stream(&format!("s{number}")).await?;
        }
        up.1.wait_for(4).await?;
        down.1.wait_for(4).await?;
        dispatcher.end().await?;

        // A dispatcher tidies when it starts.
        let dispatcher = control.dispatch_with(poster()?, settings);
        let length =
            async |endpoint: &Endpoint| anyhow::Ok(Delivery::list(&control.store, &endpoint.id, 0, 100).await?.1);
        while length(&up.0).await? > 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(length(&down.0).await?, 4, "they wait for their next try");
        dispatcher.end().await?;
    }
    Ok(())
}
