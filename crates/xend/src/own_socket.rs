//! The socket of a daemon that made it itself.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What lies at a path now. As long as it is listened to its number is not given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSocket {
    path: PathBuf,
    number: (u64, u64),
}

impl OwnSocket {
    /// The socket at `path`.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        let number = number(&path)?;
        Ok(Self { path, number })
    }

    /// Whether it is what clients find: nobody has taken it away, or its place, as systemd does
    /// when its socket unit starts.
    pub fn is_in_place(&self) -> bool {
        number(&self.path).is_ok_and(|number| number == self.number)
    }

    /// The directory that it is in.
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

fn number(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn another_one_takes_its_place() {
        let folder = std::env::temp_dir().join(format!("xend-own-socket-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let _first = UnixListener::bind(&path).unwrap();
        let own = OwnSocket::at(path.clone()).unwrap();
        assert!(own.is_in_place());
        std::fs::remove_file(&path).unwrap();
        assert!(!own.is_in_place());
        let _second = UnixListener::bind(&path).unwrap();
        assert!(!own.is_in_place());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
