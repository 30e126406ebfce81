//! Takes RTMP pushes and prints what a pipeline would be told: a check of an encoder without the rest of Weir.
//!
//! `cargo run -p weir-origin --example rtmp_sink -- 127.0.0.1:1935`

use std::{collections::BTreeMap, sync::Arc};

use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use weir_origin::ingest::{
    Admitted, Door, Entrance, Event, Publication, Refusal,
    admission::{self, Admission},
    catalog::{Catalog, SaltSecret},
    redacted,
    rtmp::{self, server::Wrapping},
};

struct Print;

impl Door for Print {
    fn publish(&self, admitted: Admitted) -> Result<Publication, Refusal> {
        let (sender, events) = mpsc::channel(64);
        tokio::spawn(print(redacted(admitted.key()), events));
        Ok(Publication {
            events: sender,
            stop: CancellationToken::new(),
        })
    }
}

/// Frames of one track so far.
#[derive(Default)]
struct Seen {
    frames: u64,
    keys: u64,
    reordered: u64,
    last_ms: i64,
    longest_step_ms: i64,
}

async fn print(key: String, mut events: mpsc::Receiver<Event>) {
    let mut tracks = BTreeMap::<_, Seen>::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Announced(announced) => println!("{key} {announced:?}"),
            Event::Config(track, config) => {
                println!("{key} {track} {} {:?}", config.codec_string(), config.picture());
            }
            Event::Frame(frame) => {
                let at_ms = frame.dts.as_millis();
                let seen = tracks.entry(frame.track).or_insert_with(|| {
                    println!("{key} {} begins at {at_ms} ms, key {}", frame.track, frame.key);
                    Seen {
                        last_ms: at_ms,
                        ..Seen::default()
                    }
                });
                seen.frames += 1;
                seen.keys += u64::from(frame.key);
                seen.reordered += u64::from(frame.composition_offset.as_millis() != 0);
                seen.longest_step_ms = seen.longest_step_ms.max(at_ms - seen.last_ms);
                seen.last_ms = at_ms;
            }
        }
    }
    for (track, seen) in tracks {
        println!(
            "{key} {} ended at {} ms: {} frames, {} keys, {} reordered, longest step {} ms",
            track, seen.last_ms, seen.frames, seen.keys, seen.reordered, seen.longest_step_ms
        );
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1935".into());
    let listener = TcpListener::bind(&address).await?;
    println!("push to rtmp://{}/app/<key>", listener.local_addr()?);
    let catalog = Arc::new(Catalog::new(true, SaltSecret::random()));
    let admission = Arc::new(Admission::new(catalog, None, admission::Metrics::default()));
    let never = CancellationToken::new();
    let server = rtmp::Server::new(rtmp::Config::default(), admission, Arc::new(Print), never.clone());
    server.listen(listener, Entrance::Shared, Wrapping::Plain, never).await;
    Ok(())
}
