//! One bounded GET: time, bytes, headers, redirects and encodings all have a limit, whatever the other side says.
//!
//! Before this: `upstream.rs`, which knows whom to ask. After this: an origin, a parent edge or anybody's server.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::{Instant, timeout};
use weir_shared::{hls::outline::Span, serve::gzip};

use super::{Answer, UpstreamError, budget::Budget, jar::Jar};

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections kept to one server.
const IDLE_CONNECTIONS: usize = 256;
/// How long a body may stand still.
const BODY_PAUSE: Duration = Duration::from_secs(5);
/// After so long, a body must have come at this rate on the whole, in bytes a second: less than any media, more than a drip.
const BODY_GRACE: Duration = Duration::from_secs(5);
const BODY_RATE: usize = 1024;
/// Redirects followed for one object.
const MAX_REDIRECTS: usize = 5;
/// Largest head of an answer, in bytes, and most headers in it. What is read of a body at a time is of this size, too: a
/// buffer as large as a part, given back between two parts that stay, would leave a hole as large as a part.
const HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 100;
/// Largest body that is decoded, in bytes: nothing that is encoded was asked for.
const DECODED_BYTES: usize = 4 << 20;
/// Memory set aside for a body before it comes, at most: lengths may be lies.
const FIRST_CAPACITY: usize = 1 << 20;

/// What is asked for, and how.
#[derive(Clone)]
pub(super) struct Ask {
    pub url: Uri,
    pub span: Option<Span>,
    /// Largest body, in bytes.
    pub limit: usize,
    /// Redirects within the same server are followed, cookies kept. `None`: an answer is what was asked for or nothing.
    pub jar: Option<Arc<Jar>>,
    pub authorization: Option<HeaderValue>,
}

/// Connections to everybody upstream.
#[derive(Clone)]
pub(super) struct Client {
    http: HttpClient<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    budget: Budget,
}

impl Client {
    /// Trusts the authorities that browsers trust, or only those of `roots`.
    pub(super) fn new(roots: Option<RootCertStore>, budget: Budget) -> Result<Self, rustls::Error> {
        let roots = roots.unwrap_or_else(|| RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        });
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
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
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            // Shorter than an origin keeps an idle connection: reuse never meets a closing one.
            .pool_idle_timeout(Duration::from_secs(8))
            .pool_timer(TokioTimer::new())
            .http1_read_buf_exact_size(HEAD_BYTES)
            .http1_max_headers(MAX_HEADERS)
            .build(connector);
        Ok(Self { http, budget })
    }

    /// The whole answer. The caller sets the deadline.
    pub(super) async fn get(&self, ask: Ask) -> Result<Answer, UpstreamError> {
        let mut url = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let (head, body) = self.exchange(&ask, &url).await?.into_parts();
            let Some(jar) = &ask.jar else {
                return self.answer(&ask, url, head.status, head.headers, body).await;
            };
            jar.keep(head.headers.get_all(header::SET_COOKIE));
            if !is_redirect(head.status) {
                return self.answer(&ask, url, head.status, head.headers, body).await;
            }
            url = redirected(&url, head.headers.get(header::LOCATION)).ok_or(UpstreamError::Unexpected)?;
        }
        Err(UpstreamError::Unexpected)
    }

    async fn exchange(&self, ask: &Ask, url: &Uri) -> Result<http::Response<Incoming>, UpstreamError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(span) = ask.span.and_then(range) {
            headers.insert(header::RANGE, span);
        }
        if let Some(cookies) = ask.jar.as_ref().and_then(|jar| jar.header()) {
            headers.insert(header::COOKIE, cookies);
        }
        if let Some(authorization) = &ask.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        self.http.request(request).await.map_err(|error| {
            tracing::debug!(%error, "an origin could not be asked");
            match error.is_connect() {
                true => UpstreamError::Unreachable,
                false => UpstreamError::Broken,
            }
        })
    }

    async fn answer(
        &self,
        ask: &Ask,
        url: Uri,
        status: StatusCode,
        headers: HeaderMap,
        mut body: Incoming,
    ) -> Result<Answer, UpstreamError> {
        let received = Instant::now();
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<usize>().ok());
        if announced.is_some_and(|n| n > ask.limit) {
            return Err(UpstreamError::TooLarge);
        }
        let mut reserved = self.budget.reserve();
        let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0).min(FIRST_CAPACITY));
        while let Some(frame) = timeout(BODY_PAUSE, body.frame())
            .await
            .map_err(|_| UpstreamError::Timeout)?
        {
            let frame = frame.map_err(|_| UpstreamError::Broken)?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > ask.limit || !reserved.grow(data.len()) {
                    return Err(UpstreamError::TooLarge);
                }
                bytes.extend_from_slice(data);
                if is_drip(bytes.len(), received.elapsed()) {
                    return Err(UpstreamError::Timeout);
                }
            }
        }
        let body = match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => bytes.freeze(),
            // It was not asked for, and some servers give it all the same.
            Some(b"gzip" | b"x-gzip") => {
                gzip::gunzip(&bytes, ask.limit.min(DECODED_BYTES)).ok_or(UpstreamError::TooLarge)?
            }
            Some(_) => return Err(UpstreamError::Unexpected),
        };
        Ok(Answer {
            status,
            headers,
            body,
            url,
            received,
        })
    }
}

/// Whether a body that has come so far after this time keeps others waiting for nothing.
fn is_drip(bytes: usize, elapsed: Duration) -> bool {
    let seconds = elapsed.saturating_sub(BODY_GRACE).as_secs();
    usize::try_from(seconds).is_ok_and(|seconds| bytes < seconds.saturating_mul(BODY_RATE))
}

fn range(span: Span) -> Option<HeaderValue> {
    let first = span.first;
    let text = match span.length {
        Some(length) => format!("bytes={first}-{}", first.checked_add(length)?.checked_sub(1)?),
        None => format!("bytes={first}-"),
    };
    HeaderValue::try_from(text).ok()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, if it stays with the same server: whoever runs it could otherwise send this edge anywhere.
fn redirected(from: &Uri, location: Option<&HeaderValue>) -> Option<Uri> {
    let from = url::Url::parse(&from.to_string()).ok()?;
    let mut to = from.join(location?.to_str().ok()?).ok()?;
    to.set_fragment(None);
    if to.origin() != from.origin() {
        tracing::warn!("an upstream redirects to another server, which is not followed");
        return None;
    }
    to.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_with_their_server() {
        let from: Uri = "http://origin:8080/live/a.m3u8?x=1".parse().unwrap();
        let to = |location: &'static str| {
            redirected(&from, Some(&HeaderValue::from_static(location))).map(|uri| uri.to_string())
        };
        assert_eq!(to("b.m3u8?y#z").as_deref(), Some("http://origin:8080/live/b.m3u8?y"));
        assert_eq!(to("/c").as_deref(), Some("http://origin:8080/c"));
        assert_eq!(to("http://origin:8080/d").as_deref(), Some("http://origin:8080/d"));
        for away in [
            "http://origin:8081/d",
            "https://origin:8080/",
            "//169.254.169.254/",
            "file:///etc/passwd",
        ] {
            assert_eq!(to(away), None, "{away}");
        }
        assert_eq!(redirected(&from, None), None);
    }

    #[test]
    fn a_drip_is_told_from_a_slow_line() {
        let after = |seconds, bytes| is_drip(bytes, Duration::from_secs(seconds));
        assert!(!after(5, 1), "it may take a moment to begin");
        assert!(after(6, 1023) && !after(6, 1024));
        // Sound of 32 kbit/s, as it is made.
        assert!((0..60).all(|second| !after(second, 4096 * second as usize)));
        assert!(after(u64::MAX, 64 << 20));
    }

    #[test]
    fn ranges_that_make_no_sense_are_not_sent() {
        let text = |first, length| range(Span { first, length }).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(text(5, Some(10)).as_deref(), Some("bytes=5-14"));
        assert_eq!(text(5, None).as_deref(), Some("bytes=5-"));
        assert_eq!(text(0, Some(0)), None);
        assert_eq!(text(u64::MAX, Some(2)), None);
    }
}
