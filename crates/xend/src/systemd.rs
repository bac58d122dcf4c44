//! The little that a service of systemd does: sockets that it is handed (sd_listen_fds(3)), a
//! word when it is ready (sd_notify(3)), and lines for the journal.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

/// The socket that this process was started for, if it was.
///
/// # Errors
/// When what was handed over is no listening Unix socket.
pub fn activated() -> io::Result<Option<UnixListener>> {
    listenfd::ListenFd::from_env().take_unix_listener(0)
}

/// Tells the service manager, if there is one.
///
/// # Errors
/// When it cannot be told.
pub fn notify(state: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// Whether the standard error of this process goes to the journal (systemd.exec(5), `JOURNAL_STREAM`).
pub(crate) fn has_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(rustix::stdio::stderr())
        .is_ok_and(|own| stream == *format!("{}:{}", own.st_dev, own.st_ino))
}
