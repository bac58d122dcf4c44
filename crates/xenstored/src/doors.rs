//! The lock and the sockets of the serving process.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use control::xenstore::StorePlace;
use control::{PathError, kill_point, peer_allowed};

use crate::server::ServeError;

/// How long a process that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(3);

/// Takes the lock of the serving process. One that was killed just now may hold it for a moment.
pub(crate) fn take_lock(lock: &File, place: &StorePlace) -> Result<(), ServeError> {
    let end = Instant::now() + DYING;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock)
                if Instant::now() < end && control::connect(&place.socket()).is_err() =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(ServeError::Served(place.directory.display().to_string()));
            }
            Err(TryLockError::Error(error)) => {
                return Err(PathError::at("lock", &place.directory)(error).into());
            }
        }
    }
}

/// Listens at `path`, for this user only. What a dead process left there is removed.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, PathError> {
    let _may_not_exist = std::fs::remove_file(path);
    let listener = control::bind(path).map_err(PathError::at("listen at", path))?;
    kill_point("xenstored.door.bound");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .map_err(PathError::at("listen at", path))?;
    Ok(listener)
}

/// The next connection of somebody who may connect.
pub(crate) fn take(listener: &UnixListener) -> Option<UnixStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) if peer_allowed(&stream) => return Some(stream),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
