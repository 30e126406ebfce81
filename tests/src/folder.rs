//! Folders for tests, gone when the test is.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A path that nobody else uses. Nothing is there, and nobody removes what comes there.
pub fn unused(word: &str) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("weir-test-{word}-{}-{number}", std::process::id()))
}

/// A folder of its own.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(word: &str) -> std::io::Result<Self> {
        let path = unused(word);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
