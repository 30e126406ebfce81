//! The one long poll that keeps an edge's records fresh.
//!
//! Before this: `directory.rs`, which starts it. After this: `directory/client.rs`.
//!
//! The cursor is learnt first and what is known is asked for then, so nothing falls in between. Another origin, or one
//! that started anew, says that the cursor means nothing to it: then it is the same again.

use std::time::Duration;

use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::time::{Instant, sleep};
use weir_shared::{
    directory::{Cursor, MAX_KEYS},
    retry::Backoff,
};

use super::{Directory, client::Failed};

/// How long an origin may hold a poll back, in seconds.
const WAIT_SECONDS: u64 = 20;
/// Time for an answer beyond that.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between tries while no origin answers.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn run(directory: &Directory) {
    let mut rng = SmallRng::from_rng(&mut rand::rng());
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let connected = &directory.metrics.directory_connected;
    let mut cursor = None;
    loop {
        match step(directory, cursor).await {
            Ok(next) => {
                if connected.get() == 0 {
                    tracing::info!("following the directory");
                }
                connected.set(1);
                backoff.reset();
                cursor = Some(next);
            }
            Err(failure) => {
                if connected.get() == 1 {
                    tracing::warn!(%failure, "the directory does not answer: going on with what is known");
                }
                connected.set(0);
                sleep(backoff.next(&mut rng)).await;
            }
        }
    }
}

/// One answer, taken over. Gives the cursor to go on from.
async fn step(directory: &Directory, cursor: Option<Cursor>) -> Result<Cursor, Failed> {
    let Some(since) = cursor else {
        let page = directory.client.ask("", Instant::now() + PLAIN_TIMEOUT).await?;
        refresh(directory).await?;
        return Ok(page.cursor);
    };
    let deadline = Instant::now() + Duration::from_secs(WAIT_SECONDS) + PLAIN_TIMEOUT;
    let query = format!("since={since}&wait={WAIT_SECONDS}");
    let page = directory.client.ask(&query, deadline).await?;
    let next = page.cursor;
    if page.reset {
        refresh(directory).await?;
    }
    let changes = page.records.len() + page.unknown.len();
    directory.metrics.directory_changes.inc_by(changes as u64);
    directory.apply(page).await;
    directory
        .metrics
        .directory_records
        .set(i64::try_from(directory.records.entry_count()).unwrap_or(i64::MAX));
    Ok(next)
}

/// Asks again for everything that is known.
async fn refresh(directory: &Directory) -> Result<(), Failed> {
    for keys in directory.known().chunks(MAX_KEYS) {
        let query: Vec<_> = keys.iter().map(|key| format!("key={key}")).collect();
        let page = directory
            .client
            .ask(&query.join("&"), Instant::now() + PLAIN_TIMEOUT)
            .await?;
        directory.apply(page).await;
    }
    Ok(())
}
