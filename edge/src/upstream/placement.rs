//! In which order those who may have a stream are asked. Pure.
//!
//! Before this: the directory's record, the configuration, what answered last (`upstream.rs`). After this: the requests.

use std::sync::Arc;

use weir_shared::directory::Origins;

/// Who may have a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidates<'a> {
    /// Parent edges: asked before any origin.
    pub parents: &'a [Arc<str>],
    /// What the directory says.
    pub record: Option<&'a Origins>,
    /// The configured origins, in their order.
    pub origins: &'a [Arc<str>],
    /// Who gave this stream last.
    pub last: Option<&'a Arc<str>>,
}

/// The order of asking: parents (each stream has its own first one, so that several share the work, and all edges agree
/// on it), whoever gave the stream last, its owner, its backup, the others. Those that are not well come last, in the
/// same order.
pub(super) fn order(key: &str, among: Candidates<'_>, is_well: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
    let mut parents: Vec<_> = among.parents.iter().collect();
    parents.sort_by_key(|parent| std::cmp::Reverse(weight(key, parent)));
    let recorded = among.record.into_iter().flat_map(Origins::in_order).map(trimmed);
    let everybody = parents.into_iter().cloned();
    let everybody = everybody.chain(among.last.cloned()).chain(recorded);
    let (mut well, mut failing) = (Vec::<Arc<str>>::new(), Vec::new());
    for base in everybody.chain(among.origins.iter().cloned()) {
        if well.contains(&base) || failing.contains(&base) {
            continue;
        }
        match is_well(&base) {
            true => well.push(base),
            false => failing.push(base),
        }
    }
    well.append(&mut failing);
    well
}

/// A base address without its last slash.
pub(super) fn trimmed(base: &str) -> Arc<str> {
    base.trim_end_matches('/').into()
}

/// Rendezvous hashing (FNV-1a with a final mix): the same everywhere, whatever the order of the configuration.
fn weight(key: &str, parent: &str) -> u64 {
    let bytes = key.bytes().chain([0]).chain(parent.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| trimmed(&format!("http://{name}/"))).collect()
    }

    #[test]
    fn owner_then_backup_then_the_others_and_the_failing_last() {
        let origins = bases(&["a", "b", "c"]);
        let record = Origins {
            primary: Some("http://c/".to_owned()),
            backup: Some("http://b".to_owned()),
        };
        let among = Candidates {
            parents: &[],
            record: Some(&record),
            origins: &origins,
            last: None,
        };
        assert_eq!(order("show", among, |_| true), bases(&["c", "b", "a"]));
        assert_eq!(order("show", among, |base| base != "http://c"), bases(&["b", "a", "c"]));
        let last = trimmed("http://b");
        let among = Candidates {
            last: Some(&last),
            ..among
        };
        assert_eq!(
            order("show", among, |_| true),
            bases(&["b", "c", "a"]),
            "what worked is kept"
        );
    }

    #[test]
    fn parents_share_the_streams_and_every_edge_agrees() {
        let (one, other) = (bases(&["p", "q", "r"]), bases(&["r", "p", "q"]));
        let first = |parents: &[Arc<str>], key: &str| {
            let among = Candidates {
                parents,
                record: None,
                origins: &bases(&["o"]),
                last: None,
            };
            let order = order(key, among, |_| true);
            assert_eq!(order.len(), 4);
            assert_eq!(order[3], trimmed("http://o"), "origins are the last resort");
            order[0].clone()
        };
        let mut counts = std::collections::HashMap::<_, usize>::new();
        for n in 0..300 {
            let key = format!("stream{n}");
            assert_eq!(first(&one, &key), first(&other, &key));
            *counts.entry(first(&one, &key)).or_default() += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|&n| n > 60), "{counts:?}");
    }
}
