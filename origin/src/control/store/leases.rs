//! Fenced leases: at any moment one origin owns a stream's publish, and one that lost it can write nothing.
//!
//! Two guards. The generation goes up with every change of owner, so a write that names an old one finds no row: right
//! whatever the clocks say. The expiry only says when an owner that went silent may be replaced; it is compared between
//! machines, so origins of one fleet keep their clocks within a second (NTP).

use std::collections::BTreeSet;

use sqlx::Row as _;
use weir_shared::id::StreamKey;

use super::{Millis, Store, StoreError, Tx};

/// Proof of having been made the owner; worth something only while the store agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub key: StreamKey,
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

/// Takes a free, expired, own or (`$5 = 1`) foreign lease; the generation always goes up.
const TAKE: &str = "\
    INSERT INTO leases (stream_key, owner, generation, expires_at) VALUES ($1, $2, 1, $3) \
    ON CONFLICT (stream_key) DO UPDATE SET \
        owner = excluded.owner, generation = leases.generation + 1, expires_at = excluded.expires_at \
    WHERE leases.owner = excluded.owner OR leases.expires_at <= $4 OR $5 = 1 \
    RETURNING generation";

/// True only for the newest owner; in a unit of work it also holds the row until the commit.
const CONFIRM: &str =
    "UPDATE leases SET expires_at = expires_at WHERE stream_key = $1 AND owner = $2 AND generation = $3";

impl Store {
    /// [`Tx::take_lease`] in a unit of work of its own.
    pub async fn take_lease(
        &self,
        key: &StreamKey,
        owner: &str,
        claim: Claim,
        now: Millis,
        ttl: Millis,
    ) -> Result<Lease, StoreError> {
        let mut tx = self.begin().await?;
        let lease = tx.take_lease(key, owner, claim, now, ttl).await?;
        tx.commit().await?;
        Ok(lease)
    }

    /// Keeps leases for another `ttl` milliseconds from `now`; says which ones are lost.
    pub async fn renew_leases(
        &self,
        leases: &[Lease],
        now: Millis,
        ttl: Millis,
    ) -> Result<BTreeSet<StreamKey>, StoreError> {
        let mut tx = self.begin().await?;
        let mut lost = BTreeSet::new();
        // Always in the same order: nobody waits in a circle.
        let mut leases: Vec<&Lease> = leases.iter().collect();
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        for lease in leases {
            let renewed = sqlx::query(
                "UPDATE leases SET expires_at = $1 WHERE stream_key = $2 AND owner = $3 AND generation = $4",
            )
            .bind(now.saturating_add(ttl))
            .bind(lease.key.as_str().to_owned())
            .bind(lease.owner.clone())
            .bind(lease.generation)
            .execute(tx.connection())
            .await?;
            if renewed.rows_affected() == 0 {
                lost.insert(lease.key.clone());
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

    /// The owner of a stream's publish, if its lease has not run out.
    pub async fn lease_owner(&self, key: &StreamKey, now: Millis) -> Result<Option<String>, StoreError> {
        let owner = sqlx::query_scalar("SELECT owner FROM leases WHERE stream_key = $1 AND expires_at > $2")
            .bind(key.as_str().to_owned())
            .bind(now)
            .fetch_optional(self.reader())
            .await?;
        Ok(owner)
    }
}

impl Tx {
    /// Makes `owner` the stream's owner for `ttl` milliseconds. [`StoreError::NotOwner`] when another origin has it.
    pub async fn take_lease(
        &mut self,
        key: &StreamKey,
        owner: &str,
        claim: Claim,
        now: Millis,
        ttl: Millis,
    ) -> Result<Lease, StoreError> {
        let row = sqlx::query(TAKE)
            .bind(key.as_str().to_owned())
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
            owner: owner.to_owned(),
            generation,
        })
    }

    /// Fails unless the lease is still the newest. Until this unit of work is over nobody else can take it.
    pub async fn confirm_lease(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let held = sqlx::query(CONFIRM)
            .bind(lease.key.as_str().to_owned())
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
