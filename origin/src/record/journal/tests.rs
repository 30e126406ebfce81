use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use weir_shared::{hls::position::MediaSequence, id::Epoch};

use super::*;
use crate::record::ledger::Stage;

static NEXT: AtomicU32 = AtomicU32::new(0);

struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("weir-journal-{}-{number}", std::process::id())))
    }

    fn begin(&self) -> (Journal, Ledger) {
        Journal::create(&self.0, &"show".parse().unwrap(), &"r1".parse().unwrap(), 7).unwrap()
    }

    fn dir(&self) -> PathBuf {
        self.0.join("show/r1")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn video() -> RenditionName {
    "video".parse().unwrap()
}

fn segment_name(msn: u64) -> ObjectName {
    name(&video(), Epoch(9), MediaObject::Segment(MediaSequence(msn)))
}

fn init() -> Entry {
    let bytes = Bytes::from_static(b"init");
    Entry {
        line: Line::Init {
            rendition: video(),
            epoch: 9,
            index: 0,
            bytes: 4,
            sha256: digest(&bytes),
            target_duration_seconds: 4,
        },
        media: Some((name(&video(), Epoch(9), MediaObject::Init(0)), bytes)),
    }
}

fn open(msn: u64) -> Entry {
    Entry {
        line: Line::Open {
            rendition: video(),
            epoch: 9,
            msn,
            pdt_ms: 0,
            discontinuity: false,
            new_publisher: false,
            init: 0,
            independent: true,
        },
        media: None,
    }
}

fn part(msn: u64, bytes: &'static str) -> Entry {
    Entry {
        line: Line::Part {
            rendition: video(),
            bytes: bytes.len() as u64,
            duration_us: 200_000,
            sum: part_sum(bytes.as_bytes()),
            key_frame_bytes: None,
        },
        media: Some((segment_name(msn), Bytes::from_static(bytes.as_bytes()))),
    }
}

fn close(bytes: &str) -> Entry {
    Entry {
        line: Line::Close {
            rendition: video(),
            bytes: bytes.len() as u64,
            duration_us: 400_000,
            sha256: digest(bytes.as_bytes()),
        },
        media: None,
    }
}

/// A segment that is complete and one that is not.
fn half_a_recording(root: &Root) {
    let (mut journal, _) = root.begin();
    let whole = [
        init(),
        open(1),
        part(1, "one"),
        part(1, "two"),
        close("onetwo"),
        open(2),
    ];
    journal.append(&whole).unwrap();
    journal.append(&[part(2, "three")]).unwrap();
    journal.append(&[part(2, "four")]).unwrap();
}

fn takes(ledger: &Ledger) -> Vec<(u64, Stage, u64)> {
    let video = ledger.renditions.get(&video());
    let takes = video.into_iter().flat_map(|of| &of.takes);
    takes.map(|(at, take)| (at.msn.0, take.stage, take.bytes)).collect()
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let root = Root::new();
    half_a_recording(&root);
    let (journal, ledger) = Journal::reopen(&root.dir()).unwrap();
    assert_eq!(takes(&ledger), [(1, Stage::Kept, 6), (2, Stage::Kept, 9)]);
    assert_eq!(ledger.duration(), std::time::Duration::from_millis(800));
    assert_eq!(journal.spool().read(&segment_name(2)).unwrap(), b"threefour");
    // It is as good as one that was never interrupted: opened again it is the same.
    drop(journal);
    assert_eq!(Journal::reopen(&root.dir()).unwrap().1, ledger);
    assert_eq!(Journal::list(&root.0).unwrap(), [root.dir()]);
}

#[test]
fn whatever_the_log_is_cut_to_a_recording_is_left_that_agrees_with_its_files() {
    let root = Root::new();
    half_a_recording(&root);
    let log = fs::read(root.dir().join(LOG)).unwrap();
    let files: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(root.dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    let begin = log.iter().position(|b| *b == b'\n').unwrap() + 1;
    for length in begin..log.len() {
        for (path, bytes) in &files {
            fs::write(path, bytes).unwrap();
        }
        fs::write(root.dir().join(LOG), log.get(..length).unwrap()).unwrap();
        let (journal, ledger) = Journal::reopen(&root.dir()).unwrap();
        for (msn, stage, bytes) in takes(&ledger) {
            match stage {
                Stage::Kept => {
                    let file = journal.spool().read(&segment_name(msn)).unwrap();
                    assert_eq!(file.len() as u64, bytes, "log cut to {length}, segment {msn}");
                }
                stage => assert_eq!((stage, bytes), (Stage::Lost, 0), "log cut to {length}"),
            }
        }
    }
}

#[test]
fn a_part_that_reached_the_disk_in_pieces_is_left_out() {
    for cut in 0..4 {
        let root = Root::new();
        half_a_recording(&root);
        let spool = Spool(root.dir());
        let file = OpenOptions::new()
            .write(true)
            .open(spool.path(&segment_name(2)))
            .unwrap();
        file.set_len(5 + cut).unwrap();
        let (_, ledger) = Journal::reopen(&root.dir()).unwrap();
        assert_eq!(takes(&ledger), [(1, Stage::Kept, 6), (2, Stage::Kept, 5)], "{cut}");
        assert_eq!(spool.read(&segment_name(2)).unwrap(), b"three");
    }
    // Not even the first part: the segment is lost, the recording is not.
    let root = Root::new();
    half_a_recording(&root);
    fs::write(Spool(root.dir()).path(&segment_name(2)), b"th").unwrap();
    let (_, ledger) = Journal::reopen(&root.dir()).unwrap();
    assert_eq!(takes(&ledger), [(1, Stage::Kept, 6), (2, Stage::Lost, 0)]);
}

#[test]
fn bytes_without_a_line_were_never_acknowledged() {
    let root = Root::new();
    half_a_recording(&root);
    let spool = Spool(root.dir());
    let mut file = OpenOptions::new()
        .append(true)
        .open(spool.path(&segment_name(2)))
        .unwrap();
    file.write_all(b"torn").unwrap();
    let mut log = OpenOptions::new().append(true).open(root.dir().join(LOG)).unwrap();
    log.write_all(b"0011223344556677 {\"is\":\"part\"").unwrap();
    let (mut journal, ledger) = Journal::reopen(&root.dir()).unwrap();
    assert_eq!(takes(&ledger), [(1, Stage::Kept, 6), (2, Stage::Kept, 9)]);
    assert_eq!(spool.read(&segment_name(2)).unwrap(), b"threefour");
    // And it goes on from there.
    journal.append(&[open(3), part(3, "five"), close("five")]).unwrap();
    drop(journal);
    let (_, ledger) = Journal::reopen(&root.dir()).unwrap();
    assert_eq!(takes(&ledger).last(), Some(&(3, Stage::Kept, 4)));
}

#[test]
fn a_journal_that_is_not_one_is_refused_and_left_alone() {
    let root = Root::new();
    fs::create_dir_all(root.dir()).unwrap();
    for text in ["", "hello\n", "0011223344556677 {}\n"] {
        fs::write(root.dir().join(LOG), text).unwrap();
        assert!(
            matches!(Journal::reopen(&root.dir()), Err(JournalError::Bad(_))),
            "{text:?}"
        );
        assert_eq!(fs::read_to_string(root.dir().join(LOG)).unwrap(), text);
    }
}

#[test]
fn a_finished_journal_leaves_nothing_behind() {
    let root = Root::new();
    half_a_recording(&root);
    let (journal, _) = Journal::reopen(&root.dir()).unwrap();
    journal.spool().forget(&segment_name(1)).unwrap();
    journal.spool().forget(&segment_name(1)).unwrap();
    journal.spool().remove().unwrap();
    assert!(!root.dir().exists());
    assert_eq!(Journal::list(&root.0).unwrap(), Vec::<PathBuf>::new());
}
