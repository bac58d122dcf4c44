//! Errors about paths, and hints on what to do about an error.

use std::io;
use std::path::{Path, PathBuf};

/// What a user can do about an error.
pub trait Hint {
    /// One sentence that says what to do, if there is something to do.
    fn hint(&self) -> Option<String>;
}

/// Something failed at a path.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action} {}: {source}", path.display())]
pub struct PathError {
    /// What was tried ("create", "lock", ...).
    pub action: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl PathError {
    /// Makes a function for `map_err`.
    pub fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |source| Self { action, path, source: source.into() }
    }
}

impl Hint for PathError {
    fn hint(&self) -> Option<String> {
        let dir = self.path.parent().unwrap_or(&self.path).display();
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some(format!("Free space on the file system of {dir}."))
            }
            io::ErrorKind::PermissionDenied => {
                Some(format!("Check the owner and the rights of {dir}."))
            }
            io::ErrorKind::ReadOnlyFilesystem => Some(format!(
                "{dir} is read-only: choose writable directories with {} and {}.",
                crate::RUNTIME_VARIABLE,
                crate::STATE_VARIABLE
            )),
            _ => None,
        }
    }
}
