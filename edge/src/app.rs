//! Wiring: starting, reloading and ending an edge.
//!
//! After this: `listen.rs` (sockets) and `generation.rs` (all else).

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_shared::{
    config,
    metrics::Admin,
    serve::{
        door::Door,
        drain::Drain,
        tcp,
        tls::{Certificates, Names},
    },
};

use crate::{
    admit::Progress,
    config::{Config, Https},
    generation::{Generation, Lasting, Public},
    listen::{self, Secure},
    memory,
    metrics::Metrics,
    reload::{self, Watched},
    upstream::threads::Threads,
    viewers::Viewers,
};

/// How often limits and memory are looked after.
const TIDY_INTERVAL: Duration = Duration::from_millis(500);

/// A running edge. End it with [`Edge::shutdown`].
pub struct Edge {
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub admin: SocketAddr,
    controls: Arc<Controls>,
    drain: Drain,
    /// The admin side's own: it answers until the end, and says that this edge is not ready any more.
    admin_drain: Drain,
    tasks: TaskTracker,
    admin_tasks: TaskTracker,
}

/// What can be changed while the edge runs.
struct Controls {
    public: Public,
    door: Door,
    certificates: Option<Certificates>,
    lasting: Lasting,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Edge {
    /// Binds every port, then starts. Nothing runs if a port can't be bound or a certificate can't be read.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let prometheus = prometheus::Registry::new();
        let metrics = Arc::new(Metrics::new(&prometheus)?);
        let limits = config.limits.of_connections(config.max_connections);
        let door = Door::counting(limits, Some(metrics.shed.clone()));
        let http = match &config.http {
            Some(http) => Some(listen::bind(http.listen, "http.listen", None)?),
            None => None,
        };
        let https = match &config.https {
            Some(https) => Some(Secure::bind(https, &door)?),
            None => None,
        };
        let admin = listen::bind(config.admin.listen, "admin.listen", None)?;

        let lasting = Lasting {
            viewers: Arc::new(Viewers::new(metrics.clone())),
            metrics,
            progress: Arc::new(Progress::default()),
            threads: Threads::start().context("no threads for what comes from upstream")?,
            stop: CancellationToken::new(),
        };
        let public = Public::new(Generation::new(config, &lasting, None)?);
        let controls = Arc::new(Controls {
            public: public.clone(),
            door: door.clone(),
            certificates: https.as_ref().map(Secure::certificates),
            lasting,
            changing: Mutex::new(()),
        });
        let started = Self {
            http: http.as_ref().map(TcpListener::local_addr).transpose()?,
            https: https.as_ref().map(Secure::addr).transpose()?,
            admin: admin.local_addr()?,
            controls: controls.clone(),
            drain: Drain::new(),
            admin_drain: Drain::new(),
            tasks: TaskTracker::new(),
            admin_tasks: TaskTracker::new(),
        };
        let (tasks, drain) = (&started.tasks, &started.drain);
        if let Some(listener) = http {
            let (door, public, options) = (door.clone(), public.clone(), tcp::Options::default());
            tasks.spawn(tcp::serve_through(door, listener, None, options, public, drain.clone()));
        }
        if let Some(listener) = https {
            listener.serve(tasks, &door, &public, drain)?;
        }
        tasks.close();
        let admin_side = Admin::new(prometheus, drain.clone());
        let (limits, admin_drain) = (tcp::Limits::default(), started.admin_drain.clone());
        started
            .admin_tasks
            .spawn(tcp::serve(admin, None, limits, admin_side, admin_drain));
        let (viewers, stop) = (controls.lasting.viewers.clone(), controls.lasting.stop.clone());
        // Its last word, that nobody watches here any more, is waited for.
        started
            .admin_tasks
            .spawn(viewers.run(move || public.current().directory(), stop));
        started.admin_tasks.close();
        tokio::spawn(controls.clone().follow_certificates());
        tokio::spawn(controls.clone().tidy());
        tracing::info!(http = ?started.http, https = ?started.https, admin = %started.admin, "edge is ready");
        Ok(started)
    }

    /// Puts another configuration to work, whole or not at all. Nobody who is being served notices.
    pub fn reload(&self, config: Config) -> anyhow::Result<()> {
        self.controls.counted(|controls| controls.reload(config))
    }

    /// The same from a file; a fault is told with its line, and the old configuration stays.
    pub fn reload_from(&self, file: &Path) -> anyhow::Result<()> {
        self.controls.counted(|controls| controls.reload(config::load(file)?))
    }

    /// Readiness off, no new connections, held requests answered (with 503 if nothing new comes soon), then closed.
    pub async fn shutdown(self) {
        let times = self.controls.public.current().config.drain.clone();
        self.drain.announce();
        // Who has nobody to serve need not wait for anybody to notice.
        if self.controls.door.connections() > 0 {
            tokio::time::sleep(times.announce.0).await;
        }
        self.drain.start();
        if timeout(times.holds.0, self.tasks.wait()).await.is_err() {
            self.stop().cancel();
            if timeout(times.answers.0, self.tasks.wait()).await.is_err() {
                tracing::warn!("some connections did not end in time");
            }
        }
        self.stop().cancel();
        self.admin_drain.start();
        // Who is reading metrics at this moment gets them, and the directory the last report; neither keeps us for long.
        let _ = timeout(times.answers.0, self.admin_tasks.wait()).await;
    }

    fn stop(&self) -> &CancellationToken {
        &self.controls.lasting.stop
    }
}

/// An edge that is dropped without a shutdown ends at once.
impl Drop for Edge {
    fn drop(&mut self) {
        self.drain.start();
        self.admin_drain.start();
        self.stop().cancel();
    }
}

impl Controls {
    fn counted(&self, change: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let outcome = change(self);
        let result = if outcome.is_ok() { "applied" } else { "refused" };
        self.lasting.metrics.reloads.with_label_values(&[result]).inc();
        outcome
    }

    fn reload(&self, config: Config) -> anyhow::Result<()> {
        let _one_at_a_time = self.changing.lock();
        let before = self.public.current();
        let fixed = before.config.needs_restart(&config);
        anyhow::ensure!(fixed.is_empty(), "takes effect only at a start: {}", fixed.join(", "));
        // All that can fail comes first.
        let names = match &config.https {
            Some(https) => read(https)?,
            None => None,
        };
        let limits = config.limits.of_connections(config.max_connections);
        let next = Generation::new(config, &self.lasting, Some(&before))?;
        if let (Some(shown), Some(names)) = (&self.certificates, names) {
            shown.replace(names);
        }
        self.door.set_limits(limits);
        self.public.replace(next);
        tracing::info!("the new configuration is at work");
        Ok(())
    }

    /// Shows what is in the certificate files as soon as they change; what can't be used is told, and the old stays.
    async fn follow_certificates(self: Arc<Self>) {
        let Some(shown) = self.certificates.clone() else {
            return;
        };
        let files = || {
            let current = self.public.current();
            let files = current.config.https.iter().flat_map(listen::files);
            files.flat_map(|files| [files.certificate, files.key]).collect()
        };
        let mut watched = Watched::new(files());
        while self.sleep(reload::INTERVAL).await {
            watched.look_at(files());
            if !watched.have_changed() {
                continue;
            }
            let current = self.public.current();
            let Some(https) = &current.config.https else { continue };
            // The other half of a pair may be on its way; its arrival is a change, too.
            let changed = self.counted(|_| {
                if let Some(names) = read(https)? {
                    shown.replace(names);
                }
                Ok(())
            });
            match changed {
                Ok(()) => tracing::info!("new connections meet the new certificates"),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the old certificates stay"),
            }
        }
    }

    /// Keeps the limits small and current, and the door shut while memory is short.
    async fn tidy(self: Arc<Self>) {
        let metrics = &self.lasting.metrics;
        while self.sleep(TIDY_INTERVAL).await {
            let current = self.public.current();
            current.limits.tidy();
            for (gauge, value) in [
                (&metrics.connections, self.door.connections()),
                (&metrics.waiting, self.door.waiting()),
                (&metrics.sheets, self.door.tidy_sheets()),
            ] {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
            if let Some(bytes) = memory::resident() {
                metrics.memory.set(i64::try_from(bytes).unwrap_or(i64::MAX));
                self.door.shut(bytes > current.config.limits.memory.0);
            }
        }
    }

    /// False when the edge ends.
    async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.lasting.stop.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// `None`: no files are named, so that the certificate made at the start stays.
fn read(https: &Https) -> anyhow::Result<Option<Names>> {
    match listen::files(https).is_empty() {
        true => Ok(None),
        false => listen::names(https).map(Some).context("https"),
    }
}
