//! RTMP listeners: shared and own ports, plain and over TLS, all with one set of limits.
//!
//! A connection is one task that owns all its state; a panic or a stall in it costs that connection only.
//!
//! Before this: the broadcaster. After this: `rtmp/connection.rs`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, field, info_span, warn};

use super::{Config, End, connection::Connection};
use crate::ingest::{
    Door, Entrance, Line, Transport,
    admission::Admission,
    counted::Counted,
    lobby::{Lobby, Place},
};

/// Pause after a failed accept: no more file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes in encoders, whichever port they come to.
pub struct Server {
    pub(super) config: Config,
    pub(super) admission: Arc<Admission>,
    pub(super) door: Arc<dyn Door>,
    pub(super) shutdown: CancellationToken,
    lobby: Arc<Lobby>,
    connections: TaskTracker,
}

/// How a port takes its connections.
#[derive(Clone)]
pub enum Wrapping {
    Plain,
    Tls(TlsAcceptor),
}

impl Wrapping {
    pub const fn transport(&self) -> Transport {
        match self {
            Self::Plain => Transport::Rtmp,
            Self::Tls(_) => Transport::Rtmps,
        }
    }
}

impl Server {
    /// `shutdown` ends every connection and every listener.
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

    /// Accepts encoders until `stop` or the shutdown. Connections that came through outlive `stop`: a stream that loses its
    /// port goes on.
    pub async fn listen(
        self: Arc<Self>,
        listener: TcpListener,
        entrance: Entrance,
        wrapping: Wrapping,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.take(socket, peer, &entrance, &wrapping),
                Err(error) => {
                    warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until every connection has ended (after shutdown was asked for).
    pub async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    fn take(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, entrance: &Entrance, wrapping: &Wrapping) {
        let place = match self.lobby.enter(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                self.config.metrics.over_limit.with_label_values(&[full.as_str()]).inc();
                debug!(%peer, limit = full.as_str(), "connection limit reached");
                return;
            }
        };
        let Ok(local) = socket.local_addr() else { return };
        let line = Line {
            entrance: entrance.clone(),
            transport: wrapping.transport(),
            peer,
            local,
        };
        let (server, wrapping) = (self.clone(), wrapping.clone());
        // The key is recorded by admission, once it is known.
        let span = info_span!("rtmp", %peer, port = local.port(), key = field::Empty);
        let connection = async move {
            let _open = Counted::new(&server.config.metrics.connections);
            server.serve(socket, line, wrapping, place).await;
        };
        self.connections.spawn(connection.instrument(span));
    }

    async fn serve(self: Arc<Self>, socket: TcpStream, line: Line, wrapping: Wrapping, place: Place) {
        // Refused only on a socket that is gone already.
        let _ = socket.set_nodelay(true);
        let deadline = Instant::now() + self.config.limits.publish_within;
        match wrapping {
            Wrapping::Plain => Connection::new(self, socket, line, place).serve().await,
            Wrapping::Tls(acceptor) => {
                let evicted = place.evicted().clone();
                let shaken = tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    () = evicted.cancelled() => Err(End::Evicted),
                    shaken = timeout_at(deadline, acceptor.accept(socket)) => match shaken {
                        Ok(shaken) => shaken.map_err(End::Tls),
                        Err(_) => Err(End::PublishTimeout),
                    },
                };
                match shaken {
                    Ok(socket) => Connection::new(self, socket, line, place).serve().await,
                    Err(end) => {
                        debug!(reason = end.as_str(), %end, "connection ended");
                        self.config.metrics.ended.with_label_values(&[end.as_str()]).inc();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
