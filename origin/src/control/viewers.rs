//! How many watch, as the edges of the fleet tell: each edge its own numbers every few seconds, to every origin.
//!
//! Before this: `directory.rs`, which takes the reports. After this: the API's view of a stream, and a metric. An edge that
//! falls silent is forgotten; nothing is written down.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use weir_shared::{directory::ViewersReport, id::StreamKey};

/// Edges heard at once; further ones are not.
const MAX_EDGES: usize = 1024;
/// An edge reports every five seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// The newest report of each edge. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Viewers(Arc<Mutex<HashMap<String, Heard>>>);

#[derive(Debug)]
struct Heard {
    at: Instant,
    streams: HashMap<StreamKey, u32>,
}

impl Viewers {
    /// Takes an edge's numbers in place of its earlier ones. Says how many watch in all.
    pub fn take(&self, report: ViewersReport, now: Instant) -> u64 {
        let mut edges = self.0.lock();
        edges.retain(|_, heard| now.saturating_duration_since(heard.at) < SILENCE);
        if edges.len() < MAX_EDGES || edges.contains_key(&report.node) {
            let streams = report.streams.into_iter().collect();
            edges.insert(report.node, Heard { at: now, streams });
        }
        let counts = edges.values().flat_map(|heard| heard.streams.values());
        counts.map(|count| u64::from(*count)).sum()
    }

    /// Viewers of one stream, on all edges.
    pub fn of(&self, key: &StreamKey, now: Instant) -> u64 {
        let edges = self.0.lock();
        let heard = edges
            .values()
            .filter(|heard| now.saturating_duration_since(heard.at) < SILENCE);
        heard
            .filter_map(|heard| heard.streams.get(key))
            .map(|count| u64::from(*count))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_add_up_and_silent_ones_are_forgotten() {
        let viewers = Viewers::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let key = |text: &str| text.parse::<StreamKey>().unwrap();
        let report = |node: &str, count| ViewersReport {
            node: node.to_owned(),
            streams: vec![(key("show"), count), (key("other"), 1)],
        };
        assert_eq!(viewers.take(report("a", 100), at(0)), 101);
        assert_eq!(viewers.take(report("b", 50), at(1)), 152);
        assert_eq!(
            viewers.take(report("a", 90), at(5)),
            142,
            "in place of what it said before"
        );
        assert_eq!(viewers.of(&key("show"), at(5)), 140);
        assert_eq!(viewers.of(&key("none"), at(5)), 0);
        assert_eq!(viewers.of(&key("show"), at(17)), 90);
        assert_eq!(viewers.of(&key("show"), at(20)), 0);
    }

    #[test]
    fn a_thousand_edges_and_no_more() {
        let viewers = Viewers::default();
        for n in 0..5000 {
            let node = n.to_string();
            let streams = Vec::new();
            viewers.take(ViewersReport { node, streams }, Instant::now());
        }
        assert_eq!(viewers.0.lock().len(), MAX_EDGES);
    }
}
