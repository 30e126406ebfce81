//! Serving HTTP: accept loops, TLS, bodies, responses, draining. Every protocol calls one [`Handler::handle`].

pub mod body;
mod cork;
pub mod door;
pub mod drain;
mod exchanges;
pub mod gzip;
mod h1;
pub mod limits;
pub mod pace;
mod pieces;
mod pulse;
pub mod quic;
pub mod respond;
mod resumed;
mod sheets;
pub mod tcp;
pub mod tls;
mod turnstile;

use std::{future::Future, net::SocketAddr};

use http::{Response, request};

use body::Body;

/// HTTP version family, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    H1,
    H2,
    H3,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub addr: SocketAddr,
    pub protocol: Protocol,
    /// Over TLS.
    pub secure: bool,
}

/// From a request's head to a response. Request bodies are not read.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The head comes in a box: each layer would keep room for it otherwise, for every request that is held.
    fn handle(&self, peer: Peer, request: Box<request::Parts>) -> impl Future<Output = Response<Body>> + Send;
}
