//! The load harness against Weir itself: nothing broken at the edge, one origin request per object, clean metrics.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_edge::{Edge, config::Route};
use weir_loadtest::{
    arrival::Arrival,
    content::{Content, Shape},
    defect::Defects,
    fleet::Audience,
    http::{Protocol, Target, Verify},
    origin::{MadeUpOrigin, Options},
    report::Run,
    run::{self, Plan},
    synthetic::Synthetic,
};
use weir_origin::{
    app::Origin,
    control::store::{self, Store},
};
use weir_shared::config::Secret;
use weir_tests::{
    client,
    control::{self, Disk},
    site::{Broadcast, Site, metric, origin_config, start_edge},
};

fn plan(targets: Vec<String>, protocol: Protocol, viewers: u32) -> Plan {
    let target = |url: &String| Arc::new(Target::new(url, protocol, true).expect("a good URL"));
    Plan {
        name: "test".to_owned(),
        audience: Audience {
            targets: targets.iter().map(target).collect(),
            viewers,
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
        },
        duration: Duration::from_secs(6),
        warmup: Duration::ZERO,
        server_pid: None,
        origin_metrics: None,
        origin_counter: None,
        progress: false,
        check_first: false,
    }
}

async fn made_up_origin(streams: u32) -> anyhow::Result<MadeUpOrigin> {
    let options = Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        shape: Shape {
            streams,
            renditions: vec![400_000],
            ..Shape::default()
        },
        defects: Defects::default(),
        ticket_secret: None,
    };
    Ok(MadeUpOrigin::start(options).await?)
}

fn assert_good(run: &Run, viewers: u64) {
    // Tests share their machine with others: how fast things come says nothing about the server.
    assert!(run.total.broken.keys().all(|rule| rule.is_pace()), "{}", run.table());
    assert_eq!(run.total.counts.joined, viewers, "{}", run.table());
    assert!(run.total.counts.live_parts > viewers * 10, "{}", run.table());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_asks_a_made_up_origin_once_per_object() -> anyhow::Result<()> {
    let origin = made_up_origin(3).await?;
    let edge = start_edge(origin.address).await?;
    let at = edge.http.expect("a plain listener");
    let urls = (0..3)
        .map(|n| format!("http://{at}/app/{}/index.m3u8", Content::key(n)))
        .collect();
    let mut plan = plan(urls, Protocol::H1, 60);
    plan.origin_metrics = Some(format!("http://{}/metrics", origin.address).parse()?);
    let run = run::run(&plan, &CancellationToken::new()).await?;
    assert_good(&run, 60);
    let spared = run.origin.expect("the origin counts its requests");
    assert!(spared.per_object() < 1.5, "{spared:?}\n{}", run.table());
    edge.shutdown().await;
    Ok(())
}

/// An edge to which this origin is somebody else's: everything below `/there`, and nothing else.
async fn start_route(origin: SocketAddr) -> anyhow::Result<Edge> {
    let mut config = weir_edge::config::Config {
        origins: Vec::new(),
        routes: vec![Route::new("/there", format!("http://{origin}"))],
        ..Default::default()
    };
    config.place(|listen| *listen = (Ipv4Addr::LOCALHOST, 0).into());
    Edge::start(config).await
}

/// By way of a route nothing is known of an origin but what its playlists say: the same holding, the same one request.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_route_a_made_up_origin_is_asked_once_per_object() -> anyhow::Result<()> {
    let origin = made_up_origin(2).await?;
    let edge = start_route(origin.address).await?;
    let at = edge.http.expect("a plain listener");
    let urls = (0..2)
        .map(|n| format!("http://{at}/there/app/{}/index.m3u8", Content::key(n)))
        .collect();
    let mut plan = plan(urls, Protocol::H1, 40);
    plan.origin_metrics = Some(format!("http://{}/metrics", origin.address).parse()?);
    let run = run::run(&plan, &CancellationToken::new()).await?;
    assert_good(&run, 40);
    let spared = run.origin.expect("the origin counts its requests");
    assert!(spared.per_object() < 1.5, "{spared:?}\n{}", run.table());
    let viewers = metric(edge.admin, "weir_edge_route_requests_total", "route=\"there\"").await?;
    let upstream = metric(edge.admin, "weir_edge_route_upstream_requests_total", "route=\"there\"").await?;
    assert!(viewers > 10.0 * upstream && upstream > 0.0, "{viewers} {upstream}");
    edge.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_route_a_weir_origin_is_as_good_as_anybodys() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    wait_for_parts(&site).await?;
    let edge = start_route(site.origin.http).await?;
    let at = edge.http.expect("a plain listener");
    // Both multivariant playlists, told by their content.
    let urls = ["index.m3u8", "d/llhls.m3u8"].map(|name| format!("http://{at}/there/app/show/{name}"));
    let run = run::run(&plan(urls.to_vec(), Protocol::H1, 20), &CancellationToken::new()).await?;
    assert_good(&run, 20);
    let holds = metric(edge.admin, "weir_edge_hold_seconds_count", "").await?;
    assert!(holds > 100.0, "{holds} requests were held by the edge");
    broadcast.end().await?;
    edge.shutdown().await;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_of_a_real_broadcast_find_nothing_broken() -> anyhow::Result<()> {
    let site = Site::start().await?;
    // The same bytes under two keys: nobody may cry wolf.
    let twin = Broadcast::start(site.origin.rtmp, "twin", &Synthetic::default()).await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    let plain = format!("http://{}", site.viewers());
    let secure = site.edge.https.expect("a TLS listener");
    let secure = format!("https://localhost:{}", secure.port());
    wait_for_parts(&site).await?;
    for (url, protocol) in [
        (&plain, Protocol::H1),
        (&plain, Protocol::H2),
        (&secure, Protocol::H1),
        (&secure, Protocol::H2),
        (&secure, Protocol::H3),
    ] {
        let urls = ["show", "twin"].map(|key| format!("{url}/app/{key}/index.m3u8"));
        let run = run::run(&plan(urls.to_vec(), protocol, 10), &CancellationToken::new()).await?;
        assert_good(&run, 10);
    }
    broadcast.end().await?;
    twin.end().await?;
    site.shutdown().await;
    Ok(())
}

/// The stream has some history: players join behind the live end.
async fn wait_for_parts(site: &Site) -> anyhow::Result<()> {
    for _ in 0..100 {
        if let Ok(playlist) = site.playlist("show", "video").await
            && playlist.segments.len() > 3
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the broadcast did not begin")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_url_is_told_at_once() -> anyhow::Result<()> {
    let origin = made_up_origin(1).await?;
    let interrupt = CancellationToken::new();
    let told = |url: String| {
        let mut plan = plan(vec![url], Protocol::H1, 4);
        plan.check_first = true;
        let interrupt = interrupt.clone();
        async move {
            let error = run::run(&plan, &interrupt)
                .await
                .expect_err("there is nothing to watch");
            format!("{error:#}")
        }
    };
    let missing = told(format!("http://{}/app/s9/index.m3u8", origin.address)).await;
    assert!(missing.contains("404") && missing.contains("not live"), "{missing}");
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let nobody = listener.local_addr()?;
    drop(listener);
    let nobody = told(format!("http://{nobody}/app/s0/index.m3u8")).await;
    assert!(nobody.contains("is the server running"), "{nobody}");
    for (url, word) in [("nonsense", "no URL"), ("ftp://h/x", "http://")] {
        let error = Target::new(url, Protocol::H1, false)
            .expect_err("not to be tested")
            .to_string();
        assert!(error.contains(word), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_clean_and_do_not_grow_with_streams() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let first = Broadcast::start(site.origin.rtmp, "one", &Synthetic::default()).await?;
    site.get("/app/one/index.m3u8").await?;
    let before = [series(site.origin.admin).await?, series(site.edge.admin).await?];
    let mut more = Vec::new();
    for n in 0..8 {
        more.push(Broadcast::start(site.origin.rtmp, &format!("more{n}"), &Synthetic::default()).await?);
        site.get(&format!("/app/more{n}/index.m3u8")).await?;
    }
    let after = [series(site.origin.admin).await?, series(site.edge.admin).await?];
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < 2000, "{after} series");
        assert!(
            after < before + 16,
            "{before} series with one stream, {after} with nine"
        );
    }
    for admin in [site.origin.admin, site.edge.admin] {
        let page = client::get(admin, "/metrics").await?;
        assert!(!page.text().contains("more3"), "a stream's key is a label");
        match promtool(page.text()).await? {
            Some(complaints) => assert_eq!(complaints, "", "promtool check metrics"),
            None => eprintln!("SKIPPED: promtool is not installed (Debian: prometheus)"),
        }
    }
    for broadcast in more.into_iter().chain([first]) {
        broadcast.end().await?;
    }
    site.shutdown().await;
    Ok(())
}

/// As many streams as a large site keeps; viewers ask for some of them.
const MANY_STREAMS: usize = 10_000;
const ASKED_ONE_IN: usize = 5;
const MOST_SERIES: usize = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_leave_few_series() -> anyhow::Result<()> {
    let disk = Disk::new("series");
    let store = Store::open(&disk.url()).await?;
    let mut tx = store.begin().await?;
    for n in 0..MANY_STREAMS {
        tx.insert_stream(&control::stream(&format!("s{n}"), store::now())?)
            .await?;
    }
    tx.commit().await?;
    drop(store);
    let credential = Secret::new("the fleet's own credential");
    let mut config = origin_config();
    config.any_key = false;
    config.database.url = disk.url();
    config.directory = Some(weir_origin::config::Directory {
        credential: credential.clone(),
        url: None,
    });
    let origin = Origin::start(config).await?;
    let mut config = weir_edge::config::Config {
        origins: vec![format!("http://{}", origin.http)],
        directory: Some(weir_edge::config::Directory::new(
            vec![format!("http://{}", origin.api)],
            credential,
        )),
        ..Default::default()
    };
    config.place(|listen| *listen = (Ipv4Addr::LOCALHOST, 0).into());
    let edge = Edge::start(config).await?;
    let viewers = edge.http.expect("a plain listener");
    let watched = MANY_STREAMS / ASKED_ONE_IN;
    for from in (0..watched).step_by(100) {
        let mut asked = JoinSet::new();
        for n in from..from + 100 {
            let path = format!("/app/s{}/index.m3u8", n * ASKED_ONE_IN);
            asked.spawn(async move { client::get(viewers, &path).await });
        }
        while let Some(reply) = asked.join_next().await {
            // Nobody pushes: the origin has nothing to show, and the edge says so.
            assert_eq!(reply??.status, 404);
        }
    }
    let page = client::get(edge.admin, "/metrics").await?;
    let found = format!("weir_edge_directory_lookups_total{{result=\"fetched\"}} {watched}");
    assert!(
        page.text().contains(&found),
        "each was looked up, and found: {}",
        page.text()
    );
    for admin in [origin.admin, edge.admin] {
        let series = series(admin).await?;
        assert!(series < MOST_SERIES, "{series} series with {MANY_STREAMS} streams");
    }
    edge.shutdown().await;
    origin.shutdown().await;
    Ok(())
}

async fn series(admin: SocketAddr) -> anyhow::Result<usize> {
    let page = client::get(admin, "/metrics").await?;
    Ok(page.text().lines().filter(|line| !line.starts_with('#')).count())
}

/// What `promtool check metrics` complains about; `None` where it is not installed.
async fn promtool(page: &str) -> anyhow::Result<Option<String>> {
    let page = page.to_owned();
    let check = move || {
        let started = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = started else { return Ok(None) };
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(page.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let text = [output.stdout, output.stderr].concat();
        anyhow::Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    };
    tokio::task::spawn_blocking(check).await?
}
