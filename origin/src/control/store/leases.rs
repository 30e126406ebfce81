//! Fenced leases: at any moment one origin owns a slot (primary, backup) of a stream's publish, and one that lost it can
//! write nothing.
//!
//! Two guards. The generation goes up with every change of owner, so a write that names an old one finds no row: right
//! whatever the clocks say. The expiry only says when an owner that went silent may be replaced; it is compared between
//! machines, so origins of one fleet keep their clocks within a second (NTP).

use sqlx::Row as _;
use weir_shared::id::StreamKey;

use super::{Millis, Store, StoreError, Tx};
use crate::control::lifecycle::Slot;

/// Proof of having been made the owner; worth something only while the store agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub key: StreamKey,
    pub slot: Slot,
    /// The origin's name.
    pub owner: String,
    pub generation: i64,
}

/// How a lease is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Only a stream that nobody owns, or whose owner let its lease run out.
    Free,
    /// From whoever has it: the encoder reconnected here with the right credentials.
    TakeOver,
}

/// Takes a free, expired, own or (`$6 = 1`) foreign lease; the generation always goes up.
const TAKE: &str = "\
    INSERT INTO slot_leases (stream_key, slot, owner, generation, expires_at) VALUES ($1, $2, $3, 1, $4) \
    ON CONFLICT (stream_key, slot) DO UPDATE SET \
        owner = excluded.owner, generation = slot_leases.generation + 1, expires_at = excluded.expires_at \
    WHERE slot_leases.owner = excluded.owner OR slot_leases.expires_at <= $5 OR $6 = 1 \
    RETURNING generation";

/// True only for the newest owner; in a unit of work it also holds the row until the commit.
const CONFIRM: &str = "UPDATE slot_leases SET expires_at = expires_at \
    WHERE stream_key = $1 AND slot = $2 AND owner = $3 AND generation = $4";

impl Store {
    /// [`Tx::take_lease`] in a unit of work of its own.
    pub async fn take_lease(
        &self,
        of: (&StreamKey, Slot),
        owner: &str,
        claim: Claim,
        now: Millis,
        ttl: Millis,
    ) -> Result<Lease, StoreError> {
        let mut tx = self.begin().await?;
        let lease = tx.take_lease(of, owner, claim, now, ttl).await?;
        tx.commit().await?;
        Ok(lease)
    }

    /// Keeps leases for another `ttl` milliseconds from `now`; says which ones are lost.
    pub async fn renew_leases(&self, leases: &[Lease], now: Millis, ttl: Millis) -> Result<Vec<Lease>, StoreError> {
        let mut tx = self.begin().await?;
        let mut lost = Vec::new();
        // Always in the same order: nobody waits in a circle.
        let mut leases: Vec<&Lease> = leases.iter().collect();
        leases.sort_by(|a, b| (&a.key, a.slot).cmp(&(&b.key, b.slot)));
        for lease in leases {
            let renewed = sqlx::query(
                "UPDATE slot_leases SET expires_at = $1 \
                 WHERE stream_key = $2 AND slot = $3 AND owner = $4 AND generation = $5",
            )
            .bind(now.saturating_add(ttl))
            .bind(lease.key.as_str().to_owned())
            .bind(lease.slot.as_str())
            .bind(lease.owner.clone())
            .bind(lease.generation)
            .execute(tx.connection())
            .await?;
            if renewed.rows_affected() == 0 {
                lost.push(lease.clone());
            }
        }
        tx.commit().await?;
        Ok(lost)
    }

    /// Keeps one lease for another `ttl` milliseconds from `now`.
    pub async fn renew_lease(&self, lease: &Lease, now: Millis, ttl: Millis) -> Result<(), StoreError> {
        match self
            .renew_leases(std::slice::from_ref(lease), now, ttl)
            .await?
            .is_empty()
        {
            true => Ok(()),
            false => Err(StoreError::NotOwner),
        }
    }

    /// Gives a lease back, so that another origin need not wait for its end. The row stays: generations never go back.
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        self.renew_lease(lease, 0, 0).await
    }

    /// The owner of a stream's slot, if its lease has not run out.
    pub async fn lease_owner(&self, of: (&StreamKey, Slot), now: Millis) -> Result<Option<String>, StoreError> {
        let owner =
            sqlx::query_scalar("SELECT owner FROM slot_leases WHERE stream_key = $1 AND slot = $2 AND expires_at > $3")
                .bind(of.0.as_str().to_owned())
                .bind(of.1.as_str())
                .bind(now)
                .fetch_optional(self.reader())
                .await?;
        Ok(owner)
    }

    /// Which of these leases are the newest no more.
    pub async fn lost_leases(&self, leases: &[Lease]) -> Result<Vec<Lease>, StoreError> {
        let mut lost = Vec::new();
        for lease in leases {
            let newest: Option<i64> = sqlx::query_scalar(
                "SELECT generation FROM slot_leases WHERE stream_key = $1 AND slot = $2 AND owner = $3",
            )
            .bind(lease.key.as_str().to_owned())
            .bind(lease.slot.as_str())
            .bind(lease.owner.clone())
            .fetch_optional(self.reader())
            .await?;
            if newest.is_none_or(|newest| newest > lease.generation) {
                lost.push(lease.clone());
            }
        }
        Ok(lost)
    }

    /// Streams that are live for everybody, and whose owner let its lease run out before this moment; at most `limit`.
    pub async fn abandoned(&self, before: Millis, limit: u32) -> Result<Vec<StreamKey>, StoreError> {
        let keys: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT s.stream_key FROM slot_leases l JOIN streams s ON s.stream_key = l.stream_key \
             WHERE l.expires_at > 0 AND l.expires_at <= $1 AND s.status = 'LIVE' LIMIT $2",
        )
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(self.reader())
        .await?;
        // A name that this program could not have written is nobody's.
        Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
    }
}

impl Tx {
    /// Makes `owner` the slot's owner for `ttl` milliseconds. [`StoreError::NotOwner`] when another origin has it.
    pub async fn take_lease(
        &mut self,
        (key, slot): (&StreamKey, Slot),
        owner: &str,
        claim: Claim,
        now: Millis,
        ttl: Millis,
    ) -> Result<Lease, StoreError> {
        let row = sqlx::query(TAKE)
            .bind(key.as_str().to_owned())
            .bind(slot.as_str())
            .bind(owner.to_owned())
            .bind(now.saturating_add(ttl))
            .bind(now)
            .bind(i64::from(claim == Claim::TakeOver))
            .fetch_optional(self.connection())
            .await?;
        let generation = row.ok_or(StoreError::NotOwner)?.try_get("generation")?;
        self.note_change(key);
        Ok(Lease {
            key: key.clone(),
            slot,
            owner: owner.to_owned(),
            generation,
        })
    }

    /// Fails unless the lease is still the newest. Until this unit of work is over nobody else can take it.
    pub async fn confirm_lease(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let held = sqlx::query(CONFIRM)
            .bind(lease.key.as_str().to_owned())
            .bind(lease.slot.as_str())
            .bind(lease.owner.clone())
            .bind(lease.generation)
            .execute(self.connection())
            .await?;
        if held.rows_affected() == 0 {
            return Err(StoreError::NotOwner);
        }
        Ok(())
    }
}
