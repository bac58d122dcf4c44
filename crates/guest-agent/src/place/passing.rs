//! Copies that are not whole yet. Each has a lock beside it, a file that its process holds: what a
//! process that was killed left shows itself, and goes with the next copy to the same directory.

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the name of a lock has behind that of its copy.
const LOCK: &str = ".lock";
/// Names of copies have this before the numbers of their process and of themselves.
const MARK: &[u8] = b".copy-";
/// A name has 255 bytes at most, and those of copies are longer than what they copy.
const LONGEST: usize = 200;
/// Most entries of a directory that are looked at.
const MOST_ENTRIES: usize = 100_000;
/// Locks that somebody takes for left over before they are held.
const TRIES: u32 = 16;

/// What is not whole yet; it goes when this is dropped.
#[derive(Debug)]
pub struct Passing {
    path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Passing {
    /// A name in `directory` for a copy that will be called `name`.
    pub fn begin(directory: &Path, name: &OsStr) -> io::Result<Self> {
        for _ in 0..TRIES {
            let mut passing = OsString::from(".");
            passing
                .push(OsStr::from_bytes(name.as_bytes().get(..LONGEST).unwrap_or(name.as_bytes())));
            passing.push(format!(".copy-{}-{:x}", std::process::id(), fresh()));
            let path = directory.join(&passing);
            passing.push(LOCK);
            let lock = directory.join(&passing);
            let mut options = File::options();
            let held = options.write(true).create_new(true).mode(0o600).open(&lock)?;
            match flock(&held, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => {}
                // Where files cannot be locked nobody takes it for left over either.
                _ if is_at(&held, &lock) => return Ok(Self { path, lock, _held: held }),
                _ => {}
            }
        }
        Err(io::Error::other("somebody removes what is begun there"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in its directory.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        remove(&self.path);
        let _what_stays_has_a_telling_name = std::fs::remove_file(&self.lock);
    }
}

/// Whether this is the file of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |there: std::fs::Metadata| {
        file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    };
    path.symlink_metadata().is_ok_and(same)
}

/// Removes what processes that were killed have left of copies to this directory.
pub fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.take(MOST_ENTRIES).flatten() {
        let name = entry.file_name();
        let Some(copy) = name.as_bytes().strip_suffix(LOCK.as_bytes()) else { continue };
        if is_of_copies(copy) {
            remove_if_left(&entry.path(), &directory.join(OsStr::from_bytes(copy)));
        }
    }
}

/// Whether such names are made by [`Passing::begin`].
fn is_of_copies(name: &[u8]) -> bool {
    let Some(at) = name.windows(MARK.len()).rposition(|part| part == MARK) else { return false };
    let numbers = name.get(at + MARK.len()..).unwrap_or_default();
    let mut parts = numbers.split(|byte| *byte == b'-');
    let (process, own, none) = (parts.next(), parts.next(), parts.next());
    let is = |part: Option<&[u8]>, digit: fn(&u8) -> bool| {
        part.is_some_and(|part| !part.is_empty() && part.iter().all(digit))
    };
    name.starts_with(b".")
        && is(process, u8::is_ascii_digit)
        && is(own, u8::is_ascii_hexdigit)
        && none.is_none()
}

fn remove_if_left(lock: &Path, copy: &Path) {
    // What is there under such a name may be anything, also a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = open(lock, flags, Mode::empty()).map(File::from) else { return };
    let is_ours = fstat(&file).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_uid == rustix::process::geteuid().as_raw()
    });
    let is_left = || flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    if is_ours && is_left() && is_at(&file, lock) {
        remove(copy);
        let _already_gone = std::fs::remove_file(lock);
    }
}

/// A number that no other copy of this process has.
fn fresh() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = since.map_or(0, |since| since.as_secs());
    time << 16 | NEXT.fetch_add(1, Ordering::Relaxed) & 0xffff
}

fn remove(path: &Path) {
    let is_directory = path.symlink_metadata().is_ok_and(|facts| facts.is_dir());
    let _what_stays_has_a_telling_name = if is_directory {
        open_all(path);
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
}

/// Makes directories writable that the copy had closed, so that they can be removed.
fn open_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _tried = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700));
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_all(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_nobody_holds_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        let begin = |name: &str| Passing::begin(base.path(), OsStr::new(name)).unwrap();
        let (live, dead) = (begin("live"), begin("dead"));
        for passing in [&live, &dead] {
            fs::create_dir_all(passing.path().join("closed/deep")).unwrap();
            fs::write(passing.path().join("closed/file"), "half").unwrap();
            let closed = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o500);
            fs::set_permissions(passing.path().join("closed"), closed).unwrap();
        }
        // As a process that is killed: its descriptors are closed, and nothing else is done.
        let (path, lock) = (dead.path().to_owned(), dead.lock.clone());
        let held = dead._held.try_clone().unwrap();
        std::mem::forget(dead);
        flock(&held, FlockOperation::Unlock).unwrap();
        for name in
            ["notes", ".x.copy-1-2", ".x.copy-a-2.lock", ".x.copy-1-.lock", "x.copy-1-2.lock"]
        {
            fs::write(at(name), "").unwrap();
        }
        let pipe = at(".pipe.copy-1-2.lock");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        sweep(base.path());
        assert!(!path.exists() && !lock.exists());
        assert!(live.path().join("closed/file").exists() && live.lock.exists());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 8);
        drop(live);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 6, "its end removes it");
    }
}
