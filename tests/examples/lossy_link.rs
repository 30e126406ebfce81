//! A lossy link on the command line, for encoders and players that are programs of their own.
//!
//! `cargo run -p weir-tests --example lossy_link -- <address of the listener> [loss in percent] [delay in ms] [seed]`
//!
//! Prints the address to call, and runs until it is killed.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use weir_tests::lossy::{Conditions, Link};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut given = std::env::args().skip(1);
    let target: SocketAddr = given.next().context("the listener's address is missing")?.parse()?;
    let mut number = |default: f64| given.next().map_or(Ok(default), |text| text.parse());
    let conditions = Conditions {
        loss: number(5.0)? / 100.0,
        delay: Duration::from_secs_f64(number(20.0)? / 1000.0),
        seed: number(1.0)? as u64,
    };
    let link = Link::open(target, conditions).await?;
    println!("{}", link.address);
    std::future::pending().await
}
