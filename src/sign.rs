//! `weir sign`: a signed playback address, made without asking anybody.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use weir_origin::control::{
    store::{Millis, now},
    ticket::{self, Policy},
};
use weir_shared::{config::HumanDuration, id::StreamKey};

pub(crate) const EXAMPLES: &str = "\
Examples:
  WEIR_PLAYBACK_SECRET=… weir sign show --url https://watch.example.com/app/show/index.m3u8 --expires 2h
  weir sign show --expires 10m --allow-ip 203.0.113.0/24 --stream-expires 4h --json

The secret is the stream's own: GET …/streams/<id>/signed-playback shows it.";

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The stream's key, as it stands in playback addresses.
    stream_key: StreamKey,
    /// The stream's playback secret; better in the environment.
    #[arg(long, env = "WEIR_PLAYBACK_SECRET", hide_env_values = true)]
    secret: String,
    /// How long the address opens the stream.
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    expires: HumanDuration,
    /// How long a viewer who got in may stay [default: as long as they like].
    #[arg(long, value_name = "DURATION")]
    stream_expires: Option<HumanDuration>,
    /// The viewer's address, or a range of them.
    #[arg(long, value_name = "ADDRESS")]
    allow_ip: Option<String>,
    /// Let the viewer in while the stream is backstage.
    #[arg(long)]
    preview: bool,
    /// Address to append the ticket to; without it only the query is printed.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Sign {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        println!("{}", self.signed(now())?);
        Ok(())
    }

    fn signed(&self, at: Millis) -> anyhow::Result<String> {
        anyhow::ensure!(
            !self.secret.is_empty(),
            "--secret: expected the stream's playback secret"
        );
        let after = |time: Duration| at.saturating_add(Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX));
        let policy = Policy {
            url_expire: after(self.expires.0),
            stream_expire: self.stream_expires.map(|d| after(d.0)),
            allow_ip: self.allow_ip.clone(),
            preview: self.preview,
        };
        let ticket = ticket::mint(&self.stream_key, self.secret.as_bytes(), &policy)?;
        let query = ticket.query();
        let url = self.url.as_ref().map(|url| {
            let joint = if url.contains('?') { '&' } else { '?' };
            format!("{url}{joint}{query}")
        });
        Ok(match self.json {
            true => {
                json!({"policy": ticket.policy, "signature": ticket.signature, "query": query, "url": url}).to_string()
            }
            false => url.unwrap_or(query),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_ticket_after_what_it_asks_already() {
        let sign = Sign {
            stream_key: "show".parse().unwrap(),
            secret: "s".into(),
            expires: "1h".parse().unwrap(),
            stream_expires: None,
            allow_ip: None,
            preview: false,
            url: Some("https://w/app/show/index.m3u8?x=1".into()),
            json: false,
        };
        let signed = sign.signed(0).unwrap();
        assert!(
            signed.starts_with("https://w/app/show/index.m3u8?x=1&policy=eyJ1cmxfZXhwaXJlIjozNjAwMDAwfQ&signature=")
        );
    }
}
