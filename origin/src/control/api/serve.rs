//! The API's own listener.
//!
//! Apart from the port that edges ask because its answers hold secrets and its requests have bodies: an operator binds
//! and firewalls the two differently, and a flood on one leaves the other alone.
//!
//! After this: `api.rs`.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use prometheus::IntGauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use weir_shared::serve::drain::Drain;

use crate::control::metrics::ControlMetrics;

/// Connections open at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// Time for a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of a request, and calls at once on one HTTP/2 connection.
const HEADERS: usize = 64;
const H2_CALLS: u32 = 64;
const H2_HEADER_BYTES: u32 = 16 * 1024;
/// Largest head of an HTTP/1.1 request; beyond it HTTP itself answers 431.
const H1_HEAD_BYTES: usize = 64 * 1024;
/// Pause after the system refused to accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until draining begins; calls under way are answered.
pub async fn serve(listener: TcpListener, router: Router, metrics: ControlMetrics, drain: Drain) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = tokio::select! {
            () = drain.draining() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            () = drain.draining() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, drain) = (router.clone(), drain.clone());
                let held = (slot, drain.connection(), Open::new(metrics.connections.clone()));
                tokio::spawn(async move {
                    connection(stream, router, drain).await;
                    drop(held);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the API could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Counts a connection as open until it is dropped, however its task ends.
struct Open(IntGauge);

impl Open {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn connection(stream: TcpStream, router: Router, drain: Drain) {
    // Refused only on a socket that is gone already.
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(H1_HEAD_BYTES)
        .max_headers(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_CALLS)
        .max_header_list_size(H2_HEADER_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.draining() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
