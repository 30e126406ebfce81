//! Many viewers on few threads: each thread has one runtime, one receive buffer, one set of first copies.
//!
//! Before this: [`crate::arrival`], [`crate::http`]. Inside: [`crate::viewer`] and [`crate::oracle`]. After this:
//! [`crate::report`], which gets one [`Slice`] per thread and second.

use std::{
    cell::{Cell, RefCell},
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{sync::mpsc, task::LocalSet};
use tokio_util::sync::CancellationToken;

use crate::{
    arrival::{self, Arrival},
    clock,
    http::{Done, Manners, Target, Verify, Wire},
    listing::Shelf,
    moment::Moment,
    oracle::{Common, Oracle},
    tally::Tally,
    ticket,
    viewer::{Output, Pattern, Plan, Viewer},
};

/// Receive buffer of a thread, in bytes: a whole part of a usual bitrate.
const BUFFER_BYTES: usize = 256 * 1024;
/// Slices on their way to the report.
const SLICES: usize = 256;
/// Of the viewers that are judged, every so many asks for the multivariant playlist without gzip.
const PLAIN_ENTRY_EVERY: u32 = 4;
/// Pause before a viewer who left is followed by another one.
const RETURN_PAUSE: Duration = Duration::from_millis(100);

/// Who watches what, and how.
#[derive(Debug, Clone)]
pub struct Audience {
    /// Viewer n watches target n modulo their number.
    pub targets: Vec<Arc<Target>>,
    pub viewers: u32,
    pub threads: u32,
    pub arrival: Arrival,
    /// Mean stay; each who leaves is followed by another.
    pub stay: Option<Duration>,
    /// Viewers in a hundred who behave as Safari; the others as hls.js.
    pub safari_percent: u32,
    pub delta: bool,
    pub switch_every: Option<Duration>,
    pub seek_every: Option<Duration>,
    pub verify: Verify,
    /// Mints each viewer a ticket.
    pub ticket_secret: Option<Arc<str>>,
    /// Tickets are good for so long.
    pub ticket_life: Duration,
}

/// One thread's second.
#[derive(Debug)]
pub struct Slice {
    pub at: Moment,
    pub thread: u32,
    pub tally: Tally,
    pub watching: u64,
    /// Objects the thread met for the first time, since the start.
    pub unique: u64,
}

/// A running audience. Drop or cancel the token to end it.
pub struct Fleet {
    pub slices: mpsc::Receiver<Slice>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Fleet {
    /// Starts the threads. Slices end when `stop` is cancelled and every thread has told its last.
    pub fn start(audience: Audience, stop: CancellationToken) -> std::io::Result<Self> {
        let (told, slices) = mpsc::channel(SLICES);
        let audience = Arc::new(audience);
        let start = clock::now();
        let threads = (0..audience.threads.max(1))
            .map(|index| {
                let (audience, told, stop) = (audience.clone(), told.clone(), stop.clone());
                let name = format!("viewers-{index}");
                thread::Builder::new()
                    .name(name)
                    .spawn(move || run_thread(index, start, audience, told, stop))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { slices, threads })
    }

    /// Waits for the threads once `slices` has ended.
    pub fn join(self) {
        for thread in self.threads {
            // A panic of a thread was printed by its hook; the report goes on without it.
            let _ = thread.join();
        }
    }
}

/// What the viewers of a thread share.
struct Thread {
    audience: Arc<Audience>,
    stop: CancellationToken,
    buffer: RefCell<Vec<u8>>,
    shelf: RefCell<Shelf>,
    common: RefCell<Common>,
    tally: RefCell<Tally>,
    watching: Cell<u64>,
}

fn run_thread(index: u32, start: Moment, audience: Arc<Audience>, told: mpsc::Sender<Slice>, stop: CancellationToken) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a thread of viewers could not start"),
    };
    let thread = Rc::new(Thread {
        audience: audience.clone(),
        stop: stop.clone(),
        buffer: RefCell::new(vec![0; BUFFER_BYTES]),
        shelf: RefCell::default(),
        common: RefCell::default(),
        tally: RefCell::default(),
        watching: Cell::new(0),
    });
    let local = LocalSet::new();
    for n in (index..audience.viewers).step_by(audience.threads.max(1) as usize) {
        let thread = thread.clone();
        local.spawn_local(async move { seat(&thread, n, start).await });
    }
    let slices = tell(index, start, thread.clone(), told, stop);
    local.block_on(&runtime, slices);
}

/// Sends a slice each second, and a last one when the run is over.
async fn tell(index: u32, start: Moment, thread: Rc<Thread>, told: mpsc::Sender<Slice>, stop: CancellationToken) {
    let mut next = start;
    loop {
        next = next.plus(Duration::from_secs(1));
        let over = tokio::select! {
            () = tokio::time::sleep_until(clock::instant(next)) => false,
            () = stop.cancelled() => true,
        };
        if over {
            // Lets each viewer see the end and be judged a last time.
            for _ in 0..100 {
                if thread.watching.get() == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let slice = Slice {
            at: clock::now(),
            thread: index,
            tally: thread.tally.take(),
            watching: thread.watching.get(),
            unique: thread.common.borrow().unique_objects(),
        };
        if told.send(slice).await.is_err() || over {
            return;
        }
    }
}

/// One seat: a viewer comes, watches, leaves, and another takes the seat.
async fn seat(thread: &Thread, n: u32, start: Moment) {
    let audience = &thread.audience;
    let comes = start.plus(audience.arrival.comes(n, audience.viewers));
    let mut rng = SmallRng::seed_from_u64(u64::from(n));
    if comes > clock::now() {
        tokio::select! {
            () = tokio::time::sleep_until(clock::instant(comes)) => {}
            () = thread.stop.cancelled() => return,
        }
    }
    for visit in 0u64.. {
        let leaves = arrival::stays(audience.stay, &mut rng).map(|stay| clock::now().plus(stay));
        thread.watching.set(thread.watching.get() + 1);
        let left = watch(thread, n, (u64::from(n) << 20) | (visit & 0xf_ffff), leaves).await;
        thread.watching.set(thread.watching.get().saturating_sub(1));
        if !left || thread.stop.is_cancelled() {
            return;
        }
        tokio::time::sleep(RETURN_PAUSE).await;
    }
}

/// One visit. Whether the viewer left by the curve (not because the stream or the run was over).
async fn watch(thread: &Thread, n: u32, id: u64, leaves: Option<Moment>) -> bool {
    let audience = &thread.audience;
    let Some(target) = audience.targets.get(n as usize % audience.targets.len().max(1)) else {
        return false;
    };
    let safari = (u64::from(n) * 37) % 100 < u64::from(audience.safari_percent);
    let entry = match &audience.ticket_secret {
        Some(secret) => ticket::ticketed(&target.url, secret, clock::now().plus(audience.ticket_life), id),
        None => target.url.clone(),
    };
    let plan = Plan {
        entry,
        pattern: if safari { Pattern::Safari } else { Pattern::HlsJs },
        delta: audience.delta,
        switch_every: audience.switch_every,
        seek_every: audience.seek_every,
        seed: id,
    };
    let judged = audience.verify.every != 0 && n.is_multiple_of(audience.verify.every);
    let manners = Manners {
        judged,
        plain_entry: judged && (n / audience.verify.every) % PLAIN_ENTRY_EVERY == PLAIN_ENTRY_EVERY - 1,
    };
    let mut wire = Wire::new(target.clone(), manners);
    let mut viewer = Viewer::new(plan, clock::now());
    let mut oracle = Oracle::new(id);
    let mut stopped = pin!(thread.stop.cancelled());
    let far = tokio::time::Instant::now() + Duration::from_secs(86_400);
    let mut sleep = pin!(tokio::time::sleep_until(far));
    let mut armed = Moment(u64::MAX);
    let left = loop {
        take_outputs(thread, &mut viewer, &mut wire, &mut oracle);
        if viewer.is_over() {
            break false;
        }
        // The timer is only ever moved forward; one that is early looks again.
        let due = [viewer.next_timeout(), leaves]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Moment(u64::MAX));
        if due < armed {
            armed = due;
            sleep.as_mut().reset(clock::instant(due));
        }
        let woke = poll_fn(|cx| {
            if let Poll::Ready(done) = wire.poll(cx, &mut thread.buffer.borrow_mut()) {
                return Poll::Ready(Woke::Done(done));
            }
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woke::Stopped);
            }
            sleep.as_mut().poll(cx).map(|()| Woke::Time)
        })
        .await;
        match woke {
            Woke::Done(done) => take_done(thread, &mut viewer, done),
            Woke::Time => {
                armed = Moment(u64::MAX);
                let now = clock::now();
                if leaves.is_some_and(|at| at <= now) {
                    break true;
                }
                viewer.timeout(now);
            }
            Woke::Stopped => break false,
        }
    };
    oracle.finish(&thread.common.borrow(), &mut thread.tally.borrow_mut(), clock::now());
    left
}

enum Woke {
    Done(Done),
    Time,
    Stopped,
}

fn take_done(thread: &Thread, viewer: &mut Viewer, done: Done) {
    let now = clock::now();
    match done.result {
        Ok(response) => {
            let mut tally = thread.tally.borrow_mut();
            tally.counts.bytes += response.media.bytes;
            drop(tally);
            viewer.answer(done.id, &response.as_answer(), &mut thread.shelf.borrow_mut(), now);
        }
        Err(failure) => viewer.fail(done.id, failure, now),
    }
}

fn take_outputs(thread: &Thread, viewer: &mut Viewer, wire: &mut Wire, oracle: &mut Oracle) {
    while let Some(output) = viewer.poll() {
        match output {
            Output::Send { id, path, purpose } => {
                thread.tally.borrow_mut().counts.requests += 1;
                wire.send(id, &path, purpose);
            }
            Output::Cancel(id) => wire.cancel(id),
            Output::Event(event) => {
                let mut common = thread.common.borrow_mut();
                oracle.take(&event, &mut common, &mut thread.tally.borrow_mut(), clock::now());
            }
        }
    }
}
