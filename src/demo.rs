//! The demo broadcast of `weir up --demo`: a stream like every other, made and pushed the way a program would do it.
//!
//! Before this: `up.rs`. After this: the control plane (the stream), the RTMP listener (the push).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use weir_loadtest::{demo, publisher, rhythm::Rhythm};
use weir_origin::control::{
    lifecycle::{Event, Status},
    model::{DEFAULT, Settings, Stream},
    service::{Control, NewStream, Refused},
};
use weir_shared::{id::StreamKey, retry::Backoff};

/// The stream's key: what is watched at `/play/demo`.
pub(crate) const KEY: &str = "demo";

/// Pauses after a push that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A stream that is there to be pushed.
pub(crate) struct Demo {
    control: Arc<Control>,
    key: StreamKey,
    rtmp: SocketAddr,
}

impl Demo {
    /// Creates the stream, unless an earlier run did, and activates it if that run's end left it disabled.
    pub(crate) async fn prepare(control: Arc<Control>, rtmp: SocketAddr) -> anyhow::Result<Self> {
        let key: StreamKey = KEY.parse().context("the demo's key")?;
        let project = DEFAULT.parse().context("the demo's project")?;
        let new = NewStream {
            key: Some(key.clone()),
            settings: Settings {
                name: "Demo".to_owned(),
                // Streams with passwords make encoders be asked for one; beside the demo any key may be pushed without.
                allow_key_only: true,
                ..Settings::default()
            },
            active: true,
            backstage: false,
        };
        match control.create_stream(&project, new, None).await {
            Ok(_) | Err(Refused::Taken(_)) => {}
            Err(refused) => return Err(refused.into()),
        }
        let demo = Self { control, key, rtmp };
        let stream = demo.stream().await?;
        if stream.status() == Status::Disabled {
            let activated = demo.control.command(&stream.project, &stream.id, Event::Activate);
            activated.await?;
        }
        Ok(demo)
    }

    async fn stream(&self) -> anyhow::Result<Stream> {
        let found = self.control.store.stream_by_key(&self.key).await?;
        found.context("the demo's stream was removed")
    }

    /// Pushes the built-in clip in a loop, through the same door as everybody else, until `stop`.
    pub(crate) async fn broadcast(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        while !stop.is_cancelled() {
            match self.push(stop.clone()).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "the demo broadcast was interrupted, trying again"),
            }
            let pause = backoff.next(&mut rand::rng());
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn push(&self, stop: CancellationToken) -> anyhow::Result<()> {
        // Read anew each time: somebody may have made another token.
        let token = self.stream().await?.credentials.token;
        let push = publisher::Publish {
            url: format!("rtmp://{}/app?t={token}", self.rtmp),
            key: self.key.to_string(),
            clip: demo::clip(),
            looped: true,
            // In step with the wall clock: the picture tells its own age.
            start_at: Some(SystemTime::UNIX_EPOCH),
            rhythm: Rhythm::default(),
        };
        publisher::publish(push, stop).await?;
        Ok(())
    }
}
