//! Questions to the fleet's directory, over HTTP or HTTPS, to whichever configured origin answers.
//!
//! Before this: `directory.rs` and `directory/follow.rs`. After this: the origin's `control/directory.rs`.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::{Instant, timeout_at};
use weir_shared::directory::{MAX_PAGE_BYTES, PATH, Page, VIEWERS_PATH};

use crate::{auth::fleet::authorization, config};

/// Time to connect to an origin.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections kept to one origin.
const IDLE_CONNECTIONS: usize = 8;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failed {
    #[error("the origin did not answer in time")]
    Timeout,
    #[error("the origin can't be reached, or broke off")]
    Unreachable,
    /// 401: the credential is not the fleet's. 503: the origin's limits, or its database.
    #[error("the origin answered {0}")]
    Refused(StatusCode),
    #[error("the origin's answer can't be read")]
    Unreadable,
}

/// Why the file `directory.ca` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadAuthority {
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("{path}: {source}")]
    Certificate { path: PathBuf, source: rustls::Error },
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the credential can't be sent in a header: it has characters that are not printable ASCII")]
    Credential,
}

/// Asks origins.
pub(super) struct Client {
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    origins: Vec<String>,
    /// The origin that answered last is asked first.
    preferred: AtomicUsize,
    authorization: HeaderValue,
}

impl Client {
    pub(super) fn new(config: &config::Directory) -> Result<Self, BadAuthority> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(config)?)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let authorization = authorization(&config.credential).ok_or(BadAuthority::Credential)?;
        Ok(Self {
            http: HttpClient::builder(TokioExecutor::new())
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                // Shorter than an origin keeps an idle connection: reuse never meets a closing one.
                .pool_idle_timeout(Duration::from_secs(8))
                .pool_timer(TokioTimer::new())
                .build(connector),
            origins: config
                .origins
                .iter()
                .map(|base| base.trim_end_matches('/').to_owned())
                .collect(),
            preferred: AtomicUsize::new(0),
            authorization,
        })
    }

    /// Asks the origins one after another until one answers.
    pub(super) async fn ask_any(&self, query: &str, deadline: Instant) -> Result<Page, Failed> {
        let mut failure = Failed::Unreachable;
        for _ in 0..self.origins.len() {
            match self.ask(query, deadline).await {
                Ok(page) => return Ok(page),
                Err(Failed::Timeout) => return Err(Failed::Timeout),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Asks the preferred origin; if it does not answer, another one is preferred from now on.
    pub(super) async fn ask(&self, query: &str, deadline: Instant) -> Result<Page, Failed> {
        let at = self.preferred.load(Ordering::Relaxed);
        let origin = self.origins.get(at).ok_or(Failed::Unreachable)?;
        let answer = timeout_at(deadline, self.exchange(origin, query)).await;
        let answer = answer.unwrap_or(Err(Failed::Timeout));
        if answer.is_err() {
            let next = (at + 1) % self.origins.len();
            // Unless somebody else has noticed already.
            let _ = self
                .preferred
                .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer
    }

    /// Tells every origin, each of which may be asked. One that can't be told hears the next report.
    pub(super) async fn tell_viewers(&self, report: Bytes, deadline: Instant) {
        for origin in &self.origins {
            match timeout_at(deadline, self.post(origin, VIEWERS_PATH, report.clone())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an origin could not be told of viewers"),
                Err(_) => tracing::debug!("an origin did not take the number of viewers in time"),
            }
        }
    }

    async fn post(&self, origin: &str, path: &str, body: Bytes) -> Result<(), Failed> {
        let request = Request::post(format!("{origin}{path}"))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| Failed::Unreachable)?;
        let response = self.http.request(request).await.map_err(|_| Failed::Unreachable)?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(Failed::Refused(response.status())),
        }
    }

    async fn exchange(&self, origin: &str, query: &str) -> Result<Page, Failed> {
        let uri: Uri = format!("{origin}{PATH}?{query}")
            .parse()
            .map_err(|_| Failed::Unreachable)?;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        request.headers_mut().insert(AUTHORIZATION, self.authorization.clone());
        let response = self.http.request(request).await.map_err(|error| {
            tracing::debug!(%error, "an origin could not be asked about streams");
            Failed::Unreachable
        })?;
        if response.status() != StatusCode::OK {
            return Err(Failed::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_PAGE_BYTES);
        let bytes = body.collect().await.map_err(|_| Failed::Unreadable)?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|_| Failed::Unreadable)
    }
}

/// The authorities that browsers trust, or only the fleet's own.
fn roots(config: &config::Directory) -> Result<RootCertStore, BadAuthority> {
    let Some(path) = &config.ca else {
        return Ok(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        });
    };
    let file = |source| BadAuthority::File {
        path: path.clone(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(file)? {
        let added = roots.add(certificate.map_err(file)?);
        added.map_err(|source| BadAuthority::Certificate {
            path: path.clone(),
            source,
        })?;
    }
    Ok(roots)
}
