//! `weir keys …`: API keys, over the REST API or, when none is at hand, in the database itself.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use weir_origin::control::{
    model::{ApiKey, Scope},
    secret,
    store::{Store, now},
};

use crate::{
    client::{Connection, encoded},
    table::{shown, table},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  weir keys create --name dashboard --scope streams:read
  weir keys create --name operator --scope admin --database sqlite:weir.db   (no key needed: for when all are lost)
  weir keys list
  weir keys revoke key_hGq2P0…";

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key and print it, this once.
    Create(Create),
    /// List keys, newest first; the keys themselves are kept nowhere.
    List(List),
    /// Revoke a key: it fails at the very next call.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    connection: Connection,
    /// What the key is for.
    #[arg(long)]
    name: String,
    /// streams:read, streams:write, broadcast:start, broadcast:stop, vod:*, webhooks:write or admin. Repeatable.
    #[arg(long = "scope", required = true)]
    scopes: Vec<Scope>,
    #[command(flatten)]
    offline: Offline,
}

/// Without the API.
#[derive(Debug, Args)]
pub(crate) struct Offline {
    /// Write to this database instead of asking the API; the key is then one for all projects.
    #[arg(long, value_name = "URL", env = "WEIR_DATABASE", hide_env_values = true)]
    database: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    offline: Offline,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    connection: Connection,
    /// Key id: key_…
    id: String,
    #[command(flatten)]
    offline: Offline,
}

/// Keys that a list from the database shows.
const LISTED: u32 = 1000;

async fn open(url: &str) -> anyhow::Result<Store> {
    Store::open(url).await.context("--database")
}

fn record(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "project": key.project,
        "scopes": key.scopes,
        "prefix": key.prefix,
        "revokedAt": key.revoked_at,
    })
}

impl Keys {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run().await,
            Self::List(list) => list.run().await,
            Self::Revoke(revoke) => revoke.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> anyhow::Result<()> {
        let made = match &self.offline.database {
            Some(url) => {
                let store = open(url).await?;
                let (key, new) = secret::api_key(None, &self.name, self.scopes, now());
                let mut tx = store.begin().await?;
                tx.insert_key(&new).await?;
                tx.commit().await?;
                store.close().await;
                json!({"key": key, "record": record(&new.record)})
            }
            None => {
                let body = json!({"name": self.name, "scopes": self.scopes});
                self.connection.call(Method::POST, "/keys", Some(body)).await?
            }
        };
        match self.connection.json {
            true => println!("{made}"),
            false => println!(
                "{}\n\nThis is the only time it is shown. Its id is {}.",
                made["key"].as_str().unwrap_or_default(),
                made["record"]["id"].as_str().unwrap_or_default()
            ),
        }
        Ok(())
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let list = match &self.offline.database {
            Some(url) => {
                let store = open(url).await?;
                let keys = store.list_keys(None, LISTED).await?;
                store.close().await;
                json!({"items": keys.iter().map(record).collect::<Vec<_>>()})
            }
            None => self.connection.call(Method::GET, "/keys", None).await?,
        };
        if self.connection.json {
            println!("{list}");
            return Ok(());
        }
        let text = |value: &Value| value.as_str().map_or_else(String::new, shown);
        let row = |key: &Value| {
            let scopes: Vec<_> = key["scopes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let state = if key["revokedAt"].is_null() { "valid" } else { "revoked" };
            vec![
                text(&key["id"]),
                state.to_owned(),
                text(&key["prefix"]),
                scopes.join(" "),
                text(&key["name"]),
            ]
        };
        let rows: Vec<_> = list["items"].as_array().into_iter().flatten().map(row).collect();
        print!("{}", table(&["ID", "STATE", "BEGINS WITH", "SCOPES", "NAME"], &rows));
        Ok(())
    }
}

impl Revoke {
    async fn run(self) -> anyhow::Result<()> {
        match &self.offline.database {
            Some(url) => {
                let store = open(url).await?;
                let mut tx = store.begin().await?;
                anyhow::ensure!(tx.revoke_any_key(&self.id, now()).await?, "there is no such key");
                tx.commit().await?;
                store.close().await;
            }
            None => {
                let path = format!("/keys/{}", encoded(&self.id));
                self.connection.call(Method::DELETE, &path, None).await?;
            }
        }
        match self.connection.json {
            true => println!("{}", json!({"revoked": self.id})),
            false => println!("revoked"),
        }
        Ok(())
    }
}
