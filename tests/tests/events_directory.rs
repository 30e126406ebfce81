//! What an edge knows of streams, over real sockets: learnt once, kept fresh, used on while nobody answers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use http::StatusCode;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use weir_edge::{
    config::Directory as EdgeConfig,
    directory::{Directory, NoRecord},
    metrics::Metrics as EdgeMetrics,
};
use weir_loadtest::synthetic::Synthetic;
use weir_origin::{
    app::Origin,
    control::{
        api, directory, fleet,
        lifecycle::{Event, Phase, Slot},
        metrics::ControlMetrics,
        model::Stream,
        node::{Happening, News},
        service::NewStream,
        store::{self, Claim},
    },
};
use weir_shared::{
    config::Secret,
    directory::{Status, StreamRecord},
    id::StreamKey,
    serve::drain::Drain,
};
use weir_tests::{
    client,
    control::{Control, Disk, project},
    site::{self, Broadcast},
};

const CREDENTIAL: &str = "the-fleet's-own-credential";
/// Longer than anything waited for here.
const PATIENCE: Duration = Duration::from_secs(15);

/// An origin's directory without the rest of the origin; dropped, it answers what is waiting and is gone.
struct Fleet {
    addr: SocketAddr,
    stop: CancellationToken,
    drain: Drain,
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.drain.start();
        self.stop.cancel();
    }
}

impl Fleet {
    async fn start(control: &Control, at: Option<SocketAddr>) -> anyhow::Result<Self> {
        let metrics = Arc::new(directory::Metrics::new(&prometheus::Registry::new())?);
        let credential = directory::FleetCredential::new(CREDENTIAL).context("long enough")?;
        let stop = CancellationToken::new();
        let directory = directory::Directory::new(control.store.clone(), credential, metrics, stop.clone());
        let drain = Drain::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(at.unwrap_or(any)).await?;
        let addr = listener.local_addr()?;
        let node = directory::Node {
            name: "paris".to_owned(),
            url: "http://10.0.0.5:8081".to_owned(),
        };
        let served = api::serve(listener, directory.router(), ControlMetrics::new()?, drain.clone());
        let watched = fleet::watch(control.store.clone(), stop.clone());
        let tasks = [
            tokio::spawn(served),
            tokio::spawn(directory.run(node)),
            tokio::spawn(watched),
        ];
        let tasks = tasks.map(AbortOnDropHandle::new);
        Ok(Self {
            addr,
            stop,
            drain,
            _tasks: tasks,
        })
    }
}

/// An edge's directory without the rest of the edge.
struct Edge {
    directory: Arc<Directory>,
    metrics: Arc<EdgeMetrics>,
    stop: CancellationToken,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn edge_config(origins: &[SocketAddr], credential: &str) -> EdgeConfig {
    EdgeConfig {
        origins: origins.iter().map(|addr| format!("http://{addr}")).collect(),
        credential: Secret::new(credential),
        ca: None,
        max_records: 1000,
        unknown: weir_edge::config::Unknown::Refuse,
    }
}

impl Edge {
    fn start(origins: &[SocketAddr], credential: &str) -> anyhow::Result<Self> {
        let metrics = Arc::new(EdgeMetrics::new(&prometheus::Registry::new())?);
        let directory = Directory::new(&edge_config(origins, credential), metrics.clone())?;
        let stop = CancellationToken::new();
        tokio::spawn(directory.clone().follow(stop.clone()));
        Ok(Self {
            directory,
            metrics,
            stop,
        })
    }

    /// Waits until the edge's answer about a stream satisfies this.
    async fn until(
        &self,
        key: &str,
        expected: impl Fn(&Result<Arc<StreamRecord>, NoRecord>) -> bool,
    ) -> anyhow::Result<()> {
        let key: StreamKey = key.parse()?;
        let looking = async {
            while !expected(&self.directory.record(&key).await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, looking).await.context("the edge never knew")
    }

    async fn until_connected(&self, connected: bool) -> anyhow::Result<()> {
        let looking = async {
            while (self.metrics.directory_connected.get() == 1) != connected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, looking).await.context("the long poll")
    }

    fn lookups(&self, result: &str) -> u64 {
        self.metrics.directory_lookups.with_label_values(&[result]).get()
    }
}

fn key(name: &str) -> StreamKey {
    name.parse().expect("a key")
}

fn is(status: Status) -> impl Fn(&Result<Arc<StreamRecord>, NoRecord>) -> bool {
    move |record| record.as_ref().is_ok_and(|record| record.status == status)
}

/// Changes a stream's status as the life cycle would.
async fn flip(control: &Control, key: &str, phase: Phase) -> anyhow::Result<()> {
    let mut tx = control.store.begin().await?;
    let mut stream = tx.stream_by_key(&key.parse()?).await?.context("the stream")?;
    stream.state.phase = phase;
    stream.state.broadcasting = true;
    tx.update_stream(&mut stream, store::now()).await?;
    Ok(tx.commit().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_asked_for_once_and_told_when_it_changes() -> anyhow::Result<()> {
    for control in Control::on_all().await? {
        let fleet = Fleet::start(&control, None).await?;
        let edge = Edge::start(&[fleet.addr], CREDENTIAL)?;
        control.add_stream("show").await?;
        edge.until_connected(true).await?;
        for _ in 0..20 {
            assert_eq!(edge.directory.record(&key("show")).await?.status, Status::Idle);
        }
        assert_eq!((edge.lookups("fetched"), edge.lookups("hit")), (1, 19));
        flip(&control, "show", Phase::Live).await?;
        edge.until("show", is(Status::Live)).await?;
        flip(&control, "show", Phase::Disabled).await?;
        edge.until("show", is(Status::Disabled)).await?;
        assert_eq!(edge.lookups("fetched"), 1, "told, not asked");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_origin_of_the_fleet_tells_of_it_too() -> anyhow::Result<()> {
    let Some(url) = weir_tests::database::postgres().await? else {
        return Ok(());
    };
    let (paris, tokyo) = (Control::open(&url).await?, Control::open(&url).await?);
    let fleet = Fleet::start(&tokyo, None).await?;
    let edge = Edge::start(&[fleet.addr], CREDENTIAL)?;
    paris.add_stream("show").await?;
    edge.until_connected(true).await?;
    edge.until("show", is(Status::Idle)).await?;
    // Paris takes the broadcast; the edge hears of it from Tokyo, and where Paris is.
    paris
        .store
        .take_lease(
            (&key("show"), Slot::Primary),
            "paris",
            Claim::Free,
            store::now(),
            3_600_000,
        )
        .await?;
    flip(&paris, "show", Phase::Live).await?;
    edge.until("show", is(Status::Live)).await?;
    let record = edge.directory.known_record(&key("show")).await.context("a record")?;
    assert_eq!(record.origins.in_order().collect::<Vec<_>>(), ["http://10.0.0.5:8081"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_keys_reach_the_origin_once_and_a_new_stream_is_known_at_once() -> anyhow::Result<()> {
    let control = Control::open("sqlite::memory:").await?;
    let fleet = Fleet::start(&control, None).await?;
    let edge = Edge::start(&[fleet.addr], CREDENTIAL)?;
    edge.until_connected(true).await?;
    for _ in 0..50 {
        assert_eq!(edge.directory.record(&key("soon")).await, Err(NoRecord::Unknown));
    }
    assert_eq!((edge.lookups("unknown"), edge.lookups("negative")), (1, 49));
    control.add_stream("soon").await?;
    edge.until("soon", is(Status::Idle)).await?;

    let mut tx = control.store.begin().await?;
    let stream = tx.stream_by_key(&key("soon")).await?.context("the stream")?;
    tx.remove_stream(&stream, store::now()).await?;
    tx.commit().await?;
    edge.until("soon", |record| *record == Err(NoRecord::Unknown)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_goes_on_with_what_it_knows_and_catches_up_afterwards() -> anyhow::Result<()> {
    let control = Control::open("sqlite::memory:").await?;
    let fleet = Fleet::start(&control, None).await?;
    let addr = fleet.addr;
    let edge = Edge::start(&[addr], CREDENTIAL)?;
    for name in ["show", "other"] {
        control.add_stream(name).await?;
        edge.until(name, is(Status::Idle)).await?;
    }
    edge.until_connected(true).await?;
    drop(fleet);
    edge.until_connected(false).await?;
    assert_eq!(edge.directory.record(&key("show")).await?.status, Status::Idle);
    assert_eq!(edge.directory.record(&key("new")).await, Err(NoRecord::Unavailable));

    // Changed while nobody listened.
    flip(&control, "show", Phase::Live).await?;
    control.add_stream("new").await?;
    let _fleet = Fleet::start(&control, Some(addr)).await?;
    edge.until("show", is(Status::Live)).await?;
    edge.until("new", is(Status::Idle)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn any_configured_origin_will_do() -> anyhow::Result<()> {
    let control = Control::open("sqlite::memory:").await?;
    control.add_stream("show").await?;
    let (first, second) = (Fleet::start(&control, None).await?, Fleet::start(&control, None).await?);
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let edge = Edge::start(&[nobody, first.addr, second.addr], CREDENTIAL)?;
    edge.until("show", is(Status::Idle)).await?;
    edge.until_connected(true).await?;
    drop(first);
    flip(&control, "show", Phase::Live).await?;
    edge.until("show", is(Status::Live)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_credential_nothing_is_told() -> anyhow::Result<()> {
    let control = Control::open("sqlite::memory:").await?;
    control.add_stream("show").await?;
    let fleet = Fleet::start(&control, None).await?;
    let edge = Edge::start(&[fleet.addr], "not-the-fleet's-credential")?;
    assert_eq!(edge.directory.record(&key("show")).await, Err(NoRecord::Unavailable));
    for path in [
        "/internal/directory?key=show",
        "/internal/directory?key=&x=1",
        "/internal/directory",
    ] {
        let refused = client::get(fleet.addr, path).await?;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(!refused.text().contains("show"));
    }
    Ok(())
}

/// A whole origin and a whole edge that knows its streams.
struct Site {
    origin: Origin,
    edge: weir_edge::Edge,
    _disk: Disk,
}

impl Site {
    /// `origins`: whom the edge would ask without the directory.
    async fn start(origins: Option<SocketAddr>) -> anyhow::Result<Self> {
        let disk = Disk::new("directory");
        let mut config = site::origin_config();
        config.database.url = disk.url();
        config.any_key = false;
        config.directory = Some(weir_origin::config::Directory {
            credential: Secret::new(CREDENTIAL),
            url: None,
        });
        let origin = Origin::start(config).await?;
        let mut config = weir_edge::config::Config {
            origins: vec![format!("http://{}", origins.unwrap_or(origin.http))],
            directory: Some(edge_config(&[origin.api], CREDENTIAL)),
            ..Default::default()
        };
        config.place(|listen| *listen = SocketAddr::from(([127, 0, 0, 1], 0)));
        let edge = weir_edge::Edge::start(config).await?;
        Ok(Self {
            origin,
            edge,
            _disk: disk,
        })
    }

    async fn create(&self, key: &str, backstage: bool) -> anyhow::Result<Stream> {
        let new = NewStream {
            key: Some(key.parse()?),
            active: true,
            backstage,
            ..NewStream::default()
        };
        Ok(self.origin.control.create_stream(&project()?, new, None).await?.stream)
    }

    async fn happen(&self, key: &str, what: Happening) -> anyhow::Result<()> {
        let news = News {
            key: key.parse()?,
            what,
        };
        Ok(self.origin.control.hear(&news).await?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<client::Reply> {
        let viewers = self.edge.http.context("the edge listens")?;
        client::get(viewers, path).await
    }

    /// Asks until the answer has this status.
    async fn until(&self, path: &str, status: StatusCode) -> anyhow::Result<client::Reply> {
        let asking = async {
            loop {
                let reply = self.get(path).await?;
                if reply.status == status {
                    return anyhow::Ok(reply);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, asking)
            .await
            .with_context(|| format!("{path}: never {status}"))?
    }

    async fn shutdown(self) {
        self.edge.shutdown().await;
        self.origin.shutdown().await;
    }
}

/// What the encoder gives as stream key.
fn push(stream: &Stream) -> String {
    format!("{}?t={}", stream.key, stream.credentials.token)
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_wait_behind_the_curtain_and_are_told_why() -> anyhow::Result<()> {
    let site = Site::start(None).await?;
    let stream = site.create("show", true).await?;
    let broadcast = Broadcast::start_in(site.origin.rtmp, "key", &push(&stream), &Synthetic::default()).await?;
    site.happen("show", Happening::Connected(Slot::Primary)).await?;

    let refused = site.until("/app/show/index.m3u8", StatusCode::FORBIDDEN).await?;
    assert_eq!(refused.header("content-type"), "application/json");
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    assert!(refused.text().contains("stream_backstage"), "{}", refused.text());
    for path in ["/app/show/d/llhls.m3u8", "/app/show/d/video.m3u8"] {
        assert_eq!(site.get(path).await?.status, StatusCode::FORBIDDEN, "{path}");
    }

    let control = &site.origin.control;
    control
        .command(&stream.project, &stream.id, Event::StartBroadcasting)
        .await?;
    site.until("/app/show/index.m3u8", StatusCode::OK).await?;
    site.until("/app/show/d/video.m3u8", StatusCode::OK).await?;

    broadcast.end().await?;
    control.command(&stream.project, &stream.id, Event::Disable).await?;
    let refused = site.until("/app/show/index.m3u8", StatusCode::FORBIDDEN).await?;
    assert!(refused.text().contains("stream_disabled"), "{}", refused.text());
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn media_is_asked_of_the_origin_that_owns_the_broadcast() -> anyhow::Result<()> {
    // The edge's own list leads to nobody.
    let site = Site::start(Some(SocketAddr::from(([127, 0, 0, 1], 1)))).await?;
    let stream = site.create("show", false).await?;
    // The origin tells its fleet of the encoder by itself, so only before it comes is it certain that nobody owns it.
    let early = site.get("/app/show/index.m3u8").await?;
    assert!(
        early.status.is_server_error(),
        "nobody owns it yet: {} {}",
        early.status,
        early.text()
    );
    let broadcast = Broadcast::start_in(site.origin.rtmp, "key", &push(&stream), &Synthetic::default()).await?;
    site.happen("show", Happening::Connected(Slot::Primary)).await?;
    site.until("/app/show/index.m3u8", StatusCode::OK).await?;
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_exist_is_404_without_asking_for_media() -> anyhow::Result<()> {
    let site = Site::start(None).await?;
    let reply = site.get("/app/nobody/index.m3u8").await?;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert!(reply.text().contains("unknown_stream"), "{}", reply.text());
    let asked = site::metric(site.edge.admin, "weir_edge_upstream_requests_total", "").await?;
    assert_eq!(asked, 0.0);
    site.shutdown().await;
    Ok(())
}
