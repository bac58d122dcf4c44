//! Spaces: the jailed processes that run the guest, seen from the domain process.
//!
//! Spaces clone further spaces as siblings (`CLONE_PARENT`), so that the main
//! thread of `xendomain` is the parent of all of them: it starts the first one,
//! reaps all, and its death kills all.

mod children;
mod cpu_time;
mod doorbell;
mod group;
mod memory;
mod page;
mod placement;

pub use cpu_time::CpuTime;
pub use doorbell::Doorbell;
pub use group::{Death, Group, reap_others};
pub use memory::DomainMemory;
pub use page::{DomainPageView, Ring, RingReader};
pub use placement::{keep_placed, usable_cpus};

use crate::sys::memory::PrivateMemory;
use crate::sys::{JailedProgram, Kind, SpawnError, Walls, spawn};
use std::ffi::CString;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Environment variable that names another `space` program.
pub const PROGRAM_VARIABLE: &str = "XENOLITH_SPACE";
/// Environment variable that lets spaces write to standard error.
pub const DEBUG_VARIABLE: &str = "XENOLITH_DEBUG";

/// Why the first space could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program is missing.
    #[error(transparent)]
    Missing(#[from] control::LaunchError),
    /// No memory to share with it.
    #[error("Cannot make memory: {0}")]
    Memory(#[source] io::Error),
    /// The program cannot be opened.
    #[error("Cannot open the program {}: {source}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program cannot be executed.
    #[error("Cannot start the program {}: {source}", path.display())]
    Spawn {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: SpawnError,
    },
}

/// How to start the first space.
#[derive(Debug)]
pub struct Start<'a> {
    /// The domain's memory.
    pub memory: &'a DomainMemory,
    /// Name of the domain, for the process list.
    pub name: &'a str,
    /// An empty directory.
    pub empty_root: &'a Path,
    /// Stop before the first instruction of the program.
    pub paused: bool,
}

/// Starts the first space of a domain as a child of this thread.
///
/// # Errors
/// When the program is missing or cannot be executed.
pub fn start(order: &Start<'_>) -> Result<(Group, Walls), StartError> {
    start_with(&order.memory.descriptors(), order.name, order.empty_root, order.paused)
}

/// The walls that hold around a space here: starts one with nothing to run, which
/// ends at once.
///
/// # Errors
/// When the program is missing or cannot be executed.
pub fn find_walls(empty_root: &Path) -> Result<Walls, StartError> {
    let nothing = PrivateMemory::new(c"nothing", boundary::PAGE, 0).map(PrivateMemory::share);
    let nothing = nothing.map_err(StartError::Memory)?;
    let (_group, walls) =
        start_with(&[nothing.as_fd(); memory::DESCRIPTORS], "probe", empty_root, false)?;
    Ok(walls)
}

/// Nobody writes to the empty directory, and everybody may go there.
const EMPTY_MODE: u32 = 0o555;

/// The directory below the run-time directory that is to be the root of spaces: it
/// is empty, and made if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn empty_directory(runtime: &Path) -> io::Result<PathBuf> {
    let path = runtime.join("empty");
    match DirBuilder::new().create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Whatever the umask is: a backend goes there as nobody.
    if path.symlink_metadata()?.mode() & 0o7777 != EMPTY_MODE {
        std::fs::set_permissions(&path, Permissions::from_mode(EMPTY_MODE))?;
    }
    Ok(path)
}

fn start_with(
    descriptors: &[BorrowedFd<'_>],
    name: &str,
    empty_root: &Path,
    stopped: bool,
) -> Result<(Group, Walls), StartError> {
    let path = control::find_program("space", PROGRAM_VARIABLE)?;
    let program =
        File::open(&path).map_err(|source| StartError::Open { path: path.clone(), source })?;
    let text = |bytes: &[u8]| {
        let kept: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
        CString::new(kept).unwrap_or_default()
    };
    let debug = std::env::var_os(DEBUG_VARIABLE).is_some_and(|value| value == "1");
    let stderr = io::stderr();
    let jailed = JailedProgram {
        program: program.as_fd(),
        arguments: &[text(b"space"), text(name.as_bytes())],
        descriptors,
        kind: Kind::Space { empty_root: &text(empty_root.as_os_str().as_bytes()) },
        stderr: debug.then(|| stderr.as_fd()),
        stopped,
    };
    let spawned =
        spawn(&jailed).map_err(|source| StartError::Spawn { path: path.clone(), source })?;
    let walls = spawned.walls;
    Ok((Group::new(spawned), walls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_may_go_to_the_empty_directory() {
        let runtime = tempfile::tempdir().unwrap();
        let path = runtime.path().join("empty");
        let mode = || path.metadata().unwrap().mode() & 0o7777;
        // As a careful umask makes it.
        DirBuilder::new().create(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o500)).unwrap();
        for _ in 0..2 {
            assert_eq!(empty_directory(runtime.path()).unwrap(), path);
            assert_eq!(mode(), EMPTY_MODE);
        }
    }
}
