//! The record of what was moved to a bridge.

use super::{Address, BridgeError, Route};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Something may have been moved to the bridge.
    Starting,
    /// The bridge is there.
    Running,
    /// Something may have been moved back.
    Stopping,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        })
    }
}

/// A bridge, and what belongs to its uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How far it went.
    pub phase: Phase,
    /// The bridge's name.
    pub bridge: String,
    /// The uplink's name.
    pub uplink: String,
    /// The uplink was up before.
    pub was_up: bool,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its routes.
    pub routes: Vec<Route>,
}

/// Largest record.
const LARGEST: u64 = 16 << 20;

fn path(directory: &Path, bridge: &str) -> PathBuf {
    // Names of devices have no slash, but what is typed might.
    directory.join(format!("bridge-{}.json", bridge.replace('/', "_")))
}

fn wrong(path: &Path) -> impl Fn(io::Error) -> BridgeError {
    move |source| BridgeError::Record { path: path.to_owned(), source }
}

impl State {
    pub(super) fn load(directory: &Path, bridge: &str) -> Result<Option<Self>, BridgeError> {
        let path = path(directory, bridge);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(&path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(wrong(&path))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(&path)(error.into()))
    }

    /// Writes the record whole or not at all.
    pub(super) fn save(&self, directory: &Path) -> Result<(), BridgeError> {
        let path = path(directory, &self.bridge);
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            kill_point::kill_point("bridge.record-written");
            std::fs::rename(&new, &path)
        };
        write().map_err(wrong(&path))
    }

    pub(super) fn remove(directory: &Path, bridge: &str) -> Result<(), BridgeError> {
        let path = path(directory, bridge);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(wrong(&path)(error)),
            _ => Ok(()),
        }
    }
}
