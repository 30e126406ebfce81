//! Origins and edges on free ports, and broadcasts into them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_edge::Edge;
use weir_loadtest::{
    clip::ClipLoop,
    demo,
    publisher::{self, PublishError, Uplink},
    rhythm::Rhythm,
    synthetic::Synthetic,
    tag::{Opening, Source, Tag, Track},
};
use weir_origin::{app::Origin, config as origin_config};
use weir_shared::{config::HumanDuration, hls::playlist::MediaPlaylist};

use crate::{
    client::{self, Reply},
    folder,
};

/// An origin and an edge in front of it.
pub struct Site {
    pub origin: Origin,
    pub edge: Edge,
}

/// A broadcast that goes on until it is ended or cut.
pub struct Broadcast {
    stop: CancellationToken,
    silence: CancellationToken,
    blindness: CancellationToken,
    task: JoinHandle<Result<publisher::Report, PublishError>>,
}

/// Holds a broadcast's connection open though nothing comes through it any more.
pub struct Silent(JoinHandle<Result<publisher::Report, PublishError>>);

impl Drop for Silent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A source whose picture can fail.
struct Camera<S> {
    source: S,
    covered: CancellationToken,
}

impl<S: Source> Source for Camera<S> {
    fn opening(&self) -> Opening {
        self.source.opening()
    }

    fn next_tag(&mut self) -> Option<Tag> {
        std::iter::from_fn(|| self.source.next_tag())
            .find(|tag| tag.track == Track::Audio || !self.covered.is_cancelled())
    }
}

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Short parts and segments, so that tests see several of each soon.
pub fn origin_config() -> origin_config::Config {
    let mut config = origin_config::Config {
        any_key: true,
        ..Default::default()
    };
    config.http.listen = anywhere();
    config.rtmp.listen = anywhere();
    config.admin.listen = anywhere();
    config.api.listen = anywhere();
    config.database.url = "sqlite::memory:".to_owned();
    config.record.store = "memory://".to_owned();
    config.record.journal = folder::unused("journal");
    // Made-up broadcasts have nothing to show.
    config.record.thumbnails.enabled = false;
    // All in memory, unless a test is about the cold tier.
    config.dvr.store = String::new();
    // A stream ends with its publisher, unless a test is about coming back.
    config.ingest.grace = HumanDuration(Duration::ZERO);
    config.packaging.part_target = HumanDuration(Duration::from_millis(200));
    config.packaging.segment_target = HumanDuration(Duration::from_secs(1));
    config.packaging.window = HumanDuration(Duration::from_secs(20));
    config
}

/// An edge of the origin at this address.
pub async fn start_edge(origin: SocketAddr) -> anyhow::Result<Edge> {
    let mut config = weir_edge::config::Config {
        origins: vec![format!("http://{origin}")],
        ..Default::default()
    };
    config.place(|listen| *listen = anywhere());
    Edge::start(config).await
}

impl Site {
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(origin_config()).await
    }

    /// With an origin of this configuration.
    pub async fn start_with(config: origin_config::Config) -> anyhow::Result<Self> {
        let origin = Origin::start(config).await?;
        let edge = start_edge(origin.http).await?;
        Ok(Self { origin, edge })
    }

    /// Where viewers ask.
    pub fn viewers(&self) -> SocketAddr {
        self.edge.http.unwrap_or(self.origin.http)
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        client::get(self.viewers(), path).await
    }

    /// The newest full playlist through the edge.
    pub async fn playlist(&self, key: &str, rendition: &str) -> anyhow::Result<MediaPlaylist> {
        self.get(&format!("/app/{key}/d/{rendition}.m3u8")).await?.playlist()
    }

    /// A counter or gauge of the edge, its label sets added up where `labels` occurs in them.
    pub async fn edge_metric(&self, name: &str, labels: &str) -> anyhow::Result<f64> {
        metric(self.edge.admin, name, labels).await
    }

    pub async fn shutdown(self) {
        self.edge.shutdown().await;
        self.origin.shutdown().await;
    }
}

/// A metric of a node by its admin port.
pub async fn metric(admin: SocketAddr, name: &str, labels: &str) -> anyhow::Result<f64> {
    let text = client::get(admin, "/metrics").await?;
    let sum = text
        .text()
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
        .filter(|line| line.contains(labels))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    Ok(sum)
}

/// How long a server may take to end a publisher.
const TOLD_TO_GO: Duration = Duration::from_secs(10);

impl Broadcast {
    /// Publishes `synthetic` in real time.
    pub async fn start(rtmp: SocketAddr, key: &str, synthetic: &Synthetic) -> anyhow::Result<Self> {
        Self::start_in(rtmp, "app", key, synthetic).await
    }

    /// The same with an application name that says more: `app?user=…&pass=…`.
    pub async fn start_in(rtmp: SocketAddr, app: &str, key: &str, synthetic: &Synthetic) -> anyhow::Result<Self> {
        Self::push(&format!("rtmp://{rtmp}/{app}"), key, synthetic).await
    }

    /// The same to any push URL: `rtmp://…` or `srt://…`.
    pub async fn push(url: &str, key: &str, synthetic: &Synthetic) -> anyhow::Result<Self> {
        Self::start_from(url, key, synthetic.source()).await
    }

    /// Publishes a clip that decoders can read.
    pub async fn start_demo(rtmp: SocketAddr, app: &str, key: &str) -> anyhow::Result<Self> {
        Self::start_from(
            &format!("rtmp://{rtmp}/{app}"),
            key,
            ClipLoop::new(demo::clip(), 0, true),
        )
        .await
    }

    async fn start_from(url: &str, key: &str, source: impl Source + 'static) -> anyhow::Result<Self> {
        let session = Uplink::connect(url, key).await?;
        let (stop, silence) = (CancellationToken::new(), CancellationToken::new());
        let blindness = CancellationToken::new();
        let source = Camera {
            source,
            covered: blindness.clone(),
        };
        let (told, hushed) = (stop.clone(), silence.clone());
        let task = tokio::spawn(async move {
            let mut push = std::pin::pin!(publisher::push(
                session,
                source,
                Instant::now(),
                Rhythm::default(),
                &told
            ));
            tokio::select! {
                report = &mut push => report,
                // The session is kept and goes on no more.
                () = hushed.cancelled() => std::future::pending().await,
            }
        });
        Ok(Self {
            stop,
            silence,
            blindness,
            task,
        })
    }

    /// Sends its sound on, and no picture any more, as an encoder whose camera has failed.
    pub fn lose_picture(&self) {
        self.blindness.cancel();
    }

    /// Sends nothing any more, and stays connected as long as the result lives.
    pub fn fall_silent(self) -> Silent {
        self.silence.cancel();
        Silent(self.task)
    }

    /// Says goodbye.
    pub async fn end(self) -> anyhow::Result<publisher::Report> {
        self.stop.cancel();
        Ok(self.task.await??)
    }

    /// Pushes on until the other side ends it.
    pub async fn outcome(self) -> anyhow::Result<publisher::Report> {
        Ok(tokio::time::timeout(TOLD_TO_GO, self.task).await???)
    }

    /// Is gone without a word, as when a line is cut.
    pub fn cut(self) {
        self.task.abort();
    }
}
