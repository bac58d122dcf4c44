//! An open file as imago wants its storage.
//!
//! (imago's own would ask the host for more than a process in its jail may: for the file's size by
//! statx(2), for the block size of its file system.)

use super::raw::device_size;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageOpenOptions};
use rustix::fs::{FallocateFlags, FileType};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where ranges to be zeroed begin and end: what block devices want at least.
const ALIGN: usize = 512;

/// A file.
#[derive(Debug)]
pub struct OpenFile {
    file: Arc<OwnedFd>,
    size: AtomicU64,
    /// Held while the file is made longer, so that it is never made shorter again by another.
    growth: Mutex<()>,
    helper: CommonStorageHelper,
}

impl OpenFile {
    pub fn new(file: Arc<OwnedFd>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        let size = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => device_size(&file)?,
            FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(0),
            _ => {
                let why = "it is neither a file nor a block device";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
        };
        Ok(Self {
            file,
            size: AtomicU64::new(size),
            growth: Mutex::default(),
            helper: CommonStorageHelper::default(),
        })
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        let _alone = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        // Writes may have made it longer meanwhile.
        let now = u64::try_from(rustix::fs::fstat(&self.file)?.st_size).unwrap_or(0);
        if size > now {
            rustix::fs::ftruncate(&self.file, size)?;
        }
        self.size.fetch_max(size, Ordering::AcqRel);
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length).min(self.size.load(Ordering::Acquire));
        if offset >= end {
            return Ok(());
        }
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.file, how, offset, end - offset)?)
    }
}

impl fmt::Display for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an open file")
    }
}

/// Result of a call that moves bytes; `None` to be made again.
fn moved(result: isize) -> io::Result<Option<u64>> {
    match u64::try_from(result) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        },
    }
}

impl Storage for OpenFile {
    fn open(_: StorageOpenOptions) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "files are not opened by name"))
    }

    fn zero_align(&self) -> usize {
        ALIGN
    }

    fn discard_align(&self) -> usize {
        ALIGN
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size.load(Ordering::Acquire))
    }

    unsafe fn pure_readv(&self, mut bufv: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        while !bufv.is_empty() {
            // SAFETY: the pieces are used for this call alone, which writes nothing else.
            let result = unsafe {
                let pieces = bufv.as_iovec();
                let count = pieces.len().min(1024) as libc::c_int;
                libc::preadv(self.file.as_raw_fd(), pieces.as_ptr(), count, offset.cast_signed())
            };
            match moved(result)? {
                None => {}
                Some(0) => {
                    // Behind the end of the file there are zeros.
                    bufv.fill(0);
                    break;
                }
                Some(bytes) => {
                    bufv = bufv.split_tail_at(bytes);
                    offset = offset.saturating_add(bytes);
                }
            }
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, mut bufv: IoVector<'_>, mut offset: u64) -> io::Result<()> {
        while !bufv.is_empty() {
            // SAFETY: as above; the call writes to no memory at all.
            let result = unsafe {
                let pieces = bufv.as_iovec();
                let count = pieces.len().min(1024) as libc::c_int;
                libc::pwritev(self.file.as_raw_fd(), pieces.as_ptr(), count, offset.cast_signed())
            };
            match moved(result)? {
                None => {}
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(bytes) => {
                    bufv = bufv.split_tail_at(bytes);
                    offset = offset.saturating_add(bytes);
                    self.size.fetch_max(offset, Ordering::AcqRel);
                }
            }
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        self.zero(offset, length)?;
        if end > self.size.load(Ordering::Acquire) { self.grow(end) } else { Ok(()) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.zero(offset, length) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    fn resize(&self, new_size: u64, prealloc_mode: PreallocateMode) -> io::Result<()> {
        let is_longer = new_size >= self.size.load(Ordering::Acquire);
        match prealloc_mode {
            PreallocateMode::None | PreallocateMode::Zero if is_longer => self.grow(new_size),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
