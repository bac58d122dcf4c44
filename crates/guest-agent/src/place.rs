//! Where a copy is put: under a name of its own until it is whole, then under the name it shall have.

mod passing;

use crate::tree::{self, Progress, TreeError};
use passing::Passing;
use rustix::fs::{CWD, RenameFlags};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why there is no such place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The directory is not there, or closed.
    #[error("Cannot use the directory '{}': {source}", path.display().to_string().escape_debug())]
    Parent {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory does not take the place of anything.
    #[error("'{}' is there already", .0.display().to_string().escape_debug())]
    Taken(PathBuf),
    /// The copy has no name.
    #[error("The copy needs a name: give one with the destination")]
    Name,
    /// The copy failed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The whole copy cannot have its name.
    #[error("Cannot give '{}' its name: {source}", path.display().to_string().escape_debug())]
    Rename {
        /// The name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A place for a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    parent: PathBuf,
    name: OsString,
}

impl Place {
    /// `path`, or what is called `name` in it if it is a directory.
    ///
    /// # Errors
    /// When there is no directory for it, or one that has its name already.
    pub fn find(path: &Path, name: &OsStr) -> Result<Self, PlaceError> {
        let is_directory = path.is_dir();
        let (parent, name) = if is_directory {
            (path.to_owned(), name.to_owned())
        } else if path.as_os_str().as_bytes().ends_with(b"/") {
            // It was to be one.
            return Err(PlaceError::Parent {
                path: path.to_owned(),
                source: io::Error::from(io::ErrorKind::NotFound),
            });
        } else {
            let name = path.file_name().ok_or(PlaceError::Name)?.to_owned();
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            (parent.unwrap_or_else(|| Path::new(".")).to_owned(), name)
        };
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.contains(&b'/') || name == "." || name == ".." {
            return Err(PlaceError::Name);
        }
        let place = Self { parent, name };
        if place.path().is_dir() {
            return Err(PlaceError::Taken(place.path()));
        }
        Ok(place)
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// Receives a copy. On failure nothing is left, and what was there before is still there.
    ///
    /// # Errors
    /// As [`PlaceError`] says.
    pub fn receive(
        &self,
        input: &mut impl Read,
        modes: u32,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), PlaceError> {
        let path = &self.parent;
        let parent =
            File::open(path).map_err(|source| PlaceError::Parent { path: path.clone(), source })?;
        passing::sweep(path);
        let passing = Passing::begin(path, &self.name)
            .map_err(|source| PlaceError::Parent { path: path.clone(), source })?;
        tree::receive(input, parent.as_fd(), passing.name(), modes, progress)?;
        let whole = passing.path();
        let rename = |flags| rustix::fs::renameat_with(CWD, whole, CWD, self.path(), flags);
        let renamed = if whole.is_dir() {
            rename(RenameFlags::NOREPLACE)
        } else {
            rename(RenameFlags::empty())
        };
        renamed.map_err(|errno| PlaceError::Rename { path: self.path(), source: errno.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn places() {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        fs::create_dir_all(at("dir/taken")).unwrap();
        fs::write(at("file"), "").unwrap();
        let find = |path: &str, name: &str| {
            Place::find(&at(path), OsStr::new(name)).map(|place| place.path())
        };
        assert_eq!(find("dir", "x").unwrap(), at("dir/x"));
        assert_eq!(find("dir/", "x").unwrap(), at("dir/x"));
        assert_eq!(find("file", "x").unwrap(), at("file"));
        assert_eq!(find("new", "x").unwrap(), at("new"));
        assert!(matches!(find("new/", "x"), Err(PlaceError::Parent { .. })));
        assert!(matches!(find("dir", "taken"), Err(PlaceError::Taken(_))));
        for name in ["", ".", "..", "a/b"] {
            assert!(matches!(find("dir", name), Err(PlaceError::Name)), "{name}");
        }
    }

    #[test]
    fn a_copy_is_there_whole_or_not_at_all() {
        let base = tempfile::tempdir().unwrap();
        let source = base.path().join("source");
        fs::create_dir_all(source.join("closed")).unwrap();
        fs::write(source.join("closed/file"), [7; 100_000]).unwrap();
        let closed = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o500);
        fs::set_permissions(source.join("closed"), closed).unwrap();
        let mut stream = Vec::new();
        tree::send(&source, &mut stream).unwrap();
        let to = base.path().join("to");
        fs::create_dir(&to).unwrap();
        let place = Place::find(&to, OsStr::new("copy")).unwrap();
        for cut in [0, 1, 30, 50_000, stream.len() - 1] {
            let mut part = stream.get(..cut).unwrap();
            assert!(place.receive(&mut part, 0o777, &mut |_| {}).is_err());
            assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "{cut}");
        }
        // What another process left that was killed.
        fs::write(to.join(".other.copy-1-67a0c0de0001.lock"), "").unwrap();
        fs::create_dir(to.join(".other.copy-1-67a0c0de0001")).unwrap();
        place.receive(&mut stream.as_slice(), 0o777, &mut |_| {}).unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
        assert_eq!(fs::read(to.join("copy/closed/file")).unwrap().len(), 100_000);
        assert!(place.receive(&mut stream.as_slice(), 0o777, &mut |_| {}).is_err(), "it is taken");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }

    #[test]
    fn a_file_takes_the_place_of_a_file_when_it_is_whole() {
        let base = tempfile::tempdir().unwrap();
        let (old, new) = (base.path().join("old"), base.path().join("new"));
        fs::write(&old, "old").unwrap();
        fs::write(&new, "new").unwrap();
        let mut stream = Vec::new();
        tree::send(&new, &mut stream).unwrap();
        let place = Place::find(&old, OsStr::new("new")).unwrap();
        let mut part = stream.get(..stream.len() - 2).unwrap();
        assert!(place.receive(&mut part, 0o777, &mut |_| {}).is_err());
        assert_eq!(fs::read(&old).unwrap(), b"old");
        place.receive(&mut stream.as_slice(), 0o777, &mut |_| {}).unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"new");
    }
}
