//! `origin` and `floor`: made-up servers.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;
use weir_shared::config::HumanDuration;

use crate::{
    content::Shape,
    defect::{Defect, Defects},
    floor,
    origin::{MadeUpOrigin, Options},
    system,
};

/// Files a server needs for many viewers.
const FILES: u64 = 200_000;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ShapeArgs {
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Streams, at /app/s0/index.m3u8 and on.
    #[arg(long, default_value_t = 1)]
    streams: u32,
    /// Bits per second, one per rendition: 2500000,800000.
    #[arg(long, value_delimiter = ',', default_value = "2500000")]
    bitrate: Vec<u32>,
    #[arg(long, default_value = "200ms")]
    part: HumanDuration,
    /// Rounded to whole parts.
    #[arg(long, default_value = "1s")]
    segment: HumanDuration,
    /// How far back playlists reach.
    #[arg(long, default_value = "20s")]
    window: HumanDuration,
}

#[derive(Debug, clap::Args)]
pub(super) struct OriginArgs {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Lie on purpose, to see it noticed; several with commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    defect: Vec<Defect>,
    /// Entry URLs need a policy signed with this.
    #[arg(long, env = "WEIR_LOADTEST_TICKET_SECRET", hide_env_values = true)]
    ticket_secret: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct FloorArgs {
    #[command(flatten)]
    shape: ShapeArgs,
}

impl ShapeArgs {
    fn shape(&self) -> anyhow::Result<Shape> {
        let part = self.part.0;
        anyhow::ensure!(!part.is_zero(), "--part: 10ms to 5s");
        let parts = |time: std::time::Duration, unit: std::time::Duration| {
            u32::try_from((time.as_micros() + unit.as_micros() / 2) / unit.as_micros().max(1))
                .unwrap_or(u32::MAX)
                .max(1)
        };
        let parts_per_segment = parts(self.segment.0, part);
        let shape = Shape {
            streams: self.streams,
            renditions: self.bitrate.clone(),
            part_target: part,
            parts_per_segment,
            window_segments: parts(self.window.0, part.saturating_mul(parts_per_segment)),
        };
        shape.check()?;
        Ok(shape)
    }
}

pub(super) async fn origin(args: OriginArgs, interrupt: CancellationToken) -> anyhow::Result<bool> {
    let shape = args.shape.shape()?;
    more_files();
    let options = Options {
        listen: args.shape.listen,
        shape,
        defects: Defects(args.defect),
        ticket_secret: args.ticket_secret,
    };
    let listen = args.shape.listen;
    let origin = MadeUpOrigin::start(options)
        .await
        .map_err(|error| anyhow::anyhow!("--listen {listen}: {error} (is another program using this port?)"))?;
    println!(
        "pid {}: {} and on; metrics at http://{}/metrics",
        std::process::id(),
        origin.url(0),
        origin.address
    );
    interrupt.cancelled().await;
    println!("{} requests answered", origin.requests());
    Ok(true)
}

pub(super) async fn floor(args: FloorArgs, interrupt: CancellationToken) -> anyhow::Result<bool> {
    let shape = args.shape.shape()?;
    more_files();
    let listen = args.shape.listen;
    let told = |address| println!("pid {}: http://{address}/app/s0/index.m3u8 and on", std::process::id());
    let served = tokio::task::spawn_blocking(move || floor::run(listen, shape, interrupt, told)).await?;
    served.map_err(|error| anyhow::anyhow!("--listen {listen}: {error} (is another program using this port?)"))?;
    Ok(true)
}

fn more_files() {
    if let Err(few) = system::allow_files(FILES) {
        // Good enough for a small audience: each viewer takes two.
        let _ = system::allow_files(few.allowed);
    }
}
