//! What `xendomain --probe` says of the host: the answers that only trying gives.

use crate::error::PathError;
use crate::launch::{LaunchError, find_program};
use crate::line::LineReader;
use crate::protocol::MAX_REPLY;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The argument that asks for it.
pub const PROBE_ARGUMENT: &str = "--probe";

/// A wall of the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallProbe {
    /// Its name.
    pub name: String,
    /// Whether it holds for domains that this user starts here.
    pub holds: bool,
}

/// What was found by trying. One line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Syscall User Dispatch (Linux 5.11).
    pub dispatch: bool,
    /// Protection keys can be had.
    pub keys: bool,
    /// What will keep guest programs from their kernel, in the words of the log.
    pub isolation: String,
    /// Version of Landlock's interface, 0 = none.
    pub landlock: u32,
    /// `io_uring_setup` is there and allowed.
    pub io_uring: bool,
    /// The walls around a process that was jailed for a try.
    pub walls: Vec<WallProbe>,
    /// Why no process could be jailed.
    pub failure: Option<String>,
}

/// Asks `xendomain`, which is found as for a domain: the program, and what it says.
///
/// # Errors
/// When it is missing or does not answer.
pub fn probe() -> Result<(PathBuf, Probe), LaunchError> {
    let program = find_program("xendomain", "XENOLITH_XENDOMAIN")?;
    let mut child = Command::new(&program)
        .arg(PROBE_ARGUMENT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(PathError::at("run", &program))?;
    let mut output = child.stdout.take().ok_or(LaunchError::Silent)?;
    let answer = LineReader::new(MAX_REPLY).read::<Probe>(&mut output);
    let _its_answer_counts = child.wait();
    Ok((program, answer?.ok_or(LaunchError::Silent)?))
}
