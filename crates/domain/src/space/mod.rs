//! Spaces: the jailed processes that run the guest, seen from the domain process.
//!
//! Spaces clone further spaces as siblings (`CLONE_PARENT`), so that the main
//! thread of `xendomain` is the parent of all of them: it starts the first one,
//! reaps all, and its death kills all.

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

use crate::sys::{JailedProgram, SpawnError, Walls, spawn};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
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
    let path = control::find_program("space", PROGRAM_VARIABLE)?;
    let program =
        File::open(&path).map_err(|source| StartError::Open { path: path.clone(), source })?;
    let text = |bytes: &[u8]| {
        let kept: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
        CString::new(kept).unwrap_or_default()
    };
    let descriptors = order.memory.descriptors();
    let empty_root = text(order.empty_root.as_os_str().as_bytes());
    let arguments = [text(b"space"), text(order.name.as_bytes())];
    let jailed = JailedProgram {
        program: program.as_fd(),
        arguments: &arguments,
        descriptors: &descriptors,
        empty_root: &empty_root,
        keep_stderr: std::env::var_os(DEBUG_VARIABLE).is_some_and(|value| value == "1"),
        stopped: order.paused,
    };
    let spawned =
        spawn(&jailed).map_err(|source| StartError::Spawn { path: path.clone(), source })?;
    let walls = spawned.walls;
    Ok((Group::new(spawned), walls))
}
