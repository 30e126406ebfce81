//! A link that loses and delays datagrams, both ways and by a seed: netem for machines without it. It stands between a
//! caller and a listener on UDP.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use socket2::SockRef;
use tokio::{net::UdpSocket, sync::Notify, task::JoinSet, time::sleep_until};

/// Callers that pass through one link.
const CALLERS_MAX: usize = 1024;
/// Asked of the system, which may give less.
const QUEUE_BYTES: usize = 8 << 20;
/// Largest datagram.
const DATAGRAM_BYTES: usize = 2048;

/// What a link does to every datagram, each way.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// Of 1.
    pub loss: f64,
    /// One way.
    pub delay: Duration,
    pub seed: u64,
}

/// A link in operation. Dropping it cuts the link.
pub struct Link {
    /// Where callers call.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

/// Datagrams.
#[derive(Debug, Default)]
pub struct Counts {
    pub passed: AtomicU64,
    pub lost: AtomicU64,
}

/// One direction of one caller.
struct Lane {
    conditions: Conditions,
    random: Mutex<StdRng>,
    queue: Mutex<VecDeque<(Instant, Vec<u8>)>>,
    news: Notify,
    counts: Arc<Counts>,
}

/// A socket on a free port whose queue is as long as libsrt makes its own: what is lost is lost on purpose.
pub async fn roomy_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    SockRef::from(&socket).set_recv_buffer_size(QUEUE_BYTES)?;
    Ok(socket)
}

impl Link {
    /// Leads everybody who calls to `target`.
    pub async fn open(target: SocketAddr, conditions: Conditions) -> io::Result<Self> {
        let socket = Arc::new(roomy_socket().await?);
        let address = socket.local_addr()?;
        let counts = Arc::<Counts>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(socket, target, conditions, counts.clone()));
        Ok(Self {
            address,
            counts,
            _tasks: tasks,
        })
    }

    /// Datagrams that passed, and that were lost.
    pub fn counts(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.counts.passed), of(&self.counts.lost))
    }
}

async fn serve(socket: Arc<UdpSocket>, target: SocketAddr, conditions: Conditions, counts: Arc<Counts>) {
    let mut callers: HashMap<SocketAddr, Arc<Lane>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, caller)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if !callers.contains_key(&caller) && callers.len() < CALLERS_MAX {
            let Ok(upstream) = roomy_socket().await else {
                continue;
            };
            if upstream.connect(target).await.is_err() {
                continue;
            }
            let upstream = Arc::new(upstream);
            let there = Lane::new(conditions, 1, &counts);
            let back = Lane::new(conditions, 2, &counts);
            tasks.spawn(there.clone().deliver(upstream.clone(), None));
            tasks.spawn(back.clone().deliver(socket.clone(), Some(caller)));
            tasks.spawn(listen(upstream, back));
            callers.insert(caller, there);
        }
        if let (Some(lane), Some(datagram)) = (callers.get(&caller), buffer.get(..length)) {
            lane.put(datagram);
        }
    }
}

async fn listen(upstream: Arc<UdpSocket>, back: Arc<Lane>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // An error is the target's port being closed for now.
        if let Ok(length) = upstream.recv(&mut buffer).await
            && let Some(datagram) = buffer.get(..length)
        {
            back.put(datagram);
        }
    }
}

impl Lane {
    fn new(conditions: Conditions, direction: u64, counts: &Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            conditions,
            random: Mutex::new(StdRng::seed_from_u64(conditions.seed * 2 + direction)),
            queue: Mutex::default(),
            news: Notify::new(),
            counts: counts.clone(),
        })
    }

    fn put(&self, datagram: &[u8]) {
        if self.random.lock().random_bool(self.conditions.loss) {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.counts.passed.fetch_add(1, Ordering::Relaxed);
        let due = Instant::now() + self.conditions.delay;
        self.queue.lock().push_back((due, datagram.to_vec()));
        self.news.notify_one();
    }

    async fn deliver(self: Arc<Self>, socket: Arc<UdpSocket>, to: Option<SocketAddr>) {
        loop {
            let first = self.queue.lock().front().map(|(due, _)| *due);
            match first {
                None => self.news.notified().await,
                Some(due) if due > Instant::now() => sleep_until(due.into()).await,
                Some(_) => {
                    let Some((_, datagram)) = self.queue.lock().pop_front() else {
                        continue;
                    };
                    let _ = match to {
                        Some(to) => socket.send_to(&datagram, to).await,
                        None => socket.send(&datagram).await,
                    };
                }
            }
        }
    }
}
