//! Memory that is shared with spaces.
//!
//! A [`PrivateMemory`] is a memfd that nobody else has seen: plain slices of it
//! are sound. [`PrivateMemory::share`] turns it into a [`SharedMemory`], which
//! alone gives out its descriptor and whose bytes are reached by atomic
//! operations only, because a hostile guest may change them at any time.

use boundary::{DomainPage, MAGIC, Setup};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A memfd of fixed size, its first `length` bytes mapped.
#[derive(Debug)]
struct Mapping {
    fd: OwnedFd,
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; the two types
// that wrap it decide which accesses are possible.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` itself gives no access to the bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(name: &CStr, size: u64, length: usize) -> io::Result<Self> {
        let fd = create_memfd(name, size)?;
        if length == 0 {
            return Ok(Self { fd, base: NonNull::dangling(), length });
        }
        if length as u64 > size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let base = map(&fd, length)?;
        Ok(Self { fd, base, length })
    }

    /// A pointer to `length` bytes at `offset` if they lie inside and are aligned.
    fn at<T>(&self, offset: u64, count: usize) -> Option<NonNull<T>> {
        let offset = usize::try_from(offset).ok()?;
        let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
        if end > self.length || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: `offset` lies inside the mapping, as was just checked.
        Some(unsafe { self.base.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: made by `mmap` with this length; all borrows of it are over.
            let _unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
        }
    }
}

/// A huge page of the host.
const HUGE: usize = 2 << 20;

/// Maps the first `length` bytes, which are sealed, where huge pages of the file can be huge pages of the mapping.
fn map(fd: &OwnedFd, length: usize) -> io::Result<NonNull<u8>> {
    let room = length.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
    let nothing = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: new mappings: of nothing, at an address that the kernel chooses, and within that one; what is
    // left of it before and behind goes. The size of the memfd is sealed, so that no access past its end can happen.
    unsafe {
        let start =
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), room, ProtFlags::empty(), nothing)?;
        let before = start.align_offset(HUGE).min(HUGE);
        let base = start.byte_add(before);
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
        let mapped =
            rustix::mm::mmap(base, length, ProtFlags::READ | ProtFlags::WRITE, flags, fd, 0);
        let behind = length.next_multiple_of(rustix::param::page_size());
        let unused = if mapped.is_ok() {
            [(start, before), (base.byte_add(behind), HUGE - before)]
        } else {
            [(start, room), (start, 0)]
        };
        for (at, len) in unused.into_iter().filter(|(_, len)| *len > 0) {
            rustix::mm::munmap(at, len)?;
        }
        NonNull::new(mapped?.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

/// A sealed memfd that closes on exec; never executable as a program where the
/// kernel can promise that (`MFD_NOEXEC_SEAL`, Linux 6.3).
fn create_memfd(name: &CStr, size: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    }?;
    rustix::fs::ftruncate(&fd, size)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Memory before anybody else can reach it; zero at first.
#[derive(Debug)]
pub struct PrivateMemory(Mapping);

impl PrivateMemory {
    /// Creates `size` bytes and maps the first `mapped` of them.
    ///
    /// # Errors
    /// When the host gives no memfd or no address space.
    pub fn new(name: &CStr, size: u64, mapped: u64) -> io::Result<Self> {
        let mapped = usize::try_from(mapped).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Mapping::new(name, size, mapped).map(Self)
    }

    /// The mapped bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has this length; the descriptor never left this
        // value, so that nobody else reaches the bytes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.0.base.as_ptr(), self.0.length) }
    }

    /// Asks the host to provide the pages of a range now, in one go, and huge ones where it has them. This is
    /// a hint: nothing happens where it cannot.
    pub fn populate(&mut self, offset: u64, length: u64) {
        let Ok(count) = usize::try_from(length) else { return };
        if let Some(start) = self.0.at::<u8>(offset, count) {
            gather(start, count);
            // SAFETY: the range lies inside the mapping; populating it does not
            // change its bytes.
            let _hint = unsafe {
                rustix::mm::madvise(start.as_ptr().cast(), count, Advice::LinuxPopulateWrite)
            };
        }
    }

    /// Writes a domain page with `setup` at offset 0.
    ///
    /// # Errors
    /// When the mapping is too small for it.
    pub fn write_domain_page(&mut self, setup: &Setup) -> io::Result<()> {
        let page = self.0.at::<DomainPage>(0, 1).ok_or(io::ErrorKind::InvalidInput)?.as_ptr();
        // SAFETY: `page` points to enough aligned bytes of ours; the fields are
        // plain data, and zero bytes are valid for all others.
        unsafe {
            (&raw mut (*page).setup).write(*setup);
            let missing = setup.max_pages.saturating_sub(setup.nr_pages);
            (&raw mut (*page).ballooned).write(AtomicU64::new(missing));
            (&raw mut (*page).most_pages).write(AtomicU64::new(setup.max_pages));
            (&raw mut (*page).magic).write(MAGIC);
        }
        Ok(())
    }

    /// Makes the memory available to others.
    pub fn share(self) -> SharedMemory {
        SharedMemory(self.0)
    }
}

/// Asks for a huge page for each that fits into `count` bytes of a mapping, until the host refuses.
fn gather(start: NonNull<u8>, count: usize) {
    let first = start.align_offset(HUGE);
    for offset in (first..).step_by(HUGE).take_while(|offset| offset + HUGE <= count) {
        // SAFETY: the piece lies inside the mapping; neither call changes its bytes. Linux gathers nothing where
        // there is nothing yet, so that it gets a first page.
        let done = unsafe {
            let piece = start.add(offset).as_ptr().cast();
            rustix::mm::madvise(piece, rustix::param::page_size(), Advice::LinuxPopulateWrite)
                .is_ok()
                && libc::madvise(piece, HUGE, libc::MADV_COLLAPSE) == 0
        };
        if !done {
            return;
        }
    }
}

/// Memory that others may read and write at any time.
#[derive(Debug)]
pub struct SharedMemory(Mapping);

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl SharedMemory {
    /// Bytes of the memory that take up memory of the host's.
    pub fn resident(&self) -> u64 {
        // Blocks of 512 bytes, whatever the file system's own are (stat(2)).
        rustix::fs::fstat(self).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
    }

    /// Another descriptor of all of it, with which nothing can be written.
    ///
    /// # Errors
    /// When the host has no descriptors left, or no `/proc`.
    pub fn open_for_reading(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.as_fd().as_raw_fd());
        Ok(std::fs::File::open(path)?.into())
    }

    /// `count` bytes at `offset`; `None` if they do not lie inside the mapping.
    pub fn bytes(&self, offset: u64, count: usize) -> Option<&[AtomicU8]> {
        let start = self.0.at::<AtomicU8>(offset, count)?;
        // SAFETY: the bytes lie inside the mapping, which lives as long as `self`;
        // shared bytes are only ever accessed atomically.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), count) })
    }

    /// The 32-bit word at `offset`; `None` if it lies outside or is not aligned.
    pub fn word(&self, offset: u64) -> Option<&AtomicU32> {
        let word = self.0.at::<AtomicU32>(offset, 1)?;
        // SAFETY: as in `bytes`, and aligned, as `at` checks.
        Some(unsafe { word.as_ref() })
    }

    /// The 64-bit word at `offset`; `None` if it lies outside or is not aligned.
    pub fn long(&self, offset: u64) -> Option<&AtomicU64> {
        let word = self.0.at::<AtomicU64>(offset, 1)?;
        // SAFETY: as in `bytes`, and aligned, as `at` checks.
        Some(unsafe { word.as_ref() })
    }

    /// Copies `count` bytes from `offset` out; `None` if they lie outside.
    pub fn copy_out(&self, offset: u64, count: usize) -> Option<Vec<u8>> {
        let bytes = self.bytes(offset, count)?;
        Some(bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).collect())
    }

    /// Copies `data` to `offset`; `None`, with nothing written, if it does not fit.
    pub fn copy_in(&self, offset: u64, data: &[u8]) -> Option<()> {
        let bytes = self.bytes(offset, data.len())?;
        for (to, from) in bytes.iter().zip(data) {
            to.store(*from, Ordering::Relaxed);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_sharing_is_seen_after() {
        let mut memory = PrivateMemory::new(c"test", 16384, 8192).unwrap();
        memory.populate(0, 8192);
        memory.bytes()[4096] = 7;
        let shared = memory.share();
        assert_eq!(shared.copy_out(4096, 2).unwrap(), [7, 0]);
        shared.copy_in(8190, &[1, 2]).unwrap();
        assert_eq!(shared.word(8188).unwrap().load(Ordering::Relaxed), 0x0201_0000);
    }

    #[test]
    fn huge_pages_can_be_asked_for_and_change_nothing() {
        let size = 4 * HUGE - 4096;
        let mut memory = PrivateMemory::new(c"test", size as u64, size as u64).unwrap();
        assert!(memory.bytes().as_ptr().addr().is_multiple_of(HUGE));
        memory.bytes()[2 * HUGE + 5] = 3;
        memory.populate(HUGE as u64 / 2, 3 * HUGE as u64);
        memory.bytes()[size - 1] = 4;
        let other: usize = memory.bytes().iter().map(|byte| usize::from(*byte)).sum();
        assert_eq!((memory.bytes()[2 * HUGE + 5], memory.bytes()[size - 1], other), (3, 4, 7));
    }

    #[test]
    fn nothing_outside_the_mapping_is_reachable() {
        let shared = PrivateMemory::new(c"test", 16384, 8192).unwrap().share();
        assert!(shared.bytes(8190, 3).is_none());
        assert!(shared.bytes(u64::MAX, 2).is_none());
        assert!(shared.bytes(1, usize::MAX).is_none());
        assert!(shared.word(8192).is_none());
        assert!(shared.word(2).is_none(), "not aligned");
        assert!(shared.copy_in(8191, &[1, 2]).is_none());
        assert_eq!(shared.copy_out(8191, 1).unwrap(), [0]);
    }

    #[test]
    fn the_size_is_sealed() {
        let shared = PrivateMemory::new(c"test", 8192, 0).unwrap().share();
        assert!(rustix::fs::ftruncate(&shared, 4096).is_err());
        assert!(rustix::fs::ftruncate(&shared, 16384).is_err());
        assert!(PrivateMemory::new(c"test", 4096, 8192).is_err());
    }
}
