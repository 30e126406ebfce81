//! The only wait of a request: until a watched value is good enough, or the deadline.
//!
//! Before it on the data path: a parsed request ([`Reload`](crate::hls::reload::Reload)) and the snapshots of a window
//! or a followed rendition. After it: the answer. Whether a snapshot is good enough is decided by pure code
//! ([`answer`](crate::hls::position::answer)); how one writer wakes many waiters is known here alone.

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held<R> {
    /// The predicate gave this.
    Ready(R),
    /// The deadline passed first.
    TimedOut,
    /// The writer is gone and its last value was not good enough.
    Gone,
}

/// Waits until `ready` yields a value for the newest snapshot, or the deadline passes, or the writer is gone.
///
/// The present value is looked at first, so a deadline in the past still answers what is there. Snapshots that are
/// replaced before this task runs are not seen: `ready` must accept any later state, too. `ready` runs inside the
/// watch's read lock: it takes what it needs (a clone of an `Arc`) and returns; nothing is borrowed across the wait.
/// Dropping the future abandons the wait and nothing else.
pub async fn hold<T, R>(
    watch: &mut watch::Receiver<T>,
    deadline: Instant,
    mut ready: impl FnMut(&T) -> Option<R>,
) -> Held<R> {
    // One timer for the whole wait, however often the value changes.
    let wait = async {
        loop {
            let answer = ready(&watch.borrow_and_update());
            if let Some(answer) = answer {
                return Held::Ready(answer);
            }
            if watch.changed().await.is_err() {
                return Held::Gone;
            }
        }
    };
    timeout_at(deadline, wait).await.unwrap_or(Held::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    fn at_least(wanted: u32) -> impl FnMut(&Arc<u32>) -> Option<u32> {
        move |value| (**value >= wanted).then_some(**value)
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_answered_at_once_even_after_the_deadline() {
        let (_writer, mut reader) = watch::channel(Arc::new(7));
        let past = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(hold(&mut reader, past, at_least(7)).await, Held::Ready(7));
        assert_eq!(hold(&mut reader, past, at_least(8)).await, Held::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn values_that_are_not_enough_neither_release_nor_prolong_the_wait() {
        let (writer, mut reader) = watch::channel(Arc::new(0));
        let begin = Instant::now();
        let waiter = tokio::spawn(async move {
            let held = hold(&mut reader, begin + Duration::from_millis(3100), at_least(100)).await;
            (held, begin.elapsed().as_millis())
        });
        for value in 1..=20 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            writer.send_replace(Arc::new(value));
        }
        let (held, waited_ms) = waiter.await.unwrap();
        assert_eq!(held, Held::TimedOut);
        assert!((3100..=3101).contains(&waited_ms), "{waited_ms}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_the_wait_to_the_millisecond() {
        let (_writer, mut reader) = watch::channel(Arc::new(0));
        let begin = Instant::now();
        assert_eq!(hold(&mut reader, seconds(12), at_least(1)).await, Held::TimedOut);
        let waited = begin.elapsed();
        assert!(
            waited >= Duration::from_secs(12) && waited < Duration::from_millis(12_002),
            "{waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_value_of_a_writer_that_left_still_counts() {
        let (writer, mut reader) = watch::channel(Arc::new(0));
        let mut other = reader.clone();
        let released = tokio::spawn(async move { hold(&mut reader, seconds(60), at_least(1)).await });
        let forsaken = tokio::spawn(async move { hold(&mut other, seconds(60), at_least(2)).await });
        tokio::task::yield_now().await;
        writer.send_replace(Arc::new(1));
        drop(writer);
        assert_eq!(released.await.unwrap(), Held::Ready(1));
        assert_eq!(forsaken.await.unwrap(), Held::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn one_send_releases_a_thousand_waiters() {
        let (writer, reader) = watch::channel(Arc::new(0));
        let mut waiters = JoinSet::new();
        for _ in 0..1000 {
            let mut reader = reader.clone();
            waiters.spawn(async move { hold(&mut reader, seconds(12), at_least(1)).await });
        }
        tokio::task::yield_now().await;
        let begin = Instant::now();
        writer.send_replace(Arc::new(1));
        let answers = waiters.join_all().await;
        assert_eq!(answers, vec![Held::Ready(1); 1000]);
        assert_eq!(begin.elapsed(), Duration::ZERO, "nobody waited for a timer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_away_holds_up_nobody() {
        let (writer, reader) = watch::channel(Arc::new(0));
        let (mut leaving, mut staying) = (reader.clone(), reader);
        let left = tokio::spawn(async move { hold(&mut leaving, seconds(60), at_least(1)).await });
        let stayed = tokio::spawn(async move { hold(&mut staying, seconds(60), at_least(1)).await });
        tokio::task::yield_now().await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        writer.send_replace(Arc::new(1));
        assert_eq!(stayed.await.unwrap(), Held::Ready(1));
    }
}
