//! A control plane without an origin around it: a database, streams in it, events about them, a clock to turn.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use weir_origin::control::{
    delivery::{
        Clock, Delivery, DeliveryState, Dispatcher, DurableOutbox, Endpoint, Metrics, Poster, Resolve, Resolving,
        Settings,
    },
    guard::Guard,
    lifecycle::State,
    model::{DEFAULT, Settings as StreamSettings, Stream},
    notice::{Notice, Outbox as _},
    secret,
    store::{self, Millis, Store},
};
use weir_shared::id::ProjectId;

use crate::database;

/// Between two looks at something that only the database tells.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longer than anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A database file that is removed with this.
pub struct Disk(PathBuf);

impl Disk {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = format!("weir-test-{name}-{}-{number}.db", std::process::id());
        Self(std::env::temp_dir().join(file))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn url(&self) -> String {
        format!("sqlite:{}", self.0.display())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", ".key"] {
            // The side files are not always there.
            let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
        }
    }
}

/// The control plane's memory and its clock.
#[derive(Clone)]
pub struct Control {
    pub store: Store,
    pub metrics: Arc<Metrics>,
    now: Arc<AtomicI64>,
}

/// A dispatcher at work; dropped, it is cut off as by a crash.
pub struct Working {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Working {
    /// Lets what is under way end.
    pub async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

/// Names lead to 127.0.0.1, whatever they are.
struct Local;

impl Resolve for Local {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

pub fn project() -> anyhow::Result<ProjectId> {
    Ok(DEFAULT.parse()?)
}

/// Calls 127.0.0.1 and nothing else that is not public.
pub fn poster() -> anyhow::Result<Poster> {
    let guard = Guard::parse(&["127.0.0.1".to_owned()])?;
    Ok(Poster::new(Arc::new(guard))?.resolving_with(Arc::new(Local)))
}

impl Control {
    /// On a database; the clock stands where it is until it is turned.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            store: Store::open(url).await?,
            metrics: Arc::new(Metrics::new(&prometheus::Registry::new())?),
            now: Arc::new(AtomicI64::new(store::now())),
        })
    }

    /// One on each database that is there.
    pub async fn on_all() -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for url in database::urls().await? {
            all.push(Self::open(&url).await?);
        }
        Ok(all)
    }

    pub fn now(&self) -> Millis {
        self.now.load(Ordering::Relaxed)
    }

    pub fn turn_clock(&self, by: Duration) {
        self.now.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    pub fn clock(&self) -> Clock {
        let now = self.now.clone();
        Arc::new(move || now.load(Ordering::Relaxed))
    }

    pub fn dispatch(&self, poster: Poster) -> Working {
        self.dispatch_with(poster, Settings::default())
    }

    pub fn dispatch_with(&self, poster: Poster, settings: Settings) -> Working {
        let dispatcher = Dispatcher::new(self.store.clone(), poster, self.clock(), self.metrics.clone(), settings);
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(dispatcher.run(stop.clone())));
        Working { stop, task }
    }

    pub async fn add_endpoint(&self, url: String) -> anyhow::Result<Endpoint> {
        let endpoint = Endpoint::new(project()?, url, self.now());
        endpoint.add(&self.store).await?;
        Ok(endpoint)
    }

    /// Adds a stream, and the event that tells of it, in one unit of work.
    pub async fn add_stream(&self, key: &str) -> anyhow::Result<Stream> {
        let stream = stream(key, self.now())?;
        let outbox = DurableOutbox::new(self.metrics.clone());
        let mut tx = self.store.begin().await?;
        tx.insert_stream(&stream).await?;
        outbox.record(&mut tx, Notice::Created, &stream, self.now()).await?;
        tx.commit().await?;
        Ok(stream)
    }

    /// Changes a stream and tells of it, in one unit of work.
    pub async fn tell(&self, stream: &mut Stream, notice: Notice) -> anyhow::Result<()> {
        let outbox = DurableOutbox::new(self.metrics.clone());
        let mut tx = self.store.begin().await?;
        tx.update_stream(stream, self.now()).await?;
        outbox.record(&mut tx, notice, stream, self.now()).await?;
        Ok(tx.commit().await?)
    }

    /// The newest delivery of an endpoint, once its log satisfies this.
    pub async fn logged(&self, endpoint: &Endpoint, expected: impl Fn(&Delivery) -> bool) -> anyhow::Result<Delivery> {
        let mut newest = None;
        let looking = async {
            loop {
                newest = Delivery::list(&self.store, &endpoint.id, 0, 1).await?.0.pop();
                if let Some(newest) = newest.clone().filter(|d| expected(d)) {
                    return anyhow::Ok(newest);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        found.with_context(|| format!("the log has {newest:?}"))?
    }

    pub async fn delivered(&self, endpoint: &Endpoint) -> anyhow::Result<Delivery> {
        self.logged(endpoint, |delivery| delivery.state == DeliveryState::Delivered)
            .await
    }
}

/// A stream as the API would make it.
pub fn stream(key: &str, at: Millis) -> anyhow::Result<Stream> {
    Ok(Stream {
        id: format!("str_{key}").parse()?,
        project: project()?,
        key: key.parse()?,
        state: State::default(),
        settings: StreamSettings {
            name: format!("stream {key}"),
            ..StreamSettings::default()
        },
        credentials: secret::credentials(),
        dvr_cleared: None,
        version: 1,
        created_at: at,
        updated_at: at,
    })
}
