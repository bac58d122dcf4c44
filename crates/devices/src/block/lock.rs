//! Locks on images in use.
//!
//! The lock lies on the image itself and belongs to the open file (`F_OFD_SETLK`, fcntl(2)): it lasts
//! as long as any process has that, the backend among them, and goes with the last, however that
//! ends. Readers share it, a writer has it alone, of QEMU and its tools too. Who has it is noted in a
//! *record* below the run-time directory, which is locked in the same way, so that a record whose
//! owner is gone shows itself.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kill_point::kill_point;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, linkat};

/// Longest name of a domain that is read from a record.
const LONGEST_NAME: u64 = 256;
/// Most records that are looked at.
const MOST_RECORDS: usize = 4096;

/// Bytes before those in which QEMU's locks lie (block/file-posix.c: 100 to 210). Readers leave these
/// alone: a lock on them would say to QEMU that nobody may write, or even read.
const BEFORE_QEMU: libc::off_t = 100;

/// How an image is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Others may read too.
    Shared,
    /// Nobody else may use it.
    Exclusive,
}

/// Locks an open file; false if somebody else's use forbids it.
///
/// # Errors
/// Those of the host, where files cannot be locked.
pub fn lock(file: impl AsFd, how: Use) -> io::Result<bool> {
    let (kind, length) = match how {
        Use::Shared => (libc::F_RDLCK, BEFORE_QEMU),
        // All of it.
        Use::Exclusive => (libc::F_WRLCK, 0),
    };
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: length,
        l_pid: 0,
    };
    // SAFETY: the call reads the structure.
    let done =
        unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Which file or device: two names of it are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of a file. A device may have several nodes, and no file has inode number 0.
    pub fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => Self { device: stat.st_rdev, inode: 0 },
            _ => Self { device: stat.st_dev, inode: stat.st_ino },
        }
    }

    fn prefix(self) -> String {
        format!("{:x}-{:x}.", self.device, self.inode)
    }
}

/// Says who uses an image, until it is dropped.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    _locked: File,
}

impl Record {
    /// Notes that `domain` uses an image.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(runtime: &Path, image: Identity, domain: &str) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = folder(runtime);
        std::fs::create_dir_all(&folder)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}{}.{number}", image.prefix(), std::process::id()));
        // Nobody can find it before it is locked, and nothing is left of a process that is killed.
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(&folder, flags, Mode::RUSR | Mode::WUSR)?);
        kill_point("image.record.made");
        let is_locked = lock(&file, Use::Exclusive)?;
        let written = file.write_all(domain.as_bytes());
        kill_point("image.record.written");
        written.and_then(|()| name_file(&file, &path))?;
        kill_point("image.record.placed");
        if !is_locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Self { path, _locked: file })
    }
}

/// Gives a name to a file that was made without one (open(2), `O_TMPFILE`).
fn name_file(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    // One of a process that is gone, whose number we have.
    let _seldom_there = std::fs::remove_file(path);
    Ok(linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

impl Drop for Record {
    fn drop(&mut self) {
        kill_point("image.record.leaving");
        let _already_gone = std::fs::remove_file(&self.path);
    }
}

/// The domains that use an image. Records of the dead are removed.
pub fn holders(runtime: &Path, image: Identity) -> Vec<String> {
    let prefix = image.prefix();
    let Ok(entries) = std::fs::read_dir(folder(runtime)) else { return Vec::new() };
    let mut domains = Vec::new();
    for entry in entries.take(MOST_RECORDS).flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
        if lock(&file, Use::Exclusive).is_ok_and(|is_locked| is_locked) {
            let _already_gone = std::fs::remove_file(&path);
            continue;
        }
        let mut name = String::new();
        if file.take(LONGEST_NAME).read_to_string(&mut name).is_ok() {
            domains.push(name);
        }
    }
    domains.sort_unstable();
    domains.dedup();
    domains
}

fn folder(runtime: &Path) -> PathBuf {
    runtime.join("locks")
}
