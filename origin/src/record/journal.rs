//! The journal of one recording on the local disk: a log of lines, and beside it a file for every init section and segment
//! that the object store does not have yet.
//!
//! Media bytes are written before the line that tells of them. So whatever a crash leaves behind, a line in the log means
//! that its bytes are there; bytes without a line were never acknowledged and are cut off.
//!
//! Nothing is forced to the disk: after a power cut the checksums tell what the machine had not written yet.
//!
//! Blocking: called from threads that may wait for a disk.
//!
//! Before this: `collect.rs`. After this: `upload.rs`.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use weir_shared::{
    hls::name::{MediaObject, ObjectName},
    id::{RecordingName, RenditionName, StreamKey},
};

use super::{
    collect::{Entry, digest, part_sum},
    ledger::{BadLine, Ledger, Line, Position, name},
};

/// The log's file name.
const LOG: &str = "log";
/// Characters of a line's checksum.
const SUM: usize = 16;
/// Largest log that is read back, in bytes: a recording of 4 h has about 30 MB.
const LOG_LIMIT: u64 = 1 << 30;

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the recording's journal: {0}")]
    Disk(#[from] io::Error),
    #[error("the recording's journal makes no sense: {0}")]
    Bad(#[from] BadLine),
    #[error("the recording's journal is larger than any recording's")]
    TooLarge,
}

/// Where a recording's files are. Cheap to clone; holds no file open.
#[derive(Debug, Clone)]
pub struct Spool(PathBuf);

impl Spool {
    /// The bytes of an object that waits for the store.
    pub fn read(&self, object: &ObjectName) -> io::Result<Vec<u8>> {
        fs::read(self.path(object))
    }

    /// The store has it.
    pub fn forget(&self, object: &ObjectName) -> io::Result<()> {
        match fs::remove_file(self.path(object)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The recording is finished: nothing of the journal is needed any more.
    pub fn remove(&self) -> io::Result<()> {
        // The log goes last: a crash in between leaves a journal that says that it is done.
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name != LOG) {
                fs::remove_file(path)?;
            }
        }
        fs::remove_file(self.0.join(LOG))?;
        fs::remove_dir(&self.0)?;
        if let Some(of_stream) = self.0.parent() {
            // Another recording of the stream may be there.
            let _ = fs::remove_dir(of_stream);
        }
        Ok(())
    }

    fn path(&self, object: &ObjectName) -> PathBuf {
        // Names of epochs and renditions have no dots and no slashes.
        self.0.join(object.to_string().replace('/', "."))
    }
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    spool: Spool,
    log: File,
    log_bytes: u64,
    /// Segments that parts are added to.
    open: BTreeMap<RenditionName, OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    object: ObjectName,
    file: File,
    bytes: u64,
}

impl Journal {
    /// Begins a recording.
    pub fn create(
        root: &Path,
        key: &StreamKey,
        recording: &RecordingName,
        started_ms: u64,
    ) -> Result<(Self, Ledger), JournalError> {
        let spool = Spool(root.join(key.as_str()).join(recording.as_str()));
        fs::create_dir_all(&spool.0)?;
        let log = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(spool.0.join(LOG))?;
        let mut journal = Self {
            spool,
            log,
            log_bytes: 0,
            open: BTreeMap::new(),
        };
        journal.write_lines(&[Line::Begin {
            key: key.clone(),
            recording: recording.clone(),
            started_ms,
        }])?;
        Ok((journal, Ledger::new(key.clone(), recording.clone(), started_ms)))
    }

    /// Picks up a recording that an earlier process left. What that one had acknowledged is there.
    pub fn reopen(dir: &Path) -> Result<(Self, Ledger), JournalError> {
        let path = dir.join(LOG);
        let mut log = OpenOptions::new().read(true).write(true).open(&path)?;
        if log.metadata()?.len() > LOG_LIMIT {
            return Err(JournalError::TooLarge);
        }
        let text = fs::read(&path)?;
        let (lines, ends) = read_lines(&text);
        let (ledger, good) = Ledger::replay(&lines)?;
        let log_bytes = good
            .checked_sub(1)
            .and_then(|last| ends.get(last))
            .copied()
            .unwrap_or(0);
        log.set_len(log_bytes)?;
        log.seek(SeekFrom::End(0))?;
        let mut journal = Self {
            spool: Spool(dir.to_owned()),
            log,
            log_bytes,
            open: BTreeMap::new(),
        };
        let mut ledger = ledger;
        for line in journal.close_torn(&ledger)? {
            journal.write_lines(std::slice::from_ref(&line))?;
            ledger.apply(&line)?;
        }
        Ok((journal, ledger))
    }

    /// Every recording that has a journal below `root`.
    pub fn list(root: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let streams = match fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            streams => streams?,
        };
        for stream in streams {
            let stream = stream?.path();
            if !stream.is_dir() {
                continue;
            }
            for recording in fs::read_dir(stream)? {
                let recording = recording?.path();
                if recording.join(LOG).is_file() {
                    found.push(recording);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    pub fn spool(&self) -> Spool {
        self.spool.clone()
    }

    /// Writes media, then what is told of it. When this returns, no crash of this process loses it. After an error
    /// nothing of it counts.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut written = self.write_media(entries);
        if written.is_ok() {
            let lines: Vec<Line> = entries.iter().map(|entry| entry.line.clone()).collect();
            written = self.write_lines(&lines);
        }
        if written.is_err() {
            // What no line tells of must not be there when more is added.
            for open in self.open.values_mut() {
                let _ = open.file.set_len(open.bytes);
                let _ = open.file.seek(SeekFrom::End(0));
            }
            let _ = self.log.set_len(self.log_bytes);
            let _ = self.log.seek(SeekFrom::End(0));
            return written;
        }
        for entry in entries {
            match (&entry.line, &entry.media) {
                (Line::Part { rendition, bytes, .. }, _) => {
                    if let Some(open) = self.open.get_mut(rendition) {
                        open.bytes += bytes;
                    }
                }
                (Line::Close { rendition, .. }, _) => {
                    self.open.remove(rendition);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Closes what is open as it is on the disk; gives the lines that say so.
    pub fn seal(&mut self, ledger: &Ledger) -> io::Result<Vec<Line>> {
        self.open.clear();
        self.close_torn(ledger)
    }

    /// Lines without media.
    pub fn note(&mut self, lines: &[Line]) -> io::Result<()> {
        self.write_lines(lines)
    }

    fn write_media(&mut self, entries: &[Entry]) -> io::Result<()> {
        for entry in entries {
            let Some((object, bytes)) = &entry.media else { continue };
            match (&entry.line, object) {
                (Line::Part { rendition, .. }, _) => {
                    let known = self.open.get(rendition).is_some_and(|open| open.object == *object);
                    if !known {
                        let file = File::create(self.spool.path(object))?;
                        let object = object.clone();
                        self.open.insert(rendition.clone(), OpenFile { object, file, bytes: 0 });
                    }
                    if let Some(open) = self.open.get_mut(rendition) {
                        open.file.write_all(bytes)?;
                    }
                }
                _ => {
                    let mut file = File::create(self.spool.path(object))?;
                    file.write_all(bytes)?;
                }
            }
        }
        Ok(())
    }

    fn write_lines(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = String::new();
        for line in lines {
            let json = serde_json::to_string(line)?;
            text.push_str(&part_sum(json.as_bytes()));
            text.push(' ');
            text.push_str(&json);
            text.push('\n');
        }
        self.log.write_all(text.as_bytes())?;
        self.log_bytes += text.len() as u64;
        Ok(())
    }

    /// The lines that close what a crash left open: each segment with as many of its parts as are whole.
    fn close_torn(&self, ledger: &Ledger) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (rendition, at) in ledger.open_segments() {
            lines.extend(self.close_one(ledger, &rendition, at)?);
        }
        Ok(lines)
    }

    fn close_one(&self, ledger: &Ledger, rendition: &RenditionName, at: Position) -> io::Result<Vec<Line>> {
        let take = ledger.renditions.get(rendition).and_then(|of| of.takes.get(&at));
        let parts = take.map(|take| take.parts.as_slice()).unwrap_or_default();
        let object = name(rendition, at.epoch, MediaObject::Segment(at.msn));
        let mut bytes = match self.spool.read(&object) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let mut whole = 0;
        let mut duration_us = 0u64;
        for part in parts {
            let Some(end) = usize::try_from(part.bytes).ok().and_then(|n| n.checked_add(whole)) else {
                break;
            };
            if bytes.get(whole..end).is_none_or(|found| part_sum(found) != part.sum) {
                break;
            }
            whole = end;
            duration_us = duration_us.saturating_add(u64::try_from(part.duration.as_micros()).unwrap_or(u64::MAX));
        }
        bytes.truncate(whole);
        let close = Line::Close {
            rendition: rendition.clone(),
            bytes: whole as u64,
            duration_us,
            sha256: digest(&bytes),
        };
        if whole == 0 {
            let lost = Line::Lost {
                rendition: rendition.clone(),
                epoch: at.epoch.0,
                msn: at.msn.0,
            };
            return Ok(vec![close, lost]);
        }
        let file = OpenOptions::new().write(true).open(self.spool.path(&object))?;
        file.set_len(whole as u64)?;
        file.sync_data()?;
        Ok(vec![close])
    }
}

/// The lines of a log up to the first that is torn, and where each of them ends.
fn read_lines(text: &[u8]) -> (Vec<Line>, Vec<u64>) {
    let (mut lines, mut ends) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(length) = text.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
        let line = text.get(at..at + length).unwrap_or_default();
        let sum = line.get(..SUM).unwrap_or_default();
        let json = line.get(SUM + 1..).unwrap_or_default();
        if part_sum(json).as_bytes() != sum {
            break;
        }
        let Ok(line) = serde_json::from_slice(json) else { break };
        at += length + 1;
        lines.push(line);
        ends.push(at as u64);
    }
    (lines, ends)
}

#[cfg(test)]
mod tests;
