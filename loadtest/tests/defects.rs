//! A whole fleet over real sockets: an honest server breaks nothing, each seeded defect is caught and named.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use weir_loadtest::{
    arrival::Arrival,
    content::Shape,
    defect::{Defect, Defects},
    fleet::{Audience, Fleet},
    floor,
    http::{Protocol, Target, Verify},
    origin::{MadeUpOrigin, Options},
    tally::Tally,
};

fn shape() -> Shape {
    Shape {
        streams: 2,
        renditions: vec![400_000, 200_000],
        part_target: Duration::from_millis(100),
        ..Shape::default()
    }
}

async fn origin(defects: &[Defect], secret: Option<&str>) -> MadeUpOrigin {
    let options = Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        shape: shape(),
        defects: Defects(defects.to_vec()),
        ticket_secret: secret.map(str::to_owned),
    };
    MadeUpOrigin::start(options).await.expect("a free port")
}

fn targets(origin: &MadeUpOrigin, protocol: Protocol) -> Vec<Arc<Target>> {
    let target = |stream| Arc::new(Target::new(&origin.url(stream), protocol, true).expect("a good URL"));
    vec![target(0), target(1)]
}

fn audience(targets: Vec<Arc<Target>>) -> Audience {
    Audience {
        targets,
        viewers: 8,
        threads: 1,
        arrival: Arrival::Linear(Duration::from_millis(500)),
        stay: None,
        safari_percent: 50,
        delta: true,
        switch_every: None,
        seek_every: None,
        verify: Verify { every: 1 },
        ticket_secret: None,
        ticket_life: Duration::from_secs(60),
    }
}

/// Watches until `enough` says so, or for `limit`.
async fn watch(audience: Audience, limit: Duration, enough: impl Fn(&Tally) -> bool) -> Tally {
    let stop = CancellationToken::new();
    let mut fleet = Fleet::start(audience, stop.clone()).expect("threads");
    let mut total = Tally::default();
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        tokio::select! {
            slice = fleet.slices.recv() => match slice {
                Some(slice) => total.add(&slice.tally),
                None => break,
            },
            () = tokio::time::sleep_until(deadline) => stop.cancel(),
        }
        if enough(&total) {
            stop.cancel();
        }
        if stop.is_cancelled() {
            while let Some(slice) = fleet.slices.recv().await {
                total.add(&slice.tally);
            }
            break;
        }
    }
    fleet.join();
    total
}

/// Every rule but those of pace, which a busy machine breaks for any server.
fn kept_all(total: &Tally) -> bool {
    total.broken.keys().all(|rule| rule.is_pace())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_server_breaks_nothing_over_h1_and_h2() {
    for protocol in [Protocol::H1, Protocol::H2] {
        let origin = origin(&[], None).await;
        let mut audience = audience(targets(&origin, protocol));
        audience.switch_every = Some(Duration::from_secs(2));
        let total = watch(audience, Duration::from_secs(10), |t| t.counts.live_parts > 150).await;
        assert!(kept_all(&total), "{:?}", total.broken);
        assert_eq!((total.counts.joined, total.counts.failed), (8, 0), "{:?}", total.errors);
        assert!(total.counts.live_parts > 150, "{:?}", total.counts);
        assert!(
            total.latency.at(0.5) < Duration::from_secs(1),
            "{:?}",
            total.latency.at(0.5)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_is_honest_and_well_mannered() {
    let stop = CancellationToken::new();
    let (told, address) = tokio::sync::oneshot::channel();
    let stopped = stop.clone();
    let floor = tokio::task::spawn_blocking(move || {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        floor::run(listen, shape(), stopped, |address| {
            let _ = told.send(address);
        })
    });
    let address = address.await.expect("the floor listens");
    let target = |stream| {
        let url = format!("http://{address}/app/s{stream}/index.m3u8");
        Arc::new(Target::new(&url, Protocol::H1, false).expect("a good URL"))
    };
    let audience = audience(vec![target(0), target(1)]);
    let total = watch(audience, Duration::from_secs(10), |t| t.counts.live_parts > 150).await;
    assert!(kept_all(&total), "{:?}", total.broken);
    assert_eq!((total.counts.joined, total.counts.failed), (8, 0), "{:?}", total.errors);
    stop.cancel();
    floor.await.expect("no panic").expect("served to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_seeded_defect_is_caught_and_named() {
    let cases: [(Defect, &[&str]); 7] = [
        (Defect::SkipPart, &["VW-03", "PL-23"]),
        (Defect::StalePlaylist, &["UP-09"]),
        (Defect::SwapStreams, &["VW-05"]),
        (Defect::StallRendition, &["VW-08"]),
        (Defect::AnswerEarly, &["BL-01"]),
        (Defect::ForeignTicket, &["VW-06"]),
        (Defect::Truncate, &["VW-07"]),
    ];
    for (defect, rules) in cases {
        let secret = (defect == Defect::ForeignTicket).then_some("secret");
        let origin = origin(&[defect], secret).await;
        let mut audience = audience(targets(&origin, Protocol::H1));
        audience.ticket_secret = secret.map(Arc::from);
        let named = |total: &Tally, rule: &str| total.broken.keys().any(|r| r.id() == rule);
        let total = watch(audience, Duration::from_secs(20), |t| {
            rules.iter().all(|rule| named(t, rule))
        })
        .await;
        for rule in rules {
            assert!(
                named(&total, rule),
                "{defect:?} should break {rule}: {:?}",
                total.broken
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_show_tickets_of_their_own_and_are_refused_without() {
    let origin = origin(&[], Some("secret")).await;
    let mut with = audience(targets(&origin, Protocol::H1));
    with.ticket_secret = Some("secret".into());
    let total = watch(with, Duration::from_secs(10), |t| t.counts.live_parts > 40).await;
    assert_eq!(
        (total.counts.violations, total.counts.joined),
        (0, 8),
        "{:?}",
        total.broken
    );
    let without = audience(targets(&origin, Protocol::H1));
    let total = watch(without, Duration::from_secs(10), |t| t.counts.gave_up == 8).await;
    assert_eq!(total.counts.gave_up, 8);
    assert!(
        total.ends.keys().all(|why| why.contains("--ticket-secret")),
        "{:?}",
        total.ends
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_garbage_or_never_ends_is_survived() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for (speech, error) in [
        (&b"SMTP ready\r\n\r\n"[..], "garbage"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "too_long"),
    ] {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(speech).await;
                    while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
                });
            }
        });
        let url = format!("http://{address}/app/s0/index.m3u8");
        let origin = origin(&[], None).await;
        let mut audience = audience(targets(&origin, Protocol::H1));
        audience.targets = vec![Arc::new(Target::new(&url, Protocol::H1, false).unwrap())];
        audience.viewers = 1;
        let total = watch(audience, Duration::from_secs(20), |t| t.counts.failed > 0).await;
        assert!(
            total.errors.keys().any(|kind| kind.contains(error)),
            "{:?}",
            total.errors
        );
        server.abort();
    }
}
