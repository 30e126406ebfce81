//! The command line's side of the REST API: one call, one answer.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Longest wait for a whole answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer, in bytes.
const ANSWER_BYTES: usize = 16 << 20;

/// Which API, and who asks.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// The API of any origin.
    #[arg(long, env = "WEIR_API", default_value = "http://127.0.0.1:8082", value_name = "URL")]
    api: Uri,
    /// API key; better in the environment, where other users of this machine don't see it.
    #[arg(long = "key", env = "WEIR_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// Project that streams and keys belong to.
    #[arg(long, env = "WEIR_PROJECT", default_value = "default", value_name = "NAME")]
    project: String,
    /// Print JSON for programs instead of a table for people.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Connection {
    /// A call below `/v1/projects/<project>`. The API's refusals become errors that say what would be right.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let path = format!("/v1/projects/{}{path}", encoded(&self.project));
        tokio::time::timeout(PATIENCE, self.exchange(method, &path, body))
            .await
            .with_context(|| format!("{}: no answer in {PATIENCE:?}", self.api))?
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        // An empty variable is none.
        let Some(key) = self.api_key.as_ref().filter(|key| !key.is_empty()) else {
            bail!(
                "an API key is needed: --key or WEIR_API_KEY (`weir up` prints the first one, `weir keys create` makes more)"
            );
        };
        let authority = self
            .api
            .authority()
            .context("--api: expected http://host:port or https://host")?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(
                body.map_or_else(Bytes::new, |json| Bytes::from(json.to_string())),
            ))
            .context("the API key or project has characters that HTTP does not carry")?;
        let secure = match self.api.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("--api: expected http://host:port or https://host"),
        };
        let (host, port) = (
            authority.host(),
            authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
        );
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
            .await
            .with_context(|| format!("{}: can't be reached (is `weir up` running?)", self.api))?;
        match secure {
            true => send(tls(host, stream).await?, request).await,
            false => send(stream, request).await,
        }
    }
}

async fn tls(host: &str, stream: TcpStream) -> anyhow::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let mut roots = rustls::RootCertStore::empty();
    // What can't be read is left out; a server that needs it is then refused with its reason.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    Ok(connector.connect(name, stream).await?)
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Value>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await;
    driver.abort();
    let bytes = body
        .map_err(|error| anyhow::anyhow!("the answer can't be read: {error}"))?
        .to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if head.status.is_success() {
        return Ok(json);
    }
    bail!("{}", refusal(head.status, &json));
}

/// A problem document (RFC 9457) in a line.
fn refusal(status: http::StatusCode, problem: &Value) -> String {
    let text = |field: &str| problem[field].as_str().map(str::to_owned);
    match (text("title"), text("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail} ({})", status.as_u16()),
        _ => format!("the API answered {status}"),
    }
}

/// A part of a path or query: everything but letters, digits and `-_.~` percent-encoded (RFC 3986 section 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_would_be_right() {
        let problem = serde_json::json!({"title": "Some values are not right", "detail": "limit: expected 1 to 100"});
        assert_eq!(
            refusal(http::StatusCode::UNPROCESSABLE_ENTITY, &problem),
            "Some values are not right: limit: expected 1 to 100 (422)"
        );
    }

    #[test]
    fn a_word_stays_one_word_in_an_address() {
        assert_eq!(encoded("a b/ü?&"), "a%20b%2F%C3%BC%3F%26");
    }
}
