//! Raw images: files and block devices.

use super::{Geometry, Operation};
use crate::block::buffers::{Buffers, move_all};
use rustix::fs::{FallocateFlags, FileType};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests of ioctl(2) on block devices (linux/fs.h).
pub mod ioctl {
    /// `BLKSSZGET`: bytes of a sector.
    pub const SECTOR_SIZE: u64 = 0x1268;
    /// `BLKPBSZGET`: bytes of a sector inside the device.
    pub const PHYSICAL_SECTOR_SIZE: u64 = 0x127b;
    /// `BLKGETSIZE64`: size.
    pub const SIZE: u64 = 0x8008_1272;
    /// `BLKDISCARD`: forget a range.
    pub const DISCARD: u64 = 0x1277;
}

/// Sectors of image files: what every guest can use.
const FILE_SECTOR: u32 = 512;
/// What file systems write as a whole.
const FILE_BLOCK: u32 = 4096;

/// A raw image.
#[derive(Debug)]
pub struct RawImage {
    file: OwnedFd,
    is_device: bool,
    bytes: AtomicU64,
    sector_size: u32,
    physical_sector_size: u32,
    /// The file system refuses to say whether a call would wait: it is not asked again.
    never_now: AtomicBool,
    never_writes_now: AtomicBool,
    /// Until then, writes are likely to wait.
    slow_until: Mutex<Option<Instant>>,
}

/// A write that takes longer than this waited for the disk.
const QUICK: Duration = Duration::from_millis(1);
/// How long writes are left to others after one that waited.
const SLOW: Duration = Duration::from_millis(100);

impl RawImage {
    /// Takes over a file or block device.
    ///
    /// # Errors
    /// When it is neither, or the host does not tell its size.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        let is_device = match kind {
            FileType::RegularFile => false,
            FileType::BlockDevice => true,
            _ => {
                let why = "it is neither a file nor a block device";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
        };
        let (mut sector_size, mut physical_sector_size) = (FILE_SECTOR, FILE_BLOCK);
        if is_device {
            sector_size = number(&file, ioctl::SECTOR_SIZE)?;
            physical_sector_size = number(&file, ioctl::PHYSICAL_SECTOR_SIZE)?.max(sector_size);
        }
        if !sector_size.is_power_of_two() || !(512..=4096).contains(&sector_size) {
            let why = format!("its sectors have {sector_size} bytes; 512 to 4096 can be served");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let image = Self {
            file,
            is_device,
            bytes: AtomicU64::new(0),
            sector_size,
            physical_sector_size,
            never_now: AtomicBool::new(false),
            never_writes_now: AtomicBool::new(false),
            slow_until: Mutex::new(None),
        };
        image.refresh()?;
        Ok(image)
    }

    /// Looks at its size again.
    pub fn refresh(&self) -> io::Result<()> {
        let bytes = if self.is_device {
            device_size(&self.file)?
        } else {
            u64::try_from(rustix::fs::fstat(&self.file)?.st_size).unwrap_or(0)
        };
        // A piece of a sector at its end is out of reach.
        self.bytes.store(bytes - bytes % u64::from(self.sector_size), Ordering::Release);
        Ok(())
    }

    /// Its dimensions.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            bytes: self.bytes.load(Ordering::Acquire),
            sector_size: self.sector_size,
            physical_sector_size: self.physical_sector_size,
            discard_granularity: self.physical_sector_size,
        }
    }

    /// Its descriptor.
    pub fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// True for a block device.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// Reads what lies in the host's memory, or writes to there, without waiting for the disk. Says
    /// how many bytes that were.
    pub fn try_now(&self, operation: Operation, offset: u64, buffers: &Buffers) -> usize {
        let (never, call): (_, Mover) = match operation {
            Operation::Read => (&self.never_now, libc::preadv2),
            Operation::Write => (&self.never_writes_now, libc::pwritev2),
            Operation::Flush | Operation::Discard { .. } | Operation::Grow { .. } => return 0,
        };
        if never.load(Ordering::Relaxed) {
            let is_write = operation == Operation::Write;
            return if is_write { self.write_quickly(offset, buffers) } else { 0 };
        }
        let moved = moving(call, self.raw_fd(), buffers.pieces(), offset, libc::RWF_NOWAIT);
        if moved < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP) {
            never.store(true, Ordering::Relaxed);
        }
        usize::try_from(moved).unwrap_or(0)
    }

    /// Writes to the host's memory on a file system that cannot say whether that waits (ext4). It
    /// does so seldom, but then for long: when the host has too much to write back. Handing each
    /// write to a thread costs several times what the write itself does.
    fn write_quickly(&self, offset: u64, buffers: &Buffers) -> usize {
        let mut slow_until = self.slow_until.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        if slow_until.is_some_and(|end| start < end) {
            return 0;
        }
        let moved = moving(libc::pwritev2, self.raw_fd(), buffers.pieces(), offset, 0);
        let end = Instant::now();
        *slow_until = (end - start > QUICK).then(|| end + SLOW);
        // What failed is tried again by others, who report it.
        usize::try_from(moved).unwrap_or(0)
    }

    /// See [`super::Image::run`].
    pub fn run(&self, operation: Operation, offset: u64, buffers: &Buffers) -> io::Result<()> {
        let fd = self.raw_fd();
        match operation {
            Operation::Read => move_all(buffers, 0, |pieces, done| {
                moving(libc::preadv2, fd, pieces, offset + done, 0)
            }),
            Operation::Write => move_all(buffers, 0, |pieces, done| {
                moving(libc::pwritev2, fd, pieces, offset + done, 0)
            }),
            Operation::Flush => Ok(rustix::fs::fdatasync(&self.file)?),
            Operation::Discard { bytes } if self.is_device => {
                discard_device(&self.file, offset, bytes)
            }
            Operation::Discard { bytes } => {
                let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(rustix::fs::fallocate(&self.file, how, offset, bytes)?)
            }
            Operation::Grow { bytes } => self.grow(bytes),
        }
    }

    fn grow(&self, bytes: u64) -> io::Result<()> {
        let wrong = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
        if self.is_device {
            return wrong("it is a block device");
        }
        let now = u64::try_from(rustix::fs::fstat(&self.file)?.st_size).unwrap_or(0);
        if bytes < now {
            return wrong("it is longer than that");
        }
        rustix::fs::ftruncate(&self.file, bytes)?;
        if let Err(error) = rustix::fs::fdatasync(&self.file) {
            let _as_it_was = rustix::fs::ftruncate(&self.file, now);
            return Err(error.into());
        }
        self.refresh()
    }
}

type Mover =
    unsafe extern "C" fn(RawFd, *const libc::iovec, libc::c_int, libc::off_t, libc::c_int) -> isize;

fn moving(call: Mover, fd: RawFd, pieces: &[libc::iovec], offset: u64, flags: i32) -> isize {
    // A request has fewer pieces than a call takes (IOV_MAX, 1024).
    let count = libc::c_int::try_from(pieces.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the pieces are guest memory that stays mapped while they are borrowed; that the guest
    // changes it meanwhile is its own affair.
    unsafe { call(fd, pieces.as_ptr(), count, offset.cast_signed(), flags) }
}

fn number(device: &OwnedFd, request: u64) -> io::Result<u32> {
    let mut value: libc::c_uint = 0;
    // SAFETY: these requests write an int.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut value) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Bytes of a block device.
pub fn device_size(device: impl std::os::fd::AsFd) -> io::Result<u64> {
    let device: BorrowedFd<'_> = device.as_fd();
    let mut value: u64 = 0;
    // SAFETY: the request writes a u64.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), ioctl::SIZE, &raw mut value) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn discard_device(device: &OwnedFd, offset: u64, bytes: u64) -> io::Result<()> {
    let range = [offset, bytes];
    // SAFETY: the request reads two u64.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), ioctl::DISCARD, range.as_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
