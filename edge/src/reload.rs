//! Noticing that files have changed. Polled: that works on every file system, through the links that Kubernetes mounts
//! secrets with, and costs a few system calls.
//!
//! After this: `app.rs`, which puts what is in them to use.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How often files are looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// When a file was changed, its length, and which file it is.
type Print = Option<(SystemTime, u64, u64)>;

/// Files, as they were when last looked at.
#[derive(Debug)]
pub struct Watched {
    files: Vec<PathBuf>,
    prints: Vec<Print>,
}

impl Watched {
    pub fn new(files: Vec<PathBuf>) -> Self {
        let prints = prints(&files);
        Self { files, prints }
    }

    /// From now on at these; one that was not watched before has not changed.
    pub fn look_at(&mut self, files: Vec<PathBuf>) {
        if files != self.files {
            *self = Self::new(files);
        }
    }

    /// Whether any of them is another than at the last look.
    pub fn have_changed(&mut self) -> bool {
        let now = prints(&self.files);
        let changed = now != self.prints;
        self.prints = now;
        changed
    }
}

fn prints(files: &[PathBuf]) -> Vec<Print> {
    files.iter().map(|file| print(file)).collect()
}

/// `None`: not there, which is a state like any other.
fn print(file: &Path) -> Print {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_noticed_once() {
        let folder = std::env::temp_dir().join(format!("weir-reload-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, next) = (folder.join("a"), folder.join("b"));
        std::fs::write(&file, "1").unwrap();
        let mut watched = Watched::new(vec![file.clone()]);
        assert!(!watched.have_changed());
        // The same length, perhaps the same moment: another file all the same.
        std::fs::write(&next, "2").unwrap();
        std::fs::rename(&next, &file).unwrap();
        assert!(watched.have_changed());
        assert!(!watched.have_changed());
        std::fs::remove_file(&file).unwrap();
        assert!(watched.have_changed());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
