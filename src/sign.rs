//! `weir sign`: a signed playback address, made without asking anybody.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use weir_origin::control::store::now;
use weir_shared::{
    config::HumanDuration,
    directory::PlaybackSecret,
    id::StreamKey,
    playback::{UnixMillis, policy::Policy, range::AddressRange, ticket},
};

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
    /// How long until the address opens the stream [default: at once].
    #[arg(long, value_name = "DURATION")]
    activates: Option<HumanDuration>,
    /// The viewer's address as the edge sees it, or a range of them.
    #[arg(long, value_name = "ADDRESS")]
    allow_ip: Option<AddressRange>,
    /// The viewer's address as a proxy tells the edge, or a range of them.
    #[arg(long, value_name = "ADDRESS")]
    real_ip: Option<AddressRange>,
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
        println!("{}", self.signed(UnixMillis::try_from(now()).unwrap_or_default())?);
        Ok(())
    }

    fn signed(&self, at: UnixMillis) -> anyhow::Result<String> {
        anyhow::ensure!(
            !self.secret.is_empty(),
            "--secret: expected the stream's playback secret"
        );
        let after =
            |time: Duration| at.saturating_add(UnixMillis::try_from(time.as_millis()).unwrap_or(UnixMillis::MAX));
        let policy = Policy {
            url_expire: after(self.expires.0),
            url_activate: self.activates.map(|d| after(d.0)),
            stream_expire: self.stream_expires.map(|d| after(d.0)),
            allow_ip: self.allow_ip,
            real_ip: self.real_ip,
            preview: self.preview,
        };
        let ticket = ticket::mint(&self.stream_key, &PlaybackSecret::new(&*self.secret), &policy)?;
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
            activates: None,
            allow_ip: None,
            real_ip: None,
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
