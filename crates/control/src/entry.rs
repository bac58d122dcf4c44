//! The file that says which domain a directory belongs to.

use crate::error::PathError;
use crate::uuid::Uuid;
use kill_point::kill_point;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Longest `info.json` in bytes.
const LONGEST: u64 = 64 << 10;

/// One domain in the run-time directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Domain number.
    pub domid: u32,
    /// Name.
    pub name: String,
    /// UUID.
    pub uuid: Uuid,
    /// Process id of `xendomain`.
    pub pid: u32,
    /// Start, in seconds since the epoch.
    pub started: u64,
    /// The domain's directory.
    #[serde(skip)]
    pub directory: PathBuf,
}

impl Entry {
    /// The domain's control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// The file that `xendomain` keeps locked.
    pub(crate) fn lock_file(directory: &Path) -> PathBuf {
        directory.join("lock")
    }

    /// Reads the entry in `directory`.
    pub(crate) fn read(directory: &Path) -> Result<Self, PathError> {
        let path = directory.join("info.json");
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut text))
            .map_err(PathError::at("read", &path))?;
        let mut entry: Self = serde_json::from_slice(&text)
            .map_err(|error| PathError::at("understand", &path)(io::Error::other(error)))?;
        entry.directory = directory.to_path_buf();
        Ok(entry)
    }

    /// Writes the entry into its directory, all at once.
    pub(crate) fn write(&self) -> Result<(), PathError> {
        let path = self.directory.join("info.json");
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| PathError::at("write", &path)(io::Error::other(error)))?;
        replace(&path, &text)
    }
}

/// Replaces a file so that readers see the old or the new text, never a part.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<(), PathError> {
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| file.write_all(text));
    written.map_err(PathError::at("write", &new))?;
    kill_point("registry.file-written");
    std::fs::rename(&new, path).map_err(PathError::at("replace", path))
}
