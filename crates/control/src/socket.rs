//! Control sockets: paths of any length, and who may connect.

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Paths up to here fit `sockaddr_un` (unix(7): 108 bytes with the final zero).
const LONGEST_PATH: usize = 107;

/// A path short enough for a socket address, and what must stay open for it.
fn short(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    if path.as_os_str().len() <= LONGEST_PATH {
        return Ok((path.to_path_buf(), None));
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((through, Some(directory)))
}

/// Listens at `path`, which must not exist.
///
/// # Errors
/// As `bind(2)`.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let (address, _open) = short(path)?;
    UnixListener::bind(address)
}

/// Binds a stream socket that does not block to `path`, which must not exist. From its first moment only
/// its owner may connect, once it listens: a socket's inode has the mode of its file (unix(7)).
///
/// # Errors
/// As `fchmod(2)` and `bind(2)`.
pub fn bind_for_owner(path: &Path) -> io::Result<OwnedFd> {
    let (address, _open) = short(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&address)?)?;
    Ok(socket)
}

/// Connects to `path`.
///
/// # Errors
/// As `connect(2)`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (address, _open) = short(path)?;
    UnixStream::connect(address)
}

/// Connects to `path` without waiting; what is returned does not block.
///
/// # Errors
/// As `connect(2)`; `WouldBlock` when the listener has no room for another connection.
pub fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let (address, _open) = short(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(&address)?)?;
    Ok(socket.into())
}

/// Whether the process at the other end may command a domain: the same user or root.
pub fn peer_allowed(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_socket_can_be_its_owners_from_the_beginning() {
        use std::os::unix::fs::MetadataExt;
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("d".repeat(100));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("s");
        let socket = bind_for_owner(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(connect(&path).is_err(), "it does not listen yet");
        rustix::net::listen(&socket, 1).unwrap();
        connect(&path).unwrap();
    }

    #[test]
    fn long_paths_work() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("control.sock");
        let listener = bind(&path).unwrap();
        connect(&path).unwrap().write_all(b"x").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert!(peer_allowed(&stream));
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }
}
