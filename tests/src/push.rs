//! Pushes that get in or don't, and relays that stand between an encoder and an origin.

use std::{net::Ipv4Addr, net::SocketAddr, sync::Arc};

use anyhow::bail;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;
use weir_loadtest::{
    http::AnyCertificate,
    rtmp::{PublishError, Session, session::Status},
};
use weir_origin::{
    app::Origin,
    ingest::catalog::{Credential, Secrets, StreamPolicy, TokenHash},
};
use weir_shared::id::StreamKey;

use crate::site::metric;

/// What the origin says to this push; an error if it lets it in.
pub async fn refused(url: &str, key: &str) -> anyhow::Result<Status> {
    match Session::connect(url, key).await {
        Ok(_) => bail!("{url} {key} was let in"),
        Err(PublishError::Refused(status)) => Ok(status),
        Err(other) => Err(other.into()),
    }
}

/// A well-formed key.
pub fn key(text: &str) -> anyhow::Result<StreamKey> {
    Ok(text.parse()?)
}

/// A stream that wants this token.
pub fn with_token(name: &str, token: &str) -> anyhow::Result<StreamPolicy> {
    Ok(StreamPolicy {
        allow_key_only: false,
        primary: Secrets {
            credential: None,
            tokens: vec![TokenHash::of(token)],
        },
        ..StreamPolicy::open(key(name)?)
    })
}

/// A stream that wants this user name and password.
pub fn with_password(origin: &Origin, name: &str, user: &str, password: &str) -> anyhow::Result<StreamPolicy> {
    let mut policy = with_token(name, "")?;
    policy.primary = Secrets {
        credential: Some(Credential::new(user, password, origin.catalog.salts())),
        tokens: Vec::new(),
    };
    Ok(policy)
}

/// How many publishes the origin has refused for this reason.
pub async fn refusals(origin: &Origin, reason: &str) -> anyhow::Result<f64> {
    let label = format!("reason=\"{reason}\"");
    metric(origin.admin, "weir_origin_admission_refused_total", &label).await
}

/// Passes connections on, from an address of its own: what encoders write into their URL is then not where they arrive.
pub struct Relay {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// To a plain port.
    pub async fn plain(to: SocketAddr) -> anyhow::Result<Self> {
        Self::start(to, None).await
    }

    /// To a TLS port, whose certificate may be anything.
    pub async fn into_tls(to: SocketAddr) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
            .with_no_client_auth();
        Self::start(to, Some(TlsConnector::from(Arc::new(config)))).await
    }

    async fn start(to: SocketAddr, tls: Option<TlsConnector>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let tls = tls.clone();
                // A broken connection breaks the other half too: all that a relay has to say about it.
                tokio::spawn(async move { pass_on(near, to, tls).await.ok() });
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(mut near: TcpStream, to: SocketAddr, tls: Option<TlsConnector>) -> anyhow::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    match tls {
        None => copy_bidirectional(&mut near, &mut far).await?,
        Some(tls) => {
            let mut far = tls.connect(ServerName::try_from("localhost")?, far).await?;
            copy_bidirectional(&mut near, &mut far).await?
        }
    };
    Ok(())
}
