//! Opening the files that a configuration names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file for reading; returns it with its size in bytes.
///
/// # Errors
/// When it cannot be opened or is something else than a regular file. A named pipe without a
/// writer is refused at once, not waited for.
pub fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok((file, data.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(open_regular(&path).unwrap().1, 5);
        assert!(open_regular(base.path()).is_err());
        let pipe = base.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = open_regular(&pipe).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }
}
