//! SRT on real sockets with our own caller: what viewers get, who suffers from a stall or a flood, who is told what.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use weir_loadtest::{
    publisher::{PublishError, Uplink},
    rtmp::Status,
    synthetic::{Synthetic, SyntheticVideo},
};
use weir_origin::{
    config::{Config, Srt},
    ingest::{
        Admitted, Door, Entrance, Event, Publication, Refusal, Tally, admission,
        catalog::{Catalog, SaltSecret},
        srt,
    },
};
use weir_shared::id::StreamKey;
use weir_tests::{
    flood,
    history::History,
    site::{Broadcast, Site, metric, origin_config},
};

/// Far longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn config() -> Config {
    let mut config = origin_config();
    config.srt = Some(Srt {
        listen: anywhere(),
        ..Default::default()
    });
    config.packaging.window = weir_shared::config::HumanDuration(Duration::from_secs(300));
    config
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await? {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn watch(site: &Site, key: &str, segments: u64) -> anyhow::Result<()> {
    until("playable", async || {
        Ok(site.get(&format!("/app/{key}/index.m3u8")).await?.status == 200)
    })
    .await?;
    for _ in 0..segments {
        let open = site.playlist(key, "video").await?.open_sequence();
        site.get(&format!("/app/{key}/d/video.m3u8?_HLS_msn={open}")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_handshakes_costs_an_established_publish_nothing_and_a_good_caller_little() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let srt = site.origin.srt.context("SRT is served")?;
    let synthetic = Synthetic {
        video: Some(SyntheticVideo {
            b_frames: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let show = Broadcast::push(&format!("srt://{srt}"), "show", &synthetic).await?;
    watch(&site, "show", 1).await?;
    let source = Ipv4Addr::new(127, 0, 0, 2);
    let flood = std::thread::spawn(move || flood::handshakes(srt, source, 40_000..44_000));
    let good = Uplink::connect(&format!("srt://{srt}"), "good").await?;
    let sent = tokio::task::spawn_blocking(move || flood.join())
        .await?
        .expect("the flood ends")?;
    assert!(sent > 4_000, "{sent}");
    good.close().await?;
    watch(&site, "show", 2).await?;
    for track in ["video", "audio"] {
        History::read(&site, "show", track).await?.assert_continuous();
    }
    let report = show.end().await?;
    assert!(report.video_frames > 0);
    let lost = metric(site.origin.admin, "weir_origin_srt_packets_total", "\"lost\"").await?;
    let dropped = metric(site.origin.admin, "weir_origin_srt_frames_dropped_total", "").await?;
    assert_eq!((lost, dropped), (0.0, 0.0));
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_turned_away_is_told_why() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let srt = site.origin.srt.context("SRT is served")?;
    let refused = async |url: String, key: &str| -> anyhow::Result<Status> {
        match Uplink::connect(&url, key).await {
            Err(PublishError::Refused(status)) => Ok(status),
            Err(other) => Err(other.into()),
            Ok(_) => anyhow::bail!("{key} was let in"),
        }
    };
    let needless = format!("srt://{srt}?passphrase=correct-horse-battery");
    for (url, key, code) in [
        (needless, "show", "1011"),
        (format!("srt://{srt}"), "no key", "2400"),
        (format!("srt://{srt}"), "#!::r=show,m=request", "2405"),
    ] {
        let status = refused(url, key).await?;
        assert_eq!(status.code, code, "{status}");
        assert!(!status.description.is_empty());
    }
    // Who calls as it should is let in afterwards.
    Uplink::connect(&format!("srt://{srt}"), "show").await?.close().await?;
    site.shutdown().await;
    Ok(())
}

/// Publishes by key: their events, which a test takes or leaves.
#[derive(Default)]
struct Pipelines(Mutex<Vec<(StreamKey, mpsc::Receiver<Event>, Arc<Tally>)>>);

impl Pipelines {
    fn take(&self, key: &str) -> Option<(mpsc::Receiver<Event>, Arc<Tally>)> {
        let mut all = self.0.lock();
        let at = all.iter().position(|(known, ..)| known.as_str() == key)?;
        let (_, events, tally) = all.swap_remove(at);
        Some((events, tally))
    }
}

struct SlowDoor(Arc<Pipelines>);

impl Door for SlowDoor {
    fn publish(&self, admitted: Admitted) -> Result<Publication, Refusal> {
        let (events, receiver) = mpsc::channel(64);
        let tally = Arc::<Tally>::default();
        let key = admitted.key().clone();
        self.0.0.lock().push((key, receiver, tally.clone()));
        Ok(Publication {
            events,
            stop: CancellationToken::new(),
            tally,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_stalls_costs_its_own_stream_only() -> anyhow::Result<()> {
    let catalog = Arc::new(Catalog::new(true, SaltSecret::new([5; 32])));
    let admission = admission::Admission::new(catalog, None, admission::Metrics::default());
    let pipelines = Arc::<Pipelines>::default();
    let settings = srt::Config::default();
    let metrics = settings.metrics.clone();
    let door = Arc::new(SlowDoor(pipelines.clone()));
    let server = srt::Server::new(settings, Arc::new(admission), door, CancellationToken::new());
    let bound = server.bind(anywhere(), Entrance::Shared).await?;
    let url = format!("srt://{}", bound.local());
    tokio::spawn(server.clone().listen(bound, CancellationToken::new()));

    // Many small frames fill what may wait soon.
    let synthetic = Synthetic {
        video: Some(SyntheticVideo {
            fps: (240, 1),
            ..Default::default()
        }),
        audio: None,
    };
    let stalled = Broadcast::push(&url, "stalled", &synthetic).await?;
    let flowing = Broadcast::push(&url, "flowing", &synthetic).await?;
    let (untaken, _) = pipelines.take("stalled").context("it was let in")?;
    let (mut events, tally) = pipelines.take("flowing").context("it was let in")?;
    let mut last = None;
    let mut next_frame = async || -> anyhow::Result<()> {
        loop {
            let event = timeout(PATIENCE, events.recv()).await?.context("it goes on")?;
            if let Event::Frame(frame) = event {
                assert!(last < Some(frame.dts), "in order");
                last = Some(frame.dts);
                return Ok(());
            }
        }
    };
    let left_out = metrics.dropped.with_label_values(&["backlog"]);
    let mut taken = 0;
    while left_out.get() == 0 {
        next_frame().await?;
        taken += 1;
        assert!(taken < 240 * 30, "the stalled stream leaves nothing out");
    }
    for _ in 0..240 {
        next_frame().await?;
    }
    assert_eq!(tally.dropped.load(std::sync::atomic::Ordering::Relaxed), 0);
    let link = tally.link.lock().context("it has a link")?;
    assert_eq!(link.packets_lost, 0);
    assert_eq!(metrics.publishing.get(), 2, "neither is ended");
    drop(untaken);
    flowing.end().await?;
    stalled.cut();
    Ok(())
}
