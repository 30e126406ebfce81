//! A store that fails in every way stores fail: nothing that was recorded is lost.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use weir_origin::record::{
    collect::{Entry, digest, part_sum},
    journal::Journal,
    ledger::Line,
    metrics::Metrics,
    recording::{Recording, Settings, Shared},
    register::{Later, NotTold, Register, Told},
    store,
    upload::upload,
};
use weir_shared::{
    hls::{
        name::{MediaObject, ObjectName},
        position::MediaSequence,
    },
    id::{Epoch, RecordingName, RenditionName, StreamKey},
};

const SEGMENTS: u64 = 10_000;

/// Of a hundred puts: how many end in each way.
#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    chance: Mutex<StdRng>,
    faults: [AtomicU64; 6],
    /// Objects that are there and not seen for a number of looks.
    hidden: Mutex<BTreeMap<String, u32>>,
}

impl Faulty {
    fn roll(&self) -> u32 {
        self.chance.lock().random_range(0..100)
    }

    fn count(&self, fault: usize) {
        self.faults[fault].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is there and not seen yet.
    fn hides(&self, at: &Path) -> bool {
        let mut hidden = self.hidden.lock();
        let Some(looks) = hidden.get_mut(at.as_ref()) else {
            return false;
        };
        *looks -= 1;
        if *looks == 0 {
            hidden.remove(at.as_ref());
        }
        true
    }

    fn error(word: &'static str) -> object_store::Error {
        object_store::Error::Generic {
            store: "faulty",
            source: word.into(),
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that fails")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let half = || {
            let whole: Bytes = payload.clone().into();
            PutPayload::from_bytes(whole.slice(..whole.len() / 2))
        };
        match self.roll() {
            0..8 => {
                self.count(0);
                Err(Self::error("500 Internal Server Error"))
            }
            // Nobody ever answers.
            8..9 => {
                self.count(1);
                std::future::pending().await
            }
            9..12 => {
                self.count(2);
                tokio::time::sleep(Duration::from_secs(5)).await;
                self.inner.put_opts(at, payload, options).await
            }
            // Half of it is stored, and that is told, or not.
            12..15 => {
                self.count(3);
                self.inner.put_opts(at, half(), options).await
            }
            15..18 => {
                self.count(4);
                self.inner.put_opts(at, half(), options).await?;
                Err(Self::error("connection reset"))
            }
            // It is said to be stored, and is not there at first, or never.
            18..24 => {
                self.count(5);
                let looks = self.chance.lock().random_range(1..5);
                self.hidden.lock().insert(at.to_string(), looks);
                self.inner.put_opts(at, payload, options).await
            }
            _ => self.inner.put_opts(at, payload, options).await,
        }
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if self.hides(at) {
            return Err(object_store::Error::NotFound {
                path: at.to_string(),
                source: "404 Not Found".into(),
            });
        }
        self.inner.get_opts(at, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A control plane that is not there at first.
#[derive(Default)]
struct Remembering {
    refusals: AtomicU64,
    told: Mutex<Vec<Told>>,
}

impl Register for Remembering {
    fn tell<'a>(&'a self, _: &'a StreamKey, _: &'a RecordingName, told: Told) -> Later<'a, Result2> {
        Box::pin(async move {
            if self.refusals.fetch_add(1, Ordering::Relaxed) % 3 < 2 {
                return Err(NotTold("the database is down".into()));
            }
            self.told.lock().push(told);
            Ok(())
        })
    }
}

type Result2 = std::result::Result<(), NotTold>;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn video() -> RenditionName {
    "video".parse().unwrap()
}

fn bytes_of(msn: u64) -> Bytes {
    format!("segment {msn} {}", "x".repeat((msn % 50) as usize)).into()
}

fn name(object: MediaObject) -> ObjectName {
    ObjectName::Media {
        epoch: Epoch(9),
        rendition: video(),
        object,
    }
}

fn entries(msn: u64) -> Vec<Entry> {
    let bytes = bytes_of(msn);
    let length = bytes.len() as u64;
    let plain = |line| Entry { line, media: None };
    let mut all = Vec::new();
    if msn == 0 {
        let init = Bytes::from_static(b"init section");
        all.push(Entry {
            line: Line::Init {
                rendition: video(),
                epoch: 9,
                index: 0,
                bytes: init.len() as u64,
                sha256: digest(&init),
                target_duration_seconds: 4,
            },
            media: Some((name(MediaObject::Init(0)), init)),
        });
    }
    all.extend([
        plain(Line::Open {
            rendition: video(),
            epoch: 9,
            msn,
            pdt_ms: msn * 2000,
            discontinuity: false,
            new_publisher: false,
            init: 0,
            independent: true,
        }),
        Entry {
            line: Line::Part {
                rendition: video(),
                bytes: length,
                duration_us: 2_000_000,
                sum: part_sum(&bytes),
                key_frame_bytes: None,
            },
            media: Some((name(MediaObject::Segment(MediaSequence(msn))), bytes.clone())),
        },
        plain(Line::Close {
            rendition: video(),
            bytes: length,
            duration_us: 2_000_000,
            sha256: digest(&bytes),
        }),
    ]);
    all
}

/// Pauses between tries pass at once: the clock is turned while everybody waits.
#[tokio::test(start_paused = true)]
async fn ten_thousand_segments_and_every_kind_of_fault_lose_nothing() {
    let folder = Folder(std::env::temp_dir().join(format!("weir-faults-{}", std::process::id())));
    let faulty = Arc::new(Faulty {
        inner: InMemory::new(),
        chance: Mutex::new(StdRng::seed_from_u64(7)),
        faults: Default::default(),
        hidden: Mutex::default(),
    });
    let register = Arc::new(Remembering::default());
    let shared = Arc::new(Shared {
        settings: Settings {
            journal: folder.0.clone(),
            wait: Duration::ZERO,
            split_after: Duration::MAX,
            backlog_bytes: u64::MAX,
            every_broadcast: false,
        },
        store: faulty.clone(),
        register: register.clone(),
        metrics: Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap()),
        puts: Semaphore::new(16),
        thumbnails: None,
        backlog_bytes: AtomicU64::new(0),
    });
    let (key, recording): (StreamKey, RecordingName) = ("show".parse().unwrap(), "r1".parse().unwrap());
    let (mut journal, mut ledger) = Journal::create(&folder.0, &key, &recording, 0).unwrap();
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"avc1.64001f\"\nvideo.m3u8\n";
    let mut lines = vec![Line::Master {
        text: master.to_owned(),
    }];
    journal.note(&lines).unwrap();
    for msn in 0..SEGMENTS {
        let entries = entries(msn);
        journal.append(&entries).unwrap();
        lines.extend(entries.into_iter().map(|entry| entry.line));
    }
    let finish = Line::Finish { failure: None };
    journal.note(std::slice::from_ref(&finish)).unwrap();
    lines.push(finish);
    for line in &lines {
        ledger.apply(line).unwrap();
    }
    let made = Recording::new(journal, ledger, shared.clone());
    upload(made.clone(), shared.clone(), CancellationToken::new()).await;

    for (fault, count) in ["500", "silence", "slow", "torn", "torn and told", "404"]
        .iter()
        .zip(&faulty.faults)
    {
        let count = count.load(Ordering::Relaxed);
        println!("{fault}: {count}");
        assert!(count > 20, "{fault} was hardly tried: {count}");
    }
    for msn in 0..SEGMENTS {
        let name = name(MediaObject::Segment(MediaSequence(msn))).to_string();
        let there = faulty.inner.get(&store::object(&key, &recording, &name)).await.unwrap();
        assert_eq!(there.bytes().await.unwrap(), bytes_of(msn), "{name}");
    }
    let playlist = store::object(&key, &recording, "video.m3u8");
    let playlist = faulty.inner.get(&playlist).await.unwrap().bytes().await.unwrap();
    let playlist = std::str::from_utf8(&playlist).unwrap();
    assert_eq!(playlist.matches(".m4s\n").count() as u64, SEGMENTS);
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n") && !playlist.contains("GAP"));
    let told = register.told.lock().clone();
    let total: u64 = (0..SEGMENTS).map(|msn| bytes_of(msn).len() as u64).sum();
    assert_eq!(told.first(), Some(&Told::Started { at_ms: 0 }));
    let completed = Told::Completed {
        duration: Duration::from_secs(SEGMENTS * 2),
        bytes: total,
    };
    assert_eq!(told.last(), Some(&completed));
    // An object that the store refused for a minute may have been told of, once.
    assert!(told.len() <= 3, "{told:?}");
    // Nothing is left to do.
    assert_eq!(shared.backlog_bytes.load(Ordering::Acquire), 0);
    assert!(Journal::list(&folder.0).unwrap().is_empty());
}
