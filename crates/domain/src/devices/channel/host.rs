//! A channel's end on the host, before the backend serves it: a socket with a name, or a terminal.

use crate::devices::opened::Support;
use config::Connection;
use devices::wire::ChannelEnd;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Connections that may wait while one is served.
const BACKLOG: i32 = 16;

/// Why there is no such end.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Something listens there.
    #[error("somebody listens at {0} already")]
    Used(PathBuf),
    /// What is there is no socket.
    #[error("{0} is there already, and is no socket")]
    NoSocket(PathBuf),
    /// The path does not fit a socket's address.
    #[error("{0} is longer than the {most} bytes of a socket's path", most = config::Channel::LONGEST_PATH)]
    Long(PathBuf),
    /// The host gives no socket there.
    #[error("cannot make the socket {}: {error}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The host gives no pseudo-terminal.
    #[error("cannot make a pseudo-terminal: {0}")]
    Terminal(io::Error),
}

impl SetupError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Used(_) => {
                Some("Two domains cannot have the same socket: give each its own path.")
            }
            Self::NoSocket(_) => Some("Remove it, or give the channel another path."),
            Self::Long(_) => Some("Use a directory with a short name, such as /run."),
            Self::Socket { .. } => Some(
                "Its directory must be there, and the domain's owner must be able to write to it.",
            ),
            Self::Terminal(_) => {
                Some("A file system of the type devpts must be mounted at /dev/pts.")
            }
        }
    }
}

/// An end on the host.
#[derive(Debug)]
pub struct HostEnd {
    /// What the backend is told.
    pub end: ChannelEnd,
    /// What the backend is given.
    pub file: OwnedFd,
    /// Where programs find it.
    pub path: PathBuf,
    /// What must stay as long as the channel is there: the socket's name, or the terminal's other side
    /// (while nobody has that open, the master side only says so).
    pub kept: Box<dyn Support>,
}

impl Support for OwnedFd {}

impl Support for SocketName {}

impl HostEnd {
    /// Makes what `connection` says. The socket can be used by the owner of the domain only.
    ///
    /// # Errors
    /// When somebody else uses the path, or the host does not give it.
    pub fn make(connection: &Connection) -> Result<Self, SetupError> {
        match connection {
            Connection::Pty => terminal().map_err(SetupError::Terminal),
            Connection::Socket(path) => listen(Path::new(path)),
        }
    }
}

fn terminal() -> io::Result<HostEnd> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?.into_string().map_err(io::Error::other)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let other = rustix::fs::open(path.as_str(), flags, Mode::empty())?;
    let mut settings = tcgetattr(&other)?;
    settings.make_raw();
    tcsetattr(&other, OptionalActions::Now, &settings)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    let kept = Box::new(other);
    Ok(HostEnd { end: ChannelEnd::Terminal, file: master, path: path.into(), kept })
}

/// The name of a socket that listens. It goes with this.
#[derive(Debug)]
struct SocketName {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Drop for SocketName {
    fn drop(&mut self) {
        // Somebody may have put another file there.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _gone_already = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let data = path.symlink_metadata()?;
    Ok((data.dev(), data.ino()))
}

/// Listens at `path`. The name of a socket that nobody listens at any more, of a domain that was killed,
/// is taken over.
fn listen(path: &Path) -> Result<HostEnd, SetupError> {
    if path.as_os_str().len() > config::Channel::LONGEST_PATH {
        return Err(SetupError::Long(path.into()));
    }
    let host = |error: io::Error| SetupError::Socket { path: path.into(), error };
    let new = PathBuf::from([path.as_os_str(), ".new".as_ref()].join("".as_ref()));
    if is_socket(&new) {
        std::fs::remove_file(&new).map_err(host)?;
    }
    let listener = control::bind_for_owner(&new).map_err(host)?;
    let made = SocketName { file: identity(&new).map_err(host)?, path: new };
    // Whoever looks whether somebody listens must find so.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| host(error.into()))?;
    put_in_place(&made.path, path)?;
    let name = SocketName { path: path.into(), file: made.file };
    Ok(HostEnd { end: ChannelEnd::Socket, file: listener, path: path.into(), kept: Box::new(name) })
}

/// Gives the socket at `new` the name `path`, unless that belongs to somebody.
fn put_in_place(new: &Path, path: &Path) -> Result<(), SetupError> {
    let rename = |flags| rustix::fs::renameat_with(CWD, new, CWD, path, flags);
    let host = |error: Errno| SetupError::Socket { path: path.into(), error: error.into() };
    match rename(RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(()),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(host(error)),
    }
    check_stale(path, path)?;
    rename(RenameFlags::EXCHANGE).map_err(host)?;
    // Somebody else may have come in between: what was there is looked at once more.
    if let Err(error) = check_stale(new, path) {
        rename(RenameFlags::EXCHANGE).map_err(host)?;
        return Err(error);
    }
    let _gone_already = std::fs::remove_file(new);
    Ok(())
}

/// Whether what is at `place` is a socket that nobody listens at; in errors it is called `path`.
fn check_stale(place: &Path, path: &Path) -> Result<(), SetupError> {
    if !is_socket(place) {
        return Err(SetupError::NoSocket(path.into()));
    }
    match control::connect_now(place) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(SetupError::Used(path.into())),
    }
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn at(path: &Path) -> Result<HostEnd, SetupError> {
        HostEnd::make(&Connection::Socket(path.to_str().unwrap().into()))
    }

    #[test]
    fn a_socket_is_its_owners_and_goes_with_the_domain() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let end = at(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(matches!(at(&path), Err(SetupError::Used(_))));
        UnixStream::connect(&path).unwrap();
        drop(end);
        assert_eq!(place.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_domain_left_is_taken_over() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        drop(UnixListener::bind(place.path().join("s.new")).unwrap());
        let _end = at(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn other_files_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(at(&path), Err(SetupError::NoSocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
        std::fs::remove_file(&path).unwrap();
        let end = at(&path).unwrap();
        std::fs::rename(&path, place.path().join("moved")).unwrap();
        std::fs::write(&path, "new").unwrap();
        drop(end);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(matches!(at(&place.path().join("none/s")), Err(SetupError::Socket { .. })));
        assert!(matches!(at(&place.path().join("l".repeat(108))), Err(SetupError::Long(_))));
    }

    #[test]
    fn a_terminal_passes_on_bytes_as_they_are() {
        let end = HostEnd::make(&Connection::Pty).unwrap();
        let open = || {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            std::fs::File::from(rustix::fs::open(&end.path, flags, Mode::empty()).unwrap())
        };
        let mut master = std::fs::File::from(end.file.try_clone().unwrap());
        let mut user = open();
        let all: Vec<u8> = (0..=255).collect();
        master.write_all(&all).unwrap();
        let mut got = [0; 256];
        user.read_exact(&mut got).unwrap();
        assert_eq!(got[..], all);
        drop(user);
        let why = master.read(&mut got).unwrap_err().kind();
        assert_eq!(why, io::ErrorKind::WouldBlock, "nobody there is no end");
        open().write_all(&all).unwrap();
        let mut count = 0;
        while count < 256 {
            count += master.read(&mut got[count..]).unwrap();
        }
        assert_eq!(got[..], all);
    }
}
