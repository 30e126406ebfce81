//! Which of two feeds is shown: primary or backup. Pure; the time is an argument, and it asks for its next timeout.
//!
//! Both may send all the time. One is *active*; the other waits. The active one is replaced when it is gone or has sent
//! nothing for [`Policy::after`], by the other from a key frame that came after the active one's last word. Afterwards
//! the primary is taken again when it has delivered without a break, or never, by policy.
//!
//! Before this: `live/pipeline.rs`, which reports what comes. After this: the same, which splices.

use std::time::{Duration, Instant};

use crate::ingest::Slot;

/// When feeds are switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Silence of the active feed after which the other one takes over.
    pub after: Duration,
    pub revert: Revert,
    /// How long the primary must have delivered without such a silence before it is taken again.
    pub stable_for: Duration,
}

/// Whether the primary is taken again once it is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revert {
    /// The backup stays until it fails itself.
    Never,
    #[default]
    WhenStable,
}

/// Why a feed became active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The first there is, or the first after a time without any.
    OnlyOne,
    /// The other one fell silent or went away.
    Failover,
    /// The primary is stable again.
    Revert,
}

impl Why {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnlyOne => "only_one",
            Self::Failover => "failover",
            Self::Revert => "revert",
        }
    }
}

/// The two feeds of one input, and which of them is shown.
#[derive(Debug)]
pub struct Failover {
    policy: Policy,
    feeds: [Option<Feed>; 2],
    active: Option<Slot>,
    /// When the last frame that was shown came.
    shown: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Feed {
    heard: Option<Instant>,
    /// Delivers without a break since then.
    steady_since: Instant,
    /// When its newest key frame came.
    key: Option<Instant>,
}

impl Failover {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            feeds: [None; 2],
            active: None,
            shown: None,
        }
    }

    /// A feed is there, in place of the one that this slot may have had: it is shown from a key frame of its own.
    pub fn joined(&mut self, slot: Slot, now: Instant) {
        self.left(slot);
        *self.feed(slot) = Some(Feed {
            heard: None,
            steady_since: now,
            key: None,
        });
    }

    pub fn left(&mut self, slot: Slot) {
        *self.feed(slot) = None;
        if self.active == Some(slot) {
            self.active = None;
        }
    }

    /// A frame of this slot's feed came: of its picture, if it has one. `key`: decoding can begin with it.
    pub fn heard(&mut self, slot: Slot, key: bool, now: Instant) {
        let (after, active) = (self.policy.after, self.active);
        let Some(feed) = self.feed(slot) else { return };
        let last = feed.heard.replace(now);
        if last.is_none_or(|last| now.saturating_duration_since(last) >= after) {
            feed.steady_since = now;
        }
        if key {
            feed.key = Some(now);
        }
        if active == Some(slot) {
            self.shown = Some(now);
        }
    }

    /// A frame of sound came of a feed that should have a picture: it says nothing about whether the feed delivers, but
    /// what was shown goes up to here.
    pub fn sounded(&mut self, slot: Slot, now: Instant) {
        if self.active == Some(slot) {
            self.shown = Some(now);
        }
    }

    /// The feed that is shown.
    pub fn active(&self) -> Option<Slot> {
        self.active
    }

    /// Decides what is to be shown now. `Some`: begin with that feed's first key frame after what was shown last.
    pub fn choose(&mut self, now: Instant) -> Option<(Slot, Why)> {
        let (slot, why) = match self.active {
            None => {
                let usable = Slot::ALL.into_iter().find(|slot| self.can_begin(*slot))?;
                (
                    usable,
                    if self.shown.is_some() {
                        Why::Failover
                    } else {
                        Why::OnlyOne
                    },
                )
            }
            Some(active) if self.is_silent(active, now) && self.can_begin(other(active)) => {
                (other(active), Why::Failover)
            }
            Some(Slot::Backup) if self.may_revert(now) => (Slot::Primary, Why::Revert),
            Some(_) => return None,
        };
        self.active = Some(slot);
        self.shown = Some(now);
        Some((slot, why))
    }

    /// When to ask [`choose`](Self::choose) though nothing came. Once the active feed is silent, only a key frame of the
    /// other changes anything.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let active = self.active?;
        (*self.at(other(active)))?;
        let silent_at = (*self.at(active))?.heard? + self.policy.after;
        (silent_at > now).then_some(silent_at)
    }

    fn is_silent(&self, slot: Slot, now: Instant) -> bool {
        let heard = (*self.at(slot)).and_then(|feed| feed.heard);
        heard.is_none_or(|heard| now.saturating_duration_since(heard) >= self.policy.after)
    }

    /// It has a key frame that came after what was shown, or it is the first to send anything.
    fn can_begin(&self, slot: Slot) -> bool {
        let Some(feed) = self.at(slot) else { return false };
        match self.shown {
            Some(shown) => feed.key.is_some_and(|key| key > shown),
            None => feed.heard.is_some(),
        }
    }

    /// Both are there, so nothing is in a hurry: the switch waits for a key frame that has just come.
    fn may_revert(&self, now: Instant) -> bool {
        let Some(primary) = self.at(Slot::Primary) else {
            return false;
        };
        self.policy.revert == Revert::WhenStable
            && primary.key == Some(now)
            && now.saturating_duration_since(primary.steady_since) >= self.policy.stable_for
    }

    fn at(&self, slot: Slot) -> &Option<Feed> {
        let [primary, backup] = &self.feeds;
        match slot {
            Slot::Primary => primary,
            Slot::Backup => backup,
        }
    }

    fn feed(&mut self, slot: Slot) -> &mut Option<Feed> {
        let [primary, backup] = &mut self.feeds;
        match slot {
            Slot::Primary => primary,
            Slot::Backup => backup,
        }
    }
}

const fn other(slot: Slot) -> Slot {
    match slot {
        Slot::Primary => Slot::Backup,
        Slot::Backup => Slot::Primary,
    }
}

#[cfg(test)]
mod tests;
