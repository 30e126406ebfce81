//! The object store: opened from the configuration, and one way to put an object there so that it is there.
//!
//! Before this: `config/record.rs`. After this: the `object_store` crate; who writes is `upload.rs`, who reads `shelf.rs`.

use std::{collections::BTreeMap, io, path::Path as FilePath, sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    memory::InMemory,
    path::Path,
    prefix::PrefixStore,
};
use weir_shared::{
    config::Secret,
    id::{RecordingName, StreamKey},
};

use super::metrics::Metrics;

/// Longest time for one request to the store; a segment of 64 MB needs 18 Mbit/s for it.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a put that was acknowledged is looked for before it is put again.
const LOOKS: u32 = 3;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why the store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("expected a folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://")]
    Scheme,
    #[error("the folder can't be made: {0}")]
    Folder(#[from] io::Error),
    #[error("{key} is no option of this store")]
    Option { key: String },
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// What is wrong with the store, in the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The store does not let us write.
    NoPermission,
    /// There is no such bucket or folder.
    NoBucket,
    /// The store, or the disk that holds the journal, is full.
    NoSpace,
    /// The store does not answer, or not in time.
    Unreachable,
    /// It took an object and does not have it, or has only a piece of it.
    Torn,
    /// More waits for the store than may wait.
    BacklogFull,
    /// The journal's disk fails.
    JournalFails,
    /// The store says no for a reason that has no name here: the log has it.
    Refused,
}

impl Problem {
    pub const ALL: [Self; 8] = [
        Self::NoPermission,
        Self::NoBucket,
        Self::NoSpace,
        Self::Unreachable,
        Self::Torn,
        Self::BacklogFull,
        Self::JournalFails,
        Self::Refused,
    ];

    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPermission => "no_permission",
            Self::NoBucket => "no_bucket",
            Self::NoSpace => "no_space",
            Self::Unreachable => "unreachable",
            Self::Torn => "torn",
            Self::BacklogFull => "backlog_full",
            Self::JournalFails => "journal_fails",
            Self::Refused => "refused",
        }
    }

    /// For people, with the remedy.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NoPermission => {
                "the object store refuses the recording: give the server's credentials leave to write"
            }
            Self::NoBucket => "the bucket or folder of recordings does not exist: make it, or name another one",
            Self::NoSpace => "there is no space left for the recording: make room",
            Self::Unreachable => "the object store does not answer: the recording waits on the local disk",
            Self::Torn => "the object store loses what it has acknowledged: it is stored again",
            Self::BacklogFull => {
                "too much of recordings waits on the local disk: mend the store, or raise record.backlog"
            }
            Self::JournalFails => "the local disk that holds the recording's journal fails",
            Self::Refused => "the object store refuses the recording: the server's log says why",
        }
    }

    pub fn of_disk(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NoPermission,
            _ => Self::JournalFails,
        }
    }

    pub fn of_store(error: &object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Self::NoPermission,
            E::NotFound { .. } => Self::NoBucket,
            _ => match caused_by_disk(error) {
                Some(disk) => match Self::of_disk(disk) {
                    Self::JournalFails => Self::Unreachable,
                    told => told,
                },
                None if says_full(error) => Self::NoSpace,
                None if matches!(error, E::Generic { .. } | E::JoinError { .. }) => Self::Unreachable,
                None => Self::Refused,
            },
        }
    }
}

/// Whether a store that is reached over HTTP says that it is full: 507, or a quota. The crate has no kind of error for it.
fn says_full(error: &object_store::Error) -> bool {
    const WORDS: [&str; 3] = ["507 Insufficient Storage", "QuotaExceeded", "StorageFull"];
    let told = error.to_string();
    WORDS.iter().any(|word| told.contains(word))
}

fn caused_by_disk(error: &object_store::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(disk) = error.downcast_ref::<io::Error>() {
            return Some(disk);
        }
        cause = error.source();
    }
    None
}

/// Opens the store that `at` names. `options` have the names that the `object_store` crate documents
/// (`aws_region`, `google_service_account`, `azure_storage_account_name` …); what they leave out comes from `AWS_…`,
/// `GOOGLE_…` and `AZURE_…` of the environment.
pub fn open(at: &str, options: &BTreeMap<String, Secret>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    open_with(at, options, true)
}

/// The same for what need not outlive a power cut: a disk is not waited for.
pub fn open_for_now(at: &str, options: &BTreeMap<String, Secret>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    open_with(at, options, false)
}

fn open_with(at: &str, options: &BTreeMap<String, Secret>, fsync: bool) -> Result<Arc<dyn ObjectStore>, OpenError> {
    // The client of stores that are reached over HTTP asks for the process's provider. Fails only if there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (scheme, rest) = at.split_once("://").unwrap_or(("folder", at));
    let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
    // We try again ourselves, and tell of it.
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: REQUEST_TIMEOUT,
    };
    let client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT);
    macro_rules! with_options {
        ($builder:expr, $key:ty) => {{
            let mut builder = $builder;
            for (name, value) in options {
                let key: $key = name.parse().map_err(|_| OpenError::Option { key: name.clone() })?;
                builder = builder.with_config(key, value.reveal());
            }
            builder
        }};
    }
    match scheme {
        "memory" => Ok(Arc::new(InMemory::new())),
        "folder" | "file" => {
            let folder = FilePath::new(rest);
            std::fs::create_dir_all(folder)?;
            let store = LocalFileSystem::new_with_prefix(folder)?;
            Ok(Arc::new(store.with_automatic_cleanup(true).with_fsync(fsync)))
        }
        "s3" => {
            let builder = AmazonS3Builder::from_env()
                .with_client_options(client)
                .with_retry(retry)
                // The store itself checks what arrives.
                .with_checksum_algorithm(Checksum::SHA256);
            let store = with_options!(builder.with_url(at), AmazonS3ConfigKey).build()?;
            Ok(prefixed(store, prefix))
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env()
                .with_client_options(client)
                .with_retry(retry);
            let store = with_options!(builder.with_url(at), GoogleConfigKey).build()?;
            Ok(prefixed(store, prefix))
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env()
                .with_client_options(client)
                .with_retry(retry);
            let store = with_options!(builder.with_url(at), AzureConfigKey).build()?;
            Ok(prefixed(store, prefix))
        }
        _ => Err(OpenError::Scheme),
    }
}

fn prefixed(store: impl ObjectStore, prefix: &str) -> Arc<dyn ObjectStore> {
    match prefix.trim_matches('/') {
        "" => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    }
}

/// `vod/<key>/<recording>`: everything of a recording is below it.
pub fn folder(key: &StreamKey, recording: &RecordingName) -> Path {
    Path::from_iter(["vod", key.as_str(), recording.as_str()])
}

/// An object of a recording by its name there.
pub fn object(key: &StreamKey, recording: &RecordingName, name: &str) -> Path {
    folder(key, recording).parts().chain(Path::from(name).parts()).collect()
}

/// Puts an object and looks whether it is there, whole. One try; whoever calls tries again.
pub async fn put(store: &dyn ObjectStore, at: &Path, bytes: Bytes, metrics: &Metrics) -> Result<(), Problem> {
    let length = bytes.len() as u64;
    let outcome = put_checked(store, at, bytes).await;
    let label = match &outcome {
        Ok(()) => "ok",
        Err(problem) => problem.as_str(),
    };
    metrics.puts.with_label_values(&[label]).inc();
    if outcome.is_ok() {
        metrics.stored_bytes.inc_by(length);
    }
    outcome
}

async fn put_checked(store: &dyn ObjectStore, at: &Path, bytes: Bytes) -> Result<(), Problem> {
    let length = bytes.len() as u64;
    let told = |error: object_store::Error| {
        let problem = Problem::of_store(&error);
        tracing::debug!(%error, problem = problem.as_str(), "an object was not stored");
        problem
    };
    let put = async {
        store.put(at, PutPayload::from_bytes(bytes)).await.map_err(told)?;
        for look in 1..=LOOKS {
            match store.head(at).await {
                Ok(there) if there.size == length => return Ok(()),
                Ok(_) => return Err(Problem::Torn),
                // Some stores need a moment.
                Err(object_store::Error::NotFound { .. }) if look < LOOKS => {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
                Err(object_store::Error::NotFound { .. }) => return Err(Problem::Torn),
                Err(error) => return Err(told(error)),
            }
        }
        Err(Problem::Torn)
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, put).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
        object_store::Error::Generic {
            store: "test",
            source: Box::new(source),
        }
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        use io::ErrorKind as K;
        for (kind, problem) in [
            (K::StorageFull, Problem::NoSpace),
            (K::QuotaExceeded, Problem::NoSpace),
            (K::PermissionDenied, Problem::NoPermission),
            (K::ReadOnlyFilesystem, Problem::NoPermission),
            (K::ConnectionRefused, Problem::Unreachable),
        ] {
            assert_eq!(Problem::of_store(&generic(io::Error::from(kind))), problem, "{kind:?}");
        }
        let missing = object_store::Error::NotFound {
            path: "vod".to_owned(),
            source: "no bucket".into(),
        };
        assert_eq!(Problem::of_store(&missing), Problem::NoBucket);
        assert_eq!(Problem::of_store(&generic(std::fmt::Error)), Problem::Unreachable);
    }
}
