//! The initial ramdisk: a file that is streamed into guest memory.

use super::error::BuildError;
use crate::file::open_regular;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// An open ramdisk file.
#[derive(Debug)]
pub struct Ramdisk {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Ramdisk {
    /// Opens a ramdisk.
    ///
    /// # Errors
    /// When it cannot be opened or is not a regular file with something in it.
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        let failed = |source| BuildError::Ramdisk { path: path.to_path_buf(), source };
        let (file, size) = open_regular(path).map_err(failed)?;
        if size == 0 {
            return Err(failed(io::Error::other("it is empty")));
        }
        Ok(Self { path: path.to_path_buf(), file, size })
    }

    /// Its size in bytes, as it was when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads the whole file into `to`, which is at least [`Ramdisk::size`] long.
    pub(super) fn read_into(&self, to: &mut [u8]) -> Result<(), BuildError> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let place = to.get_mut(..size).ok_or(BuildError::Layout { what: "the ramdisk" })?;
        (&self.file)
            .read_exact(place)
            .map_err(|source| BuildError::Ramdisk { path: self.path.clone(), source })
    }
}
