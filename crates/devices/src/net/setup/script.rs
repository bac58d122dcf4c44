//! Scripts that join a tap to a network (`script=`).
//!
//! `SCRIPT online` runs once the tap is there, `SCRIPT offline` before it goes. What it needs to know
//! is in its environment: `vif` (the tap), `bridge`, `mac`, `ip`, `domid`, `domain`, `XENBUS_PATH`.

use super::SetupError;
use rustix::fs::Access;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where scripts are that are named without a path.
const DIRECTORY: &str = "/etc/xen/scripts";
/// What is built in.
const BUILT_IN: &str = "vif-bridge";
/// Longest time a script may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A script, with its environment.
#[derive(Clone, Debug)]
pub(super) struct Script {
    path: PathBuf,
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Script {
    /// The script that an entry names; `None` for the one that is built in.
    pub(super) fn find(
        entry: Option<&str>,
        environment: Vec<(&'static str, String)>,
    ) -> Result<Option<Self>, SetupError> {
        let mut words = entry.unwrap_or_default().split_whitespace().map(str::to_owned);
        let Some(name) = words.next() else { return Ok(None) };
        let path = Path::new(DIRECTORY).join(&name);
        if name == BUILT_IN || path == Path::new(DIRECTORY).join(BUILT_IN) {
            return Ok(None);
        }
        match rustix::fs::access(&path, Access::EXEC_OK) {
            Ok(()) => Ok(Some(Self { path, words: words.collect(), environment })),
            Err(error) => Err(SetupError::Script { path, why: error.to_string() }),
        }
    }

    /// Runs it.
    pub(super) fn run(&self, what: &str) -> Result<(), SetupError> {
        let wrong = |why: String| SetupError::Script { path: self.path.clone(), why };
        let mut child = Command::new(&self.path)
            .arg(what)
            .args(&self.words)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| wrong(error.to_string()))?;
        let end = Instant::now() + PATIENCE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(wrong(format!("`{what}` ended with {status}"))),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    let _ended = child.kill();
                    let _reaped = child.wait();
                    return Err(wrong(format!("`{what}` took more than {PATIENCE:?}")));
                }
                Err(error) => return Err(wrong(error.to_string())),
            }
        }
    }
}
