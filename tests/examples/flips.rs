//! How long after a stream's status changes do the API and an edge know?
//!
//!     cargo run --release -p weir-tests --example flips -- [flips] [database URL]
//!
//! An origin with its API, and an edge's directory that follows it, over real sockets in this process. The clock starts
//! before the change is handed to the control plane (an encoder has connected, somebody disables, activates); it stops
//! when a GET answers the new status, and when the edge's record has it. Both are asked without pause, so the API's
//! figures hold the time of a call, too.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use weir_edge::{config, directory::Directory, metrics::Metrics};
use weir_origin::{
    app::Origin,
    control::{
        lifecycle::{Event, Slot},
        model::Stream,
        node::{Happening, News},
        service::NewStream,
    },
};
use weir_shared::{config::Secret, directory::Status};
use weir_tests::{
    control::{Disk, project},
    rest::Rest,
    site,
};

const CREDENTIAL: &str = "the-fleet's-own-credential";
/// Pause between two looks at the edge's record.
const LOOK_EVERY: Duration = Duration::from_micros(200);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let flips: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let disk = Disk::new("flips");
    let mut config = site::origin_config();
    config.database.url = arguments.next().unwrap_or_else(|| disk.url());
    config.directory = Some(weir_origin::config::Directory {
        credential: Secret::new(CREDENTIAL),
        url: None,
    });
    let origin = Origin::start(config).await?;
    let rest = Rest {
        addr: origin.api,
        key: origin.first_key.clone().context("the database is fresh")?,
    };
    let edge_config = config::Directory {
        origins: vec![format!("http://{}", origin.api)],
        credential: Secret::new(CREDENTIAL),
        ca: None,
        max_records: 1000,
        unknown: config::Unknown::Refuse,
    };
    let edge = Directory::new(&edge_config, Arc::new(Metrics::new(&prometheus::Registry::new())?))?;
    let stop = CancellationToken::new();
    tokio::spawn(edge.clone().follow(stop.clone()));

    let new = NewStream {
        active: true,
        ..NewStream::default()
    };
    let stream = origin.control.create_stream(&project()?, new, None).await?.stream;
    edge.record(&stream.key).await?;

    let (mut api_delays, mut edge_delays) = (Vec::new(), Vec::new());
    for flip in 0..flips {
        let begin = Instant::now();
        let (at_api, at_edge) = match flip % 3 {
            0 => {
                let news = News {
                    key: stream.key.clone(),
                    what: Happening::Connected(Slot::Primary),
                };
                let change = async { Ok(origin.control.hear(&news).await?) };
                seen(change, &rest, &edge, &stream, Status::Live, begin).await?
            }
            1 => {
                seen(
                    command(&origin, &stream, Event::Disable),
                    &rest,
                    &edge,
                    &stream,
                    Status::Disabled,
                    begin,
                )
                .await?
            }
            _ => {
                seen(
                    command(&origin, &stream, Event::Activate),
                    &rest,
                    &edge,
                    &stream,
                    Status::Idle,
                    begin,
                )
                .await?
            }
        };
        api_delays.push(at_api);
        edge_delays.push(at_edge);
    }
    println!("{flips} flips, from the change to where it is known");
    print("GET on the API", &mut api_delays);
    print("record of the edge", &mut edge_delays);
    stop.cancel();
    origin.shutdown().await;
    Ok(())
}

async fn command(origin: &Origin, stream: &Stream, event: Event) -> anyhow::Result<()> {
    origin.control.command(&stream.project, &stream.id, event).await?;
    Ok(())
}

/// Makes the change, and looks at both places meanwhile.
async fn seen(
    change: impl Future<Output = anyhow::Result<()>>,
    rest: &Rest,
    edge: &Arc<Directory>,
    stream: &Stream,
    status: Status,
    begin: Instant,
) -> anyhow::Result<(Duration, Duration)> {
    let path = format!("/v1/projects/default/streams/{}", stream.id);
    let wanted = serde_json::to_value(status)?;
    let api = async {
        loop {
            let reply: serde_json::Value = serde_json::from_slice(&rest.get(&path).await?.body)?;
            if reply["status"] == wanted {
                return anyhow::Ok(begin.elapsed());
            }
        }
    };
    let edge = async {
        while edge.record(&stream.key).await?.status != status {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(begin.elapsed())
    };
    let ((), api, edge) = tokio::try_join!(change, api, edge)?;
    Ok((api, edge))
}

fn print(what: &str, delays: &mut [Duration]) {
    delays.sort();
    let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize];
    println!(
        "{what}: median {:.1?}, p99 {:.1?}, longest {:.1?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
