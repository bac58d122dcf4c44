//! The journal's file. Nothing is forced to the disk: it need not outlive the host's uptime, only
//! the process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use control::kill_point;
use store::Store;

/// Longest journal that is read, in bytes.
const LONGEST: u64 = 1 << 30;
/// Bytes of changes that are kept at least before a new picture replaces them.
const LEAST: u64 = 1 << 20;
/// Otherwise changes may take so many times as much as the picture.
const FACTOR: u64 = 4;

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action} the journal {}: {source}", path.display())]
pub struct JournalError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What happened before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// There was no journal.
    None,
    /// The store goes on; so many bytes at the end had not been written wholly.
    GoesOn {
        /// Bytes.
        lost: usize,
    },
    /// There was something that is no journal.
    Unusable,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    picture: u64,
    changes: u64,
}

impl Journal {
    /// Goes on from the journal at `path`, or begins with an empty store.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path) -> Result<(Self, Store, Past), JournalError> {
        let failed = |action| move |source| JournalError { action, path: path.into(), source };
        let bytes = read(path).map_err(failed("read"))?;
        let (mut store, past) = match bytes.as_deref().map(Store::restore) {
            None => (Store::default(), Past::None),
            Some(None) => (Store::default(), Past::Unusable),
            Some(Some(restored)) => (restored.store, Past::GoesOn { lost: restored.lost }),
        };
        store.keep_journal();
        let (file, picture) = begin(path, &mut store).map_err(failed("begin"))?;
        Ok((Self { path: path.into(), file, picture, changes: 0 }, store, past))
    }

    /// Writes what changed since the last time. Nobody may be told of it before.
    ///
    /// # Errors
    /// When it cannot be written; it is not known how much of it was. [`Journal::renew`] mends that.
    pub fn write(&mut self, store: &mut Store) -> Result<(), JournalError> {
        let bytes = store.take_journal();
        if bytes.is_empty() {
            return Ok(());
        }
        self.changes += bytes.len() as u64;
        let failed = |source| JournalError { action: "write", path: self.path.clone(), source };
        self.file.write_all(&bytes).map_err(failed)
    }

    /// Whether the changes have become long.
    pub fn is_long(&self) -> bool {
        self.changes > LEAST.max(self.picture.saturating_mul(FACTOR))
    }

    /// Replaces the journal by a picture of the store.
    ///
    /// # Errors
    /// When it cannot be written; the old one goes on then.
    pub fn renew(&mut self, store: &mut Store) -> Result<(), JournalError> {
        let failed = |source| JournalError { action: "renew", path: self.path.clone(), source };
        let (file, picture) = begin(&self.path, store).map_err(failed)?;
        (self.file, self.picture, self.changes) = (file, picture, 0);
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes a new journal beside the old one, and puts it in its place once it is whole.
fn begin(path: &Path, store: &mut Store) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let picture = store.picture();
    let options = || {
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600);
        options
    };
    let mut file = options().write(true).truncate(true).open(&new)?;
    file.write_all(&picture)?;
    drop(file);
    kill_point("xenstored.journal.written");
    // Appended to, so that it does not matter where an incomplete write ended.
    let file = OpenOptions::new().append(true).open(&new)?;
    std::fs::rename(&new, path)?;
    kill_point("xenstored.journal.placed");
    Ok((file, picture.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_and_stays_small() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("journal");
        let (mut journal, mut store, past) = Journal::open(&path).unwrap();
        assert_eq!(past, Past::None);
        for round in 0..60_000_u32 {
            store.write("/a", round.to_string()).unwrap();
            journal.write(&mut store).unwrap();
            if journal.is_long() {
                journal.renew(&mut store).unwrap();
            }
        }
        assert!(path.metadata().unwrap().len() < LEAST + 10_000);
        drop(journal);
        let (_, store, past) = Journal::open(&path).unwrap();
        assert_eq!(past, Past::GoesOn { lost: 0 });
        assert_eq!(store.read("/a").unwrap(), b"59999");
    }

    #[test]
    fn what_is_no_journal_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("journal");
        std::fs::write(&path, "nonsense").unwrap();
        let (mut journal, mut store, past) = Journal::open(&path).unwrap();
        assert_eq!(past, Past::Unusable);
        store.write("/a", "1").unwrap();
        journal.write(&mut store).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"half").unwrap();
        let (_, store, past) = Journal::open(&path).unwrap();
        assert_eq!(past, Past::GoesOn { lost: 4 });
        assert_eq!(store.read("/a").unwrap(), b"1");
    }
}
