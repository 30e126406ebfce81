//! Connections that want nothing but to be in the way.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{interval, timeout},
};
use weir_loadtest::{rtmp::Session, synthetic::Synthetic};
use weir_origin::app::Origin;
use weir_tests::{
    push::refused,
    site::{Broadcast, metric, origin_config},
};

/// Ten seconds to publish, and a little for a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(13);

/// A connection from an address of its own, a hundred of them sharing one.
async fn stranger(to: SocketAddr, n: usize) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let neighbourhood = u8::try_from(2 + n / 100)?;
    socket.bind(([127, 0, 1, neighbourhood], 0).into())?;
    Ok(socket.connect(to).await?)
}

/// Says hello and then nothing, until the server has enough. How long that took.
async fn silent(to: SocketAddr, n: usize) -> anyhow::Result<Duration> {
    let mut socket = stranger(to, n).await?;
    // How long two thousand take to connect is not the server's patience.
    let started = Instant::now();
    socket.write_all(&[&[3][..], &[0; 1536]].concat()).await?;
    let mut answer = [0; 1 + 2 * 1536];
    socket.read_exact(&mut answer).await?;
    socket.write_all(&answer[1..1537]).await?;
    until_closed(&mut socket).await;
    Ok(started.elapsed())
}

/// Sends a byte a second, until the server has enough.
async fn trickling(to: SocketAddr, n: usize) -> anyhow::Result<Duration> {
    let socket = stranger(to, n).await?;
    let started = Instant::now();
    let (mut from, mut to) = socket.into_split();
    let trickle = async {
        let mut second = interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            if to.write_all(&[3]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = trickle => {}
        () = until_closed(&mut from) => {}
    }
    Ok(started.elapsed())
}

async fn until_closed(from: &mut (impl AsyncReadExt + Unpin)) {
    let mut ignored = [0; 4096];
    while from.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_strangers_are_cut_and_a_publisher_notices_nothing() -> anyhow::Result<()> {
    const EACH: usize = 1000;
    let mut config = origin_config();
    // Room for all: what cuts them is time, not crowding.
    config.rtmp.max_waiting = 3000;
    let origin = Origin::start(config).await?;
    let broadcast = Broadcast::start(origin.rtmp, "show", &Synthetic::default()).await?;

    let mut strangers = JoinSet::new();
    for n in 0..EACH {
        strangers.spawn(silent(origin.rtmp, n));
        strangers.spawn(trickling(origin.rtmp, EACH + n));
    }
    let crowd = async {
        loop {
            let open = metric(origin.admin, "weir_origin_rtmp_connections", "").await?;
            if open as usize > EACH {
                return anyhow::Ok(());
            }
        }
    };
    timeout(CUT_WITHIN, crowd).await??;
    // Amid all of them somebody else begins to publish.
    let arrived = Instant::now();
    let second = Session::connect(&format!("rtmp://{}/app", origin.rtmp), "second").await?;
    assert!(arrived.elapsed() < Duration::from_secs(3), "{:?}", arrived.elapsed());
    second.close().await?;

    let mut longest = Duration::ZERO;
    while let Some(ended) = strangers.join_next().await {
        longest = longest.max(ended??);
    }
    assert!(longest < CUT_WITHIN, "{longest:?}");
    let ended = async |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        metric(origin.admin, "weir_origin_rtmp_ended_total", &label).await
    };
    assert_eq!(
        ended("publish_timeout").await? as usize,
        EACH,
        "who said hello had ten seconds"
    );
    assert_eq!(
        ended("too_slow").await? as usize,
        EACH,
        "who did not even do that had three"
    );

    let report = broadcast.end().await?;
    let frames = metric(origin.admin, "weir_origin_rtmp_frames_total", "track=\"video\"").await?;
    assert_eq!(frames as u64, report.video_frames);
    assert!(report.worst_lateness < Duration::from_secs(1), "{report:?}");
    let dropped = metric(origin.admin, "weir_origin_rtmp_frames_dropped_total", "").await?;
    assert_eq!(dropped, 0.0);
    origin.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_pushes_out_its_own() -> anyhow::Result<()> {
    let mut config = origin_config();
    config.rtmp.max_waiting = 50;
    config.rtmp.max_waiting_per_address = 200;
    let origin = Origin::start(config).await?;
    let mut flood = Vec::new();
    for n in 0..150 {
        flood.push(stranger(origin.rtmp, n).await?);
    }
    // Every place is taken, yet a publisher gets in and stays.
    let session = Session::connect(&format!("rtmp://{}/app", origin.rtmp), "show").await?;
    for n in 0..150 {
        flood.push(stranger(origin.rtmp, n).await?);
    }
    // The newest stranger is in the kernel's queue at least: one answered question later it has been let in.
    refused(&format!("rtmp://{}/nosuch", origin.rtmp), "show").await?;
    let evicted = metric(origin.admin, "weir_origin_rtmp_ended_total", "reason=\"evicted\"").await?;
    assert!(evicted >= 200.0, "{evicted}");
    assert_eq!(metric(origin.admin, "weir_origin_rtmp_publishing", "").await?, 1.0);
    session.close().await?;
    drop(flood);
    origin.shutdown().await;
    Ok(())
}

/// Addresses have a share, and a guess takes its time: so many a second and no more.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_slow_and_few_at_a_time() -> anyhow::Result<()> {
    let mut config = origin_config();
    config.any_key = false;
    config.rtmp.max_waiting_per_address = 4;
    let origin = Origin::start(config).await?;
    let url = format!("rtmp://{}/app", origin.rtmp);
    let started = Instant::now();
    let mut guesses = JoinSet::new();
    for n in 0..12 {
        let url = url.clone();
        guesses.spawn(async move { Session::connect(&url, &format!("guess-{n}")).await.err() });
    }
    let mut answered = 0;
    while let Some(guess) = guesses.join_next().await {
        let error = guess?.expect("no such stream");
        answered += usize::from(error.to_string().contains("not authorized"));
    }
    assert!((1..=4).contains(&answered), "{answered}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    let shed = metric(origin.admin, "weir_origin_rtmp_over_limit_total", "limit=\"address\"").await?;
    assert_eq!(shed as usize, 12 - answered);
    origin.shutdown().await;
    Ok(())
}
