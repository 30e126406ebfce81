use super::*;
use crate::control::{
    lifecycle::{Slot, State},
    model::{DEFAULT, Settings, Stream},
    secret,
};

fn stream(key: &str) -> Stream {
    Stream {
        id: format!("str_{key}").parse().expect("an id"),
        project: DEFAULT.parse().expect("a name"),
        key: key.parse().expect("a key"),
        state: State::default(),
        settings: Settings::default(),
        credentials: secret::credentials(),
        dvr_cleared: None,
        version: 1,
        created_at: 1,
        updated_at: 1,
    }
}

async fn store_with(key: &str) -> (Store, Stream) {
    let store = Store::open("sqlite::memory:").await.expect("a store");
    let stream = stream(key);
    let mut tx = store.begin().await.expect("a unit of work");
    tx.insert_stream(&stream).await.expect("a new stream");
    tx.commit().await.expect("committed");
    (store, stream)
}

#[tokio::test]
async fn work_that_is_not_committed_never_happened() {
    let (store, first) = store_with("first").await;
    let mut changes = store.changes();
    let mut tx = store.begin().await.unwrap();
    tx.insert_stream(&stream("second")).await.unwrap();
    drop(tx);
    assert_eq!(store.count_streams(&first.project).await.unwrap(), 1);
    assert!(changes.try_recv().is_err(), "followers hear of commits only");
}

/// A request that its caller gave up is dropped wherever it waits; the pool then closes the connection.
#[tokio::test]
async fn what_is_in_memory_outlives_callers_who_give_up() {
    let (store, kept) = store_with("show").await;
    for polls in 0..40 {
        let mut asking = Box::pin(store.stream_by_key(&kept.key));
        for _ in 0..polls {
            if futures_util::poll!(&mut asking).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(asking);
        let read = store.stream_by_key(&kept.key).await.expect("an answer");
        assert_eq!(read.as_ref(), Some(&kept), "given up after {polls} looks");
    }
}

#[tokio::test]
async fn a_write_from_an_older_reading_is_refused() {
    let (store, mut mine) = store_with("show").await;
    let mut theirs = mine.clone();
    let mut tx = store.begin().await.unwrap();
    tx.update_stream(&mut mine, 2).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let refused = tx.update_stream(&mut theirs, 3).await;
    assert!(matches!(refused, Err(StoreError::Conflict)), "{refused:?}");
}

#[tokio::test]
async fn a_stale_owner_can_write_nothing() {
    let (store, stream) = store_with("show").await;
    let old = store
        .take_lease((&stream.key, Slot::Primary), "paris", Claim::Free, 0, 1_000)
        .await
        .unwrap();
    let refused = store
        .take_lease((&stream.key, Slot::Primary), "tokyo", Claim::Free, 999, 1_000)
        .await;
    assert!(matches!(refused, Err(StoreError::NotOwner)), "{refused:?}");

    let new = store
        .take_lease((&stream.key, Slot::Primary), "tokyo", Claim::Free, 1_000, 1_000)
        .await
        .unwrap();
    assert!(new.generation > old.generation);
    assert_eq!(
        store
            .lease_owner((&stream.key, Slot::Primary), 1_500)
            .await
            .unwrap()
            .as_deref(),
        Some("tokyo")
    );

    let mut tx = store.begin().await.unwrap();
    let refused = tx.update_owned_stream(&old, &mut stream.clone(), 1_600).await;
    assert!(matches!(refused, Err(StoreError::NotOwner)), "{refused:?}");
    drop(tx);
    assert!(store.renew_lease(&old, 1_600, 1_000).await.is_err());
    let mut tx = store.begin().await.unwrap();
    tx.update_owned_stream(&new, &mut stream.clone(), 1_600).await.unwrap();
    tx.commit().await.unwrap();

    // The encoder came back to Paris with the right credentials.
    let again = store
        .take_lease((&stream.key, Slot::Primary), "paris", Claim::TakeOver, 1_700, 1_000)
        .await
        .unwrap();
    assert!(again.generation > new.generation);
    store.release_lease(&again).await.unwrap();
    assert_eq!(
        store.lease_owner((&stream.key, Slot::Primary), 1_700).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn secrets_lie_in_the_database_encrypted() {
    let path = std::env::temp_dir().join(format!("weir-store-{}.key", std::process::id()));
    let vault = Vault::with_own_key_file(&path).expect("a key");
    std::fs::remove_file(&path).expect("it was made");
    let open = Store::open("sqlite::memory:").await.expect("a store");
    let store = open.clone().with_vault(vault);
    let mut kept = stream("show");
    let mut tx = store.begin().await.unwrap();
    tx.insert_stream(&kept).await.unwrap();
    tx.update_stream(&mut kept, 2).await.unwrap();
    tx.commit().await.unwrap();

    let (doc, secrets): (String, String) = sqlx::query_as("SELECT doc, secrets FROM streams")
        .fetch_one(store.reader())
        .await
        .unwrap();
    for secret in [&kept.credentials.password, &kept.credentials.passphrase] {
        assert!(!doc.contains(secret.as_str()) && !secrets.contains(secret.as_str()));
    }
    let read = store.stream_by_key(&kept.key).await.unwrap().expect("the stream");
    assert_eq!(read, kept);
    let locked = open.stream_by_key(&kept.key).await;
    assert!(matches!(locked, Err(StoreError::Locked)), "{locked:?}");

    // Written before there was a key.
    let mut tx = open.begin().await.unwrap();
    let plain = stream("old");
    tx.insert_stream(&plain).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.stream_by_key(&plain.key).await.unwrap(), Some(plain));
}

#[tokio::test]
async fn an_address_that_is_none_is_told_without_repeating_it() {
    for bad in ["", "mysql://u:secret@h/db", "postgres://u:secret@[/db"] {
        let told = Store::open(bad).await.expect_err("refused").to_string();
        assert!(!told.contains("secret"), "{told}");
    }
}
