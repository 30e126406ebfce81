//! `weir streams …`: streams over the REST API.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use crate::{
    client::{Connection, encoded},
    table::{shown, table},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  weir streams create --name \"Evening show\" --dvr 3600
  weir streams list --status LIVE
  weir streams show str_hGq2P0…
  weir streams rotate str_hGq2P0… --token
  weir streams delete str_hGq2P0… --purge";

#[derive(Debug, Subcommand)]
pub(crate) enum Streams {
    /// Make a stream and print what to push and where to watch.
    Create(Create),
    /// List streams, newest first.
    List(List),
    /// Print a stream.
    Show(One),
    /// Make new push credentials; the publisher that is connected stays.
    Rotate(Rotate),
    /// End the broadcast, if any, and refuse pushes.
    Disable(One),
    /// Let a disabled stream be pushed again.
    Activate(One),
    /// Switch a stream off, or remove it.
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    connection: Connection,
    #[arg(long, default_value = "")]
    name: String,
    /// The stream's public name [default: made up].
    #[arg(long, value_name = "KEY")]
    stream_key: Option<String>,
    /// Keep this many seconds seekable.
    #[arg(long, value_name = "SECONDS")]
    dvr: Option<u32>,
    /// llhls, hls, dash or webrtc. Repeatable [default: llhls].
    #[arg(long = "protocol", value_name = "NAME")]
    protocols: Vec<String>,
    /// Viewers need a signed address.
    #[arg(long)]
    signed: bool,
    /// Broadcasts start unseen, until go-live.
    #[arg(long)]
    backstage: bool,
    /// JSON object to keep with the stream.
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Value>,
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("expected a JSON object, like {\"show\": 7}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    connection: Connection,
    /// Words in name, id, stream key or client user id.
    #[arg(long)]
    q: Option<String>,
    /// IDLE, LIVE or DISABLED.
    #[arg(long)]
    status: Option<String>,
    #[arg(long, default_value_t = 0)]
    skip: u32,
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    #[command(flatten)]
    connection: Connection,
    /// Stream id: str_…
    id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    of: One,
    /// Make a new `?t=` token instead of a new user name and password.
    #[arg(long)]
    token: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    of: One,
    /// Remove it altogether. Recordings stay.
    #[arg(long)]
    purge: bool,
}

impl Streams {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run().await,
            Self::List(list) => list.run().await,
            Self::Show(of) => of.run(Method::GET, "").await,
            Self::Rotate(Rotate { of, token: true }) => of.run(Method::POST, "/regenerate-token").await,
            Self::Rotate(Rotate { of, token: false }) => of.run(Method::POST, "/rotate-push").await,
            Self::Disable(of) => of.run(Method::POST, "/disable").await,
            Self::Activate(of) => of.run(Method::POST, "/activate").await,
            Self::Delete(Delete { of, purge: false }) => of.run(Method::DELETE, "").await,
            Self::Delete(Delete { of, purge: true }) => of.run(Method::DELETE, "?purge=true").await,
        }
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let mut body = Map::new();
        body.insert("name".to_owned(), json!(self.name));
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(field.to_owned(), value);
            }
        };
        set("streamKey", self.stream_key.map(Value::from));
        set("dvrEnabled", self.dvr.map(|_| json!(true)));
        set("dvrDuration", self.dvr.map(Value::from));
        set(
            "protocols",
            Some(json!(self.protocols)).filter(|_| !self.protocols.is_empty()),
        );
        set("signedPlayback", self.signed.then_some(json!(true)));
        set("backstage", self.backstage.then_some(json!(true)));
        set("metadata", self.metadata);
        let stream = self
            .connection
            .call(Method::POST, "/streams", Some(body.into()))
            .await?;
        print!("{}", one(&stream, self.connection.json));
        Ok(())
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let mut path = format!("/streams?skip={}&limit={}", self.skip, self.limit);
        for (name, value) in [("q", &self.q), ("status", &self.status)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        let page = self.connection.call(Method::GET, &path, None).await?;
        if self.connection.json {
            println!("{page}");
            return Ok(());
        }
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows: Vec<_> = items
            .iter()
            .map(|stream| {
                ["id", "status", "streamKey", "createdAt", "name"]
                    .map(|field| cell(&stream[field]))
                    .into()
            })
            .collect();
        print!("{}", table(&["ID", "STATUS", "STREAM KEY", "CREATED", "NAME"], &rows));
        println!("{} of {}", items.len(), page["total"]);
        Ok(())
    }
}

impl One {
    async fn run(self, method: Method, call: &str) -> anyhow::Result<()> {
        let path = format!("/streams/{}{call}", encoded(&self.id));
        let stream = self.connection.call(method, &path, None).await?;
        match (stream.is_null(), self.connection.json) {
            (true, true) => println!("{}", json!({"removed": self.id})),
            (true, false) => println!("removed"),
            (false, json) => print!("{}", one(&stream, json)),
        }
        Ok(())
    }
}

/// A stream: everything for programs, what one needs now for people.
fn one(stream: &Value, as_json: bool) -> String {
    if as_json {
        return format!("{stream}\n");
    }
    let ingest = &stream["ingest"];
    let lines = [
        ("id", &stream["id"]),
        ("name", &stream["name"]),
        ("status", &stream["status"]),
        ("active", &stream["active"]),
        ("push to", &ingest["rtmpUrl"]),
        ("", &ingest["rtmpsUrl"]),
        ("", &ingest["srtUrl"]),
        ("stream key", &stream["streamKey"]),
        ("username", &ingest["username"]),
        ("password", &ingest["password"]),
        ("token", &ingest["token"]),
        ("watch", &stream["playbackUrls"]["player"]),
        ("playlist", &stream["playbackUrls"]["llhls"]),
        ("created", &stream["createdAt"]),
    ];
    lines
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(what, value)| format!("{what:<12}{}\n", cell(value)))
        .collect()
}

fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_to_push_and_where_to_watch() {
        let stream = json!({"id": "str_1", "name": "a\u{7}", "status": "IDLE", "active": true, "streamKey": "k",
            "ingest": {"rtmpUrl": "rtmp://h:1935/app", "rtmpsUrl": null, "password": "p"},
            "playbackUrls": {"player": "https://w/play/k"}});
        let text = one(&stream, false);
        assert!(text.contains("push to     rtmp://h:1935/app\n"), "{text}");
        assert!(
            text.contains("watch       https://w/play/k\n") && !text.contains('\u{7}'),
            "{text}"
        );
    }
}
