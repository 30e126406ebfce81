//! SRT listeners: shared and own ports with one set of limits.
//!
//! A port is one task that answers handshakes and hands out datagrams; a call is one task that owns all its state. A panic
//! or a stall in a call costs that call only.
//!
//! Before this: `srt/port.rs`. After this: `srt/connection.rs`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration, time::Instant};

use tokio::{task::yield_now, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, field, info_span, warn};

use super::{
    Config,
    connection::Connection,
    handshake::{Knock, Listener},
    port::{Heard, Port},
    reject::Reject,
    socket::Socket,
};
use crate::ingest::{Door, Entrance, Line, Transport, admission::Admission, lobby::Lobby};

/// Pause after a failed read of a port.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Takes in encoders, whichever port they call.
pub struct Server {
    pub(super) config: Config,
    pub(super) admission: Arc<Admission>,
    pub(super) door: Arc<dyn Door>,
    pub(super) shutdown: CancellationToken,
    lobby: Arc<Lobby>,
    connections: TaskTracker,
}

impl Server {
    /// `shutdown` ends every call and every listener.
    pub fn new(
        config: Config,
        admission: Arc<Admission>,
        door: Arc<dyn Door>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            lobby: Lobby::new(config.limits.places),
            config,
            admission,
            door,
            shutdown,
            connections: TaskTracker::new(),
        })
    }

    /// Binds a port, for [`Server::listen`].
    pub async fn bind(&self, address: SocketAddr, entrance: Entrance) -> io::Result<Bound> {
        let socket = Socket::bind(address).await?;
        let listener = Listener::new(rand::random(), self.config.offer, Instant::now());
        Ok(Bound(Port::new(socket, listener, entrance)))
    }

    /// Answers encoders until `stop` or the shutdown. Calls end with their port: it is their only way.
    pub async fn listen(self: Arc<Self>, Bound(port): Bound, stop: CancellationToken) {
        loop {
            let heard = tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = stop.cancelled() => break,
                heard = port.hear() => heard,
            };
            match heard {
                Ok(heard) => {
                    self.take(&port, heard);
                    // However many knock: those who are in come between.
                    yield_now().await;
                }
                Err(error) => {
                    warn!(%error, "SRT port can't be read");
                    sleep(READ_PAUSE).await;
                }
            }
        }
        if !self.shutdown.is_cancelled() {
            port.hang_up();
        }
    }

    /// Waits until every call has ended (after shutdown was asked for).
    pub async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    pub(super) fn take(self: &Arc<Self>, port: &Arc<Port>, heard: Heard) {
        self.count(&heard);
        for knock in heard.knocks {
            self.answer(port, knock);
        }
    }

    fn answer(self: &Arc<Self>, port: &Arc<Port>, knock: Knock) {
        let metrics = &self.config.metrics;
        let peer = knock.peer;
        let place = match self.lobby.enter(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                metrics.dropped.with_label_values(&["limit"]).inc();
                metrics.rejected.with_label_values(&[Reject::Overload.as_str()]).inc();
                debug!(%peer, limit = full.as_str(), "call limit reached");
                port.send(&knock.reject(Reject::Overload), peer);
                return;
            }
        };
        // Not there: the same conclusion twice in one batch.
        let Some((registered, inbox)) = port.register(&knock) else {
            return;
        };
        let line = Line {
            entrance: port.entrance.clone(),
            transport: Transport::Srt,
            peer,
            local: port.local(),
        };
        // The key is recorded by admission, once it is known.
        let span = info_span!("srt", %peer, port = line.local.port(), key = field::Empty);
        let connection = Connection::new(self.clone(), port.clone(), registered, inbox, line, place);
        self.connections.spawn(connection.serve(knock).instrument(span));
    }

    fn count(&self, heard: &Heard) {
        let metrics = &self.config.metrics;
        let handshakes = |outcome: &str, count: u64| {
            if count > 0 {
                metrics.handshakes.with_label_values(&[outcome]).inc_by(count);
            }
        };
        handshakes("induction", heard.inductions);
        handshakes("knock", heard.knocks.len() as u64);
        handshakes("rejected", heard.rejected.len() as u64);
        for why in &heard.ignored {
            handshakes(why.as_str(), 1);
        }
        for reject in &heard.rejected {
            metrics.rejected.with_label_values(&[reject.as_str()]).inc();
        }
        for (cause, count) in [("unknown", heard.unknown), ("overrun", heard.overrun)] {
            if count > 0 {
                metrics.dropped.with_label_values(&[cause]).inc_by(count);
            }
        }
    }
}

/// A port that is bound and not listened to yet.
pub struct Bound(Arc<Port>);

impl Bound {
    pub fn local(&self) -> SocketAddr {
        self.0.local()
    }
}

#[cfg(test)]
mod tests;
