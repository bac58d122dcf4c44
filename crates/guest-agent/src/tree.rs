//! Files, links and whole directories as a stream of bytes.
//!
//! An entry is a kind (one byte), for a file or directory its mode (32 bits), time of change
//! (seconds, 64 bits) and size (64 bits, a hint), then for all but the first entry its name, and for
//! a link its target (each behind its length, 16 bits); numbers are little-endian. A file's content
//! follows in pieces behind their lengths (32 bits), the last of length 0. A directory's entries
//! follow it up to an end.
//!
//! No entry has a path: a name is one name. The receiver makes everything anew, below a directory
//! that it has made itself, and goes only where it holds the directory open. So there is no way for
//! a stream to lead elsewhere.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const FILE: u8 = b'f';
const DIRECTORY: u8 = b'd';
const LINK: u8 = b'l';
const OTHER: u8 = b'o';
const END: u8 = b'e';

/// The deepest tree: each level holds a descriptor.
const DEEPEST: usize = 128;
/// The longest name and the longest target of a link (`NAME_MAX`, `PATH_MAX`).
const LONGEST_NAME: usize = 255;
const LONGEST_TARGET: usize = 4095;
/// The largest piece of a file.
const PIECE: usize = 64 << 10;

/// Why a tree cannot be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The other side is gone, or whoever waits for it was interrupted.
    #[error("{0}")]
    Stream(#[source] io::Error),
    /// A file cannot be read or written.
    #[error("Cannot {action} '{}': {source}", name.escape_debug())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The stream is not what it should be.
    #[error("The other side broke the rules of a copy: {0}")]
    Nonsense(&'static str),
    /// A link, a device, a socket.
    #[error("'{}' is neither a file nor a directory", .0.escape_debug())]
    Kind(String),
    /// More levels than [`DEEPEST`].
    #[error("The directory is more than {DEEPEST} levels deep")]
    Deep,
}

fn failed(action: &'static str, name: &OsStr) -> impl FnOnce(Errno) -> TreeError {
    let name = name.to_string_lossy().into_owned();
    move |errno| TreeError::File { action, name, source: errno.into() }
}

/// What is told while a tree is received.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// So many bytes of so many of this file are there.
    Bytes {
        /// The file; empty: the copied file itself.
        name: &'a OsStr,
        /// So far.
        done: u64,
        /// Of this many, as the other side says.
        of: u64,
    },
    /// This is neither file, directory nor link, and left out.
    LeftOut(&'a OsStr),
}

/// Sends the file or directory `root`; links below it are sent as links.
///
/// # Errors
/// As [`TreeError`] says. The other side has then a part of it.
pub fn send(root: &Path, out: &mut impl Write) -> Result<(), TreeError> {
    let name = root.as_os_str();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(failed("open", name))?;
    let facts = rustix::fs::fstat(&file).map_err(failed("look at", name))?;
    match FileType::from_raw_mode(facts.st_mode) {
        FileType::RegularFile => send_file(file, &facts, None, out),
        FileType::Directory => send_directory(&file, &facts, None, 1, out),
        _ => Err(TreeError::Kind(name.to_string_lossy().into_owned())),
    }
}

fn put(out: &mut impl Write, parts: &[&[u8]]) -> Result<(), TreeError> {
    out.write_all(&parts.concat()).map_err(TreeError::Stream)
}

fn length16(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes()
}

fn send_head(
    kind: u8,
    facts: &rustix::fs::Stat,
    name: Option<&OsStr>,
    out: &mut impl Write,
) -> Result<(), TreeError> {
    let mode = (facts.st_mode & 0o7777).to_le_bytes();
    let size = u64::try_from(facts.st_size).unwrap_or(0).to_le_bytes();
    let name = name.map(OsStr::as_bytes);
    let length = name.map(length16);
    put(
        out,
        &[
            &[kind],
            &mode,
            &facts.st_mtime.to_le_bytes(),
            &size,
            length.as_ref().map_or(&[], |length| length.as_slice()),
            name.unwrap_or_default(),
        ],
    )
}

fn send_file(
    file: OwnedFd,
    facts: &rustix::fs::Stat,
    name: Option<&OsStr>,
    out: &mut impl Write,
) -> Result<(), TreeError> {
    send_head(FILE, facts, name, out)?;
    let mut file = File::from(file);
    let mut piece = vec![0; PIECE];
    loop {
        let count = match file.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                let name = name.unwrap_or_default().to_string_lossy().into_owned();
                return Err(TreeError::File { action: "read", name, source });
            }
        };
        let length = u32::try_from(count).unwrap_or(0).to_le_bytes();
        put(out, &[&length, piece.get(..count).unwrap_or_default()])?;
        if count == 0 {
            return Ok(());
        }
    }
}

fn send_directory(
    directory: &OwnedFd,
    facts: &rustix::fs::Stat,
    name: Option<&OsStr>,
    depth: usize,
    out: &mut impl Write,
) -> Result<(), TreeError> {
    if depth > DEEPEST {
        return Err(TreeError::Deep);
    }
    let told = name.unwrap_or_default();
    send_head(DIRECTORY, facts, name, out)?;
    let entries = rustix::fs::Dir::read_from(directory).map_err(failed("read", told))?;
    for entry in entries {
        let entry = entry.map_err(failed("read", told))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            send_entry(directory.as_fd(), name, depth, out)?;
        }
    }
    put(out, &[&[END]])
}

fn send_entry(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    depth: usize,
    out: &mut impl Write,
) -> Result<(), TreeError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty());
    let facts = match &file {
        Ok(file) => rustix::fs::fstat(file),
        Err(_) => rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW),
    };
    let facts = match facts {
        Ok(facts) => facts,
        // It went meanwhile.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("look at", name)(errno)),
    };
    match (FileType::from_raw_mode(facts.st_mode), file) {
        (FileType::RegularFile, Ok(file)) => send_file(file, &facts, Some(name), out),
        (FileType::Directory, Ok(file)) => {
            send_directory(&file, &facts, Some(name), depth + 1, out)
        }
        (FileType::RegularFile | FileType::Directory, Err(errno)) => {
            Err(failed("open", name)(errno))
        }
        (FileType::Symlink, _) => {
            let target =
                rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed("read", name))?;
            let (target, name) = (target.as_bytes(), name.as_bytes());
            put(out, &[&[LINK], &length16(name), name, &length16(target), target])
        }
        _ => {
            let name = name.as_bytes();
            put(out, &[&[OTHER], &length16(name), name])
        }
    }
}

/// Receives a tree as the new entry `name` of the directory `parent`. Of modes only the bits of
/// `modes` are taken over.
///
/// # Errors
/// As [`TreeError`] says. A part of it may be there.
pub fn receive(
    input: &mut impl Read,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    modes: u32,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), TreeError> {
    let mut receiver = Receiver { input, modes, progress };
    match receiver.byte()? {
        FILE => {
            let head = receiver.head()?;
            receiver.file(parent, name, OsStr::new(""), &head)
        }
        DIRECTORY => receiver.directories(parent, name),
        _ => Err(TreeError::Nonsense("it is neither a file nor a directory")),
    }
}

/// What an entry begins with.
struct Head {
    mode: u32,
    changed: i64,
    size: u64,
}

/// A directory that is being filled.
struct Level {
    directory: OwnedFd,
    name: OsString,
    head: Head,
}

struct Receiver<'a, R> {
    input: &'a mut R,
    modes: u32,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl<R: Read> Receiver<'_, R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], TreeError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(TreeError::Stream)?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, TreeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn head(&mut self) -> Result<Head, TreeError> {
        let mode = u32::from_le_bytes(self.array()?) & self.modes;
        let changed = i64::from_le_bytes(self.array()?);
        Ok(Head { mode, changed, size: u64::from_le_bytes(self.array()?) })
    }

    fn text(&mut self, longest: usize) -> Result<OsString, TreeError> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length == 0 || length > longest {
            return Err(TreeError::Nonsense("a name is empty or too long"));
        }
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).map_err(TreeError::Stream)?;
        if bytes.contains(&0) {
            return Err(TreeError::Nonsense("a name holds a zero byte"));
        }
        Ok(OsStr::from_bytes(&bytes).to_owned())
    }

    fn name(&mut self) -> Result<OsString, TreeError> {
        let name = self.text(LONGEST_NAME)?;
        if name == "." || name == ".." || name.as_bytes().contains(&b'/') {
            return Err(TreeError::Nonsense("a name is a path"));
        }
        Ok(name)
    }

    /// Takes a directory and all that is below it.
    fn directories(&mut self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), TreeError> {
        let head = self.head()?;
        let mut levels = vec![make_directory(parent, name.to_owned(), head)?];
        while let Some(level) = levels.last() {
            let here = level.directory.as_fd();
            match self.byte()? {
                FILE => {
                    let (head, name) = (self.head()?, self.name()?);
                    self.file(here, &name, &name, &head)?;
                }
                DIRECTORY => {
                    if levels.len() >= DEEPEST {
                        return Err(TreeError::Deep);
                    }
                    let (head, name) = (self.head()?, self.name()?);
                    let next = make_directory(here, name, head)?;
                    levels.push(next);
                }
                LINK => {
                    let (name, target) = (self.name()?, self.text(LONGEST_TARGET)?);
                    rustix::fs::symlinkat(&target, here, &name).map_err(failed("make", &name))?;
                }
                OTHER => {
                    let name = self.name()?;
                    (self.progress)(Progress::LeftOut(&name));
                }
                END => {
                    if let Some(level) = levels.pop() {
                        finish(level.directory.as_fd(), &level.name, &level.head)?;
                    }
                }
                _ => return Err(TreeError::Nonsense("an entry is of an unknown kind")),
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        told: &OsStr,
        head: &Head,
    ) -> Result<(), TreeError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(failed("make", name))?;
        let mut file = File::from(file);
        let (mut piece, mut done) = (vec![0; PIECE], 0u64);
        loop {
            let length = usize::try_from(u32::from_le_bytes(self.array()?)).unwrap_or(usize::MAX);
            if length == 0 {
                break;
            }
            let Some(part) = piece.get_mut(..length) else {
                return Err(TreeError::Nonsense("a piece of a file is too large"));
            };
            self.input.read_exact(part).map_err(TreeError::Stream)?;
            file.write_all(part).map_err(|source| {
                let name = name.to_string_lossy().into_owned();
                TreeError::File { action: "write", name, source }
            })?;
            done = done.saturating_add(length as u64);
            (self.progress)(Progress::Bytes { name: told, done, of: head.size });
        }
        finish(file.as_fd(), name, head)
    }
}

fn make_directory(parent: BorrowedFd<'_>, name: OsString, head: Head) -> Result<Level, TreeError> {
    rustix::fs::mkdirat(parent, &name, Mode::RWXU).map_err(failed("make", &name))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory =
        rustix::fs::openat(parent, &name, flags, Mode::empty()).map_err(failed("open", &name))?;
    Ok(Level { directory, name, head })
}

/// Gives what is whole its mode and its time.
fn finish(file: BorrowedFd<'_>, name: &OsStr, head: &Head) -> Result<(), TreeError> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(head.mode)).map_err(failed("change", name))?;
    let time = Timespec { tv_sec: head.changed, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    // A file system that knows no such time has another one.
    let _no_loss = rustix::fs::futimens(file, &times);
    Ok(())
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
