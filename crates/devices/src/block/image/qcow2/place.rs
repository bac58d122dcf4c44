//! An open file, as an image's growth uses it.

use super::tables::Place;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

impl Place for OwnedFd {
    fn read(&self, mut at: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pread(self, &mut *bytes, at) {
                Ok(0) => {
                    bytes.fill(0);
                    break;
                }
                Ok(got) => {
                    bytes = bytes.get_mut(got..).unwrap_or_default();
                    at += got as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write(&self, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(self, bytes, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(done) => {
                    bytes = bytes.get(done..).unwrap_or_default();
                    at += done as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(self)?)
    }

    fn length(&self) -> io::Result<Option<u64>> {
        let stat = rustix::fs::fstat(self)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_file.then(|| u64::try_from(stat.st_size).unwrap_or(0)))
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(self, length)?)
    }
}
