//! Counters of servers, read from their `/metrics`.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

/// Counters of requests that reach an origin; the first one found counts.
pub const ORIGIN_COUNTERS: [&str; 3] = [
    "weir_origin_requests_total",
    "weir_edge_upstream_requests_total",
    "weir_loadtest_origin_requests_total",
];
/// Longest metrics page, in bytes.
const LIMIT: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// The sum of a counter's samples in the text of a metrics page; `None` if there is no such counter.
pub fn sum(text: &str, counter: &str) -> Option<f64> {
    let samples = text.lines().filter(|line| {
        line.strip_prefix(counter)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    let values: Vec<f64> = samples
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// The first of `counters` on the page at `url`.
pub async fn counter(url: &Url, counters: &[&str]) -> anyhow::Result<f64> {
    let text = page(url).await?;
    let found = counters.iter().find_map(|counter| sum(&text, counter));
    found.with_context(|| format!("{url}: none of {} is there", counters.join(", ")))
}

/// A metrics page.
pub async fn page(url: &Url) -> anyhow::Result<String> {
    let exchange = async {
        let host = url.host_str().context("a URL with a host")?;
        let port = url.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await?;
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(driver);
        let request = Request::get(url.path())
            .header("host", format!("{host}:{port}"))
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        anyhow::ensure!(response.status().is_success(), "status {}", response.status());
        let body = Limited::new(response.into_body(), LIMIT)
            .collect()
            .await
            .map_err(|e| anyhow::anyhow!(e))?;
        driver.abort();
        anyhow::Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    let page = timeout(PATIENCE, exchange)
        .await
        .map_err(|_| anyhow::anyhow!("no answer in {PATIENCE:?}"))?;
    page.with_context(|| format!("{url}: metrics can't be read (is it the admin port's /metrics?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_add_up_over_labels_and_names_are_whole() {
        let text = "# HELP a_total x\na_total{s=\"200\"} 3\na_total{s=\"404\"} 4\na_totally 9\nb_total 1e3\n";
        assert_eq!(sum(text, "a_total"), Some(7.0));
        assert_eq!(sum(text, "b_total"), Some(1000.0));
        assert_eq!(sum(text, "c_total"), None);
    }
}
