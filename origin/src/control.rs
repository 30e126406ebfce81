//! The control plane: streams, keys, plans and their life, kept in a database and offered over REST. Never on the media
//! path: when it is down, running streams keep running.
//!
//! `lifecycle.rs` decides, `store.rs` remembers.

pub mod addresses;
pub mod api;
pub mod api_webhooks;
pub mod delivery;
pub mod directory;
pub mod events;
pub mod fleet;
pub mod guard;
pub mod health;
pub mod lifecycle;
pub mod metrics;
pub mod model;
pub mod node;
pub mod notice;
mod number;
pub mod recordings;
pub mod secret;
pub mod service;
pub mod sse;
pub mod store;
pub mod viewers;
pub mod webhook;
