//! How long a publish stays admitted: until its stream is removed or disabled, its credentials are replaced (where the
//! policy ends it then), or the time that the webhook gave is up.
//!
//! Before this: `ingest/admission.rs`. After this: `rtmp/connection.rs`, which ends the publish.

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

use super::judge::Proof;
use crate::ingest::{
    Slot,
    catalog::{OnRotate, StreamPolicy},
    webhook::Question,
};

/// How long a publish stays admitted.
#[derive(Debug)]
pub struct Tenure {
    pub(super) news: Option<watch::Receiver<Option<Arc<StreamPolicy>>>>,
    pub(super) slot: Slot,
    /// `None`: the webhook sent it to this stream, whose credentials it never had.
    pub(super) proof: Option<Proof>,
    pub(super) until: Option<Instant>,
    /// What the webhook was asked, to tell it of the end.
    pub(super) asked: Option<Question>,
}

/// Why a running publish is admitted no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Revoked {
    #[error("the stream was removed")]
    Removed,
    #[error("the stream was disabled")]
    Disabled,
    #[error("the credentials were replaced")]
    Rotated,
    #[error("the time that the admission webhook gave is up")]
    Expired,
}

impl Revoked {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Disabled => "disabled",
            Self::Rotated => "rotated",
            Self::Expired => "expired",
        }
    }
}

impl Tenure {
    /// Returns when the publish has to end; perhaps never. Cancel safe.
    pub async fn revoked(&mut self) -> Revoked {
        let until = self.until;
        let expired = async move {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => Revoked::Expired,
            revoked = self.revoked_by_policy() => revoked,
        }
    }

    async fn revoked_by_policy(&mut self) -> Revoked {
        let Some(news) = &mut self.news else {
            return std::future::pending().await;
        };
        loop {
            let revoked = match news.borrow_and_update().as_deref() {
                None => Some(Revoked::Removed),
                Some(policy) => revoked_by(policy, self.slot, self.proof.as_ref()),
            };
            if let Some(revoked) = revoked {
                return revoked;
            }
            if news.changed().await.is_err() {
                return Revoked::Removed;
            }
        }
    }
}

/// What a policy means for a publish that runs already. Pure.
fn revoked_by(policy: &StreamPolicy, slot: Slot, proof: Option<&Proof>) -> Option<Revoked> {
    let rotated = policy.on_rotate == OnRotate::Kick && proof.is_some_and(|proof| !proof.opens(policy, slot));
    if !policy.active {
        Some(Revoked::Disabled)
    } else {
        rotated.then_some(Revoked::Rotated)
    }
}
