//! Memory that answers may take while they come in, all of them together. Pure counting.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Clones share the count.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// What one answer has taken; given back when it is dropped.
pub(super) struct Reserved {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            used: Arc::default(),
            limit,
        }
    }

    pub(super) fn reserve(&self) -> Reserved {
        Reserved {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Reserved {
    /// Takes so many bytes more; `false`: there are not so many left.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before.saturating_add(bytes) <= self.budget.limit
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.reserve(), budget.reserve());
        assert!(one.grow(60) && other.grow(40));
        assert!(!other.grow(1));
        drop(other);
        assert!(one.grow(40));
        drop(one);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
