//! Files that are there once they are whole: until then they have no name, so that nothing is left of
//! them if their writer is killed (open(2), `O_TMPFILE`).

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A file without a name, beside what `path` will be; `None` on file systems that know none.
///
/// # Errors
/// Those of the host.
pub fn unnamed_file(path: &Path) -> io::Result<Option<File>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(folder.unwrap_or(Path::new(".")), flags, mode) {
        Ok(file) => Ok(Some(file.into())),
        // As a kernel says that does not know the flag, or a file system that does not.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives such a file its name.
///
/// # Errors
/// `AlreadyExists` when another one has it, and those of the host.
pub fn name_file(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_there_when_it_has_its_name() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        let mut file = unnamed_file(&path).unwrap().unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
        name_file(&file, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(name_file(&file, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(unnamed_file(Path::new("/nonexistent/x")).is_err());
    }
}
