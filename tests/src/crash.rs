//! `kill -9` at random moments of API traffic and webhook delivery: every write that was acknowledged is there
//! afterwards, and every event of one is delivered at least once.
//!
//! The origin runs in a process of its own, started by this one from its own program; clients write without pause; the
//! process is killed without warning and started again on the same database. What was under way at that moment may or
//! may not have happened, but not by halves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_origin::app::Origin;

use crate::{
    client,
    receiver::{Manner, Receiver},
    site,
    victim::{Victim, say_ready},
};

/// Set for the process that is killed: the database it opens.
pub const DATABASE: &str = "WEIR_CRASH_DATABASE";
/// Clients that write at once, each to its own streams.
const CLIENTS: usize = 4;
/// Streams each client goes on changing.
const KEPT: usize = 8;
/// Longest life of an origin, in milliseconds.
const LIFE_MS: u64 = 400;

const STREAMS: &str = "/v1/projects/default/streams";
const WEBHOOKS: &str = "/v1/projects/default/webhooks";
/// Longest wait for the last deliveries: on PostgreSQL the claims of the killed process have to run out.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(60);

/// The killed process: an origin that says where it listens and runs until it is killed.
pub async fn serve_until_killed() -> anyhow::Result<()> {
    let mut config = site::origin_config();
    config.database.url = std::env::var(DATABASE).context("started by hand")?;
    config.webhooks.allow = vec!["127.0.0.1".to_owned()];
    let origin = Origin::start(config).await?;
    let key = origin.first_key.clone().unwrap_or_default();
    say_ready(&[origin.api.port().to_string(), key]);
    std::future::pending().await
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub kills: u32,
    /// Writes that were acknowledged and looked for afterwards.
    pub acknowledged: u64,
    /// Events that had to be delivered, and were.
    pub events: usize,
    /// Deliveries that came; more than the events are those that were tried again.
    pub deliveries: usize,
}

struct Server {
    process: Victim,
    api: SocketAddr,
    key: String,
}

fn start(mut command: Command, database: &str) -> anyhow::Result<Server> {
    command.env(DATABASE, database);
    let process = Victim::start(command)?;
    Ok(Server {
        api: process.address(0)?,
        key: process.word(1)?.to_owned(),
        process,
    })
}

/// What must be there of one stream.
#[derive(Debug, Clone)]
struct Known {
    /// Its name as last acknowledged; `None`: removed.
    name: Option<String>,
    /// What was asked for and not answered: may have happened.
    pending: Option<Option<String>>,
}

type Streams = BTreeMap<String, Known>;

/// Kills the origin `rounds` times. `program` starts the process that calls [`serve_until_killed`].
pub async fn kill_again_and_again(
    program: impl Fn() -> Command,
    database: &str,
    rounds: u32,
    seed: u64,
) -> anyhow::Result<Outcome> {
    let mut random = StdRng::seed_from_u64(seed);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut known: Vec<Streams> = vec![Streams::new(); CLIENTS];
    let mut key = String::new();
    let receiver = Receiver::start(Manner::Status(200)).await?;
    let created = Arc::new(Mutex::new(Vec::new()));
    for round in 0..rounds {
        let server = start(program(), database)?;
        if key.is_empty() {
            key.clone_from(&server.key);
            let hook = json!({"url": receiver.url(), "events": ["stream.created"]});
            let made = call(server.api, &key, Method::POST, WEBHOOKS, Some(hook)).await?;
            anyhow::ensure!(made.status == StatusCode::CREATED, "{}", made.text());
        }
        for streams in &mut known {
            verify(&server, &key, streams)
                .await
                .with_context(|| format!("seed {seed}, kill {round}"))?;
        }
        let (stop, stopped) = watch::channel(false);
        let clients: Vec<_> = known
            .drain(..)
            .map(|streams| {
                let client = Client {
                    api: server.api,
                    key: key.clone(),
                    streams,
                    random: StdRng::seed_from_u64(random.next_u64()),
                    acknowledged: acknowledged.clone(),
                    created: created.clone(),
                };
                tokio::spawn(client.write(stopped.clone()))
            })
            .collect();
        // A random moment: what is awaited here is chance itself.
        tokio::time::sleep(Duration::from_millis(random.random_range(5..LIFE_MS))).await;
        server.process.kill()?;
        stop.send_replace(true);
        for client in clients {
            known.push(client.await?);
        }
    }
    let server = start(program(), database)?;
    for streams in &mut known {
        verify(&server, &key, streams)
            .await
            .with_context(|| format!("seed {seed}, after the last kill"))?;
    }
    let created = created.lock().clone();
    Ok(Outcome {
        kills: rounds,
        acknowledged: acknowledged.load(Ordering::Relaxed),
        events: created.len(),
        deliveries: delivered(&receiver, &created).await?,
    })
}

/// Waits until every stream's event has come, however often. Gives how many came in all.
async fn delivered(receiver: &Receiver, created: &[String]) -> anyhow::Result<usize> {
    let deadline = Instant::now() + DELIVERY_PATIENCE;
    loop {
        let received = receiver.received();
        let told: BTreeSet<String> = received.iter().filter_map(|r| r.stream()).collect();
        let missing: Vec<_> = created.iter().filter(|id| !told.contains(*id)).collect();
        if missing.is_empty() {
            return Ok(received.len());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let more = receiver.wait_for(received.len() + 1);
        let more = tokio::time::timeout(left, more).await;
        anyhow::ensure!(matches!(more, Ok(Ok(_))), "never told of: {missing:?}");
    }
}

/// Every acknowledged write is there; one that was under way happened or did not.
async fn verify(server: &Server, key: &str, streams: &mut Streams) -> anyhow::Result<()> {
    for (id, known) in streams.iter_mut() {
        let reply = call(server.api, key, Method::GET, &format!("{STREAMS}/{id}"), None).await?;
        let found = match reply.status {
            StatusCode::OK => Some(reply.json()["name"].as_str().unwrap_or_default().to_owned()),
            StatusCode::NOT_FOUND => None,
            other => anyhow::bail!("{id}: {other}: {}", reply.text()),
        };
        let right = found == known.name || known.pending.as_ref() == Some(&found);
        anyhow::ensure!(right, "{id}: found {found:?}, acknowledged was {known:?}");
        *known = Known {
            name: found,
            pending: None,
        };
    }
    streams.retain(|_, known| known.name.is_some());
    Ok(())
}

struct Client {
    api: SocketAddr,
    key: String,
    streams: Streams,
    random: StdRng,
    acknowledged: Arc<AtomicU64>,
    /// Streams whose creation was acknowledged.
    created: Arc<Mutex<Vec<String>>>,
}

impl Client {
    /// Writes until the connection breaks; gives back what must be there.
    async fn write(mut self, stopped: watch::Receiver<bool>) -> Streams {
        while !*stopped.borrow() && self.one().await.is_ok() {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.streams
    }

    async fn one(&mut self) -> anyhow::Result<()> {
        let name = format!("{:x}", self.random.next_u64());
        let living: Vec<String> = self
            .streams
            .iter()
            .filter(|(_, known)| known.name.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        if living.len() < KEPT {
            let made = self.call(Method::POST, STREAMS, Some(json!({"name": name}))).await?;
            let id = made["id"].as_str().context("an id")?.to_owned();
            let known = Known {
                name: Some(name),
                pending: None,
            };
            self.created.lock().push(id.clone());
            self.streams.insert(id, known);
            return Ok(());
        }
        let id = living[self.random.random_range(0..living.len())].clone();
        let purge = self.random.random_bool(0.2);
        let wanted = if purge { None } else { Some(name.clone()) };
        if let Some(known) = self.streams.get_mut(&id) {
            known.pending = Some(wanted.clone());
        }
        match purge {
            true => {
                self.call(Method::DELETE, &format!("{STREAMS}/{id}?purge=true"), None)
                    .await?
            }
            false => {
                self.call(Method::PATCH, &format!("{STREAMS}/{id}"), Some(json!({"name": name})))
                    .await?
            }
        };
        let known = Known {
            name: wanted,
            pending: None,
        };
        self.streams.insert(id, known);
        Ok(())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let reply = call(self.api, &self.key, method, path, body).await?;
        anyhow::ensure!(reply.status.is_success(), "{}: {}", reply.status, reply.text());
        Ok(reply.json())
    }
}

async fn call(
    api: SocketAddr,
    key: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<client::Reply> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "api")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(body.map_or_else(String::new, |json| json.to_string()).into())?;
    client::exchange(api, request).await
}
