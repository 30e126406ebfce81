//! The public listeners: plain HTTP, and TLS over TCP and QUIC on one port number.
//!
//! Before this: `app.rs`. After this: `weir_shared::serve` (sockets), then `handle.rs`.

use std::net::SocketAddr;

use anyhow::Context as _;
use http::HeaderValue;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use weir_shared::serve::{
    Handler,
    door::Door,
    drain::Drain,
    quic,
    tcp::{self, Options},
    tls::{Certificates, Files, Names},
};

use crate::config::Https;

/// How long browsers remember that HTTP/3 is spoken here, in seconds.
const ALT_SVC_SECONDS: u32 = 86_400;
/// With port 0 the system picks a TCP port, whose number may be taken for UDP: how often another pick is tried.
const PORT_PICKS: u32 = 16;

/// Bound sockets under TLS, not serving yet.
pub struct Secure {
    tcp: TcpListener,
    quic: Option<quinn::Endpoint>,
    certificates: Certificates,
    options: Options,
}

impl Secure {
    pub fn bind(https: &Https, door: &Door) -> anyhow::Result<Self> {
        let certificates = Certificates::new(names(https)?);
        let mut picks = match https.listen.port() {
            0 => PORT_PICKS,
            _ => 1,
        };
        let (tcp, quic) = loop {
            let tcp = bind(https.listen, "https.listen", https.congestion.as_deref())?;
            if !https.http3 {
                break (tcp, None);
            }
            picks -= 1;
            match quic::listen(tcp.local_addr()?, certificates.quic()?, &door.limits()) {
                Ok(quic) => break (tcp, Some(quic)),
                Err(quic::QuicError::Socket(_)) if picks > 0 => {}
                Err(error) => return Err(error).context("https.http3"),
            }
        };
        let alt_svc = match &quic {
            Some(_) => {
                let port = https.http3_port.unwrap_or(tcp.local_addr()?.port());
                Some(HeaderValue::try_from(format!("h3=\":{port}\"; ma={ALT_SVC_SECONDS}"))?)
            }
            None => None,
        };
        Ok(Self {
            tcp,
            quic,
            certificates,
            options: Options { alt_svc },
        })
    }

    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// What is shown to clients, to be replaced when the files change.
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    pub fn serve<H: Handler>(self, tasks: &TaskTracker, door: &Door, handler: &H, drain: &Drain) -> anyhow::Result<()> {
        let tls = self.certificates.tcp()?;
        if let Some(quic) = self.quic {
            tasks.spawn(quic::serve(door.clone(), quic, handler.clone(), drain.clone()));
        }
        tasks.spawn(tcp::serve_through(
            door.clone(),
            self.tcp,
            Some(tls),
            self.options,
            handler.clone(),
            drain.clone(),
        ));
        Ok(())
    }
}

/// Reads the certificates of a listener; none named: one for development.
pub fn names(https: &Https) -> anyhow::Result<Names> {
    let names = match files(https).split_first() {
        Some((first, others)) => Names::read(first, others).context("https.certificate")?,
        None => Names::self_signed(&["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?,
    };
    Ok(names)
}

/// The certificate files of a listener, the one that stands in first.
pub fn files(https: &Https) -> Vec<Files> {
    let first = https.certificate.clone().zip(https.key.clone());
    let first = first.map(|(certificate, key)| Files { certificate, key });
    let more = https.certificates.iter().map(|more| Files {
        certificate: more.certificate.clone(),
        key: more.key.clone(),
    });
    first.into_iter().chain(more).collect()
}

/// Says which key of the configuration is at fault.
pub fn bind(at: SocketAddr, key: &str, congestion: Option<&str>) -> anyhow::Result<TcpListener> {
    tcp::listen(at, congestion)
        .with_context(|| format!("{key}: can't listen on {at} (is another program using this port?)"))
}
