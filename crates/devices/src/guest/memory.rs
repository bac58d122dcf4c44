//! Mappings of guest RAM, of the domain page, and of what is told of frames: their flags, and our holds.
//!
//! The guest writes its memory while we read it: no reference to it is ever made, bytes are copied
//! by address. What was copied is ours.

use super::Layout;
use boundary::{Backend, Channels, DOMAIN_PAGE_SIZE, DomainPage, PAGE, frame_flag, holds};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for the monitor to take note of written frames, of however many, until it shows life
/// again. A stopped domain does not answer: its code cannot run either, and the monitor looks before it
/// runs again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A shared mapping of a memfd.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; all accesses are by address or atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(
        file: impl AsFd,
        offset: u64,
        length: u64,
        writable: bool,
    ) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        if length == 0 || offset.checked_add(length as u64).is_none_or(|end| end > size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the memory is too small"));
        }
        let write = if writable { ProtFlags::WRITE } else { ProtFlags::empty() };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a new mapping at an address that the kernel chooses; the memfds of a domain are
        // sealed against shrinking, and longer than what is mapped, as was just checked.
        let base = unsafe {
            rustix::mm::mmap(anywhere, length, ProtFlags::READ | write, flags, &file, offset)
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length })
    }

    /// The address of `count` bytes at `offset`, if they lie inside.
    pub(crate) fn at(&self, offset: u64, count: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let inside = offset.checked_add(count).is_some_and(|end| end <= self.length);
        // SAFETY: `offset` lies inside the mapping.
        inside.then(|| unsafe { self.base.add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this length; its borrowers are gone.
        let _unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// The memory of a guest.
#[derive(Debug)]
pub struct Memory {
    layout: Layout,
    ram: Mapping,
    page: Mapping,
    /// Requests that write to a frame, a byte each ([`holds`]).
    holds: Mapping,
    arena: OwnedFd,
    /// Flags of frames, mapped once the monitor has said where they are.
    flags: OnceLock<Mapping>,
    /// Since when the monitor, which was told of frames, has taken note of none.
    silent: Mutex<Option<Instant>>,
}

impl Memory {
    pub(super) fn new(
        layout: Layout,
        backend: Backend,
        ram: &OwnedFd,
        arena: OwnedFd,
    ) -> io::Result<Self> {
        let bytes = layout.nr_frames.checked_mul(PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let ram = Mapping::new(ram, 0, bytes, true)?;
        let page = Mapping::new(&arena, 0, DOMAIN_PAGE_SIZE, true)?;
        let holds = Mapping::new(&arena, holds::of(backend), layout.nr_frames, true)?;
        let (flags, silent) = (OnceLock::new(), Mutex::new(None));
        Ok(Self { layout, ram, page, holds, arena, flags, silent })
    }

    /// What the domain process said.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The address of `count` bytes at `offset` of a frame that may be the guest's; `None` if it is
    /// not, or the bytes do not lie in one page.
    pub fn frame(&self, frame: u64, offset: usize, count: usize) -> Option<NonNull<u8>> {
        let fits = offset.checked_add(count).is_some_and(|end| end <= PAGE as usize);
        if frame >= self.layout.max_pages || !fits {
            return None;
        }
        self.ram.at(frame.checked_mul(PAGE)?.checked_add(offset as u64)?, count)
    }

    /// Copies from a frame of the guest's. `None`, with nothing copied, if the bytes do not lie in it.
    pub fn read(&self, frame: u64, offset: usize, to: &mut [u8]) -> Option<()> {
        let from = self.frame(frame, offset, to.len())?;
        // SAFETY: both have the length; the guest's memory cannot overlap a slice of ours. That
        // it may change meanwhile makes the bytes arbitrary, as they are anyway.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        Some(())
    }

    /// Copies to a frame of the guest's. `None`, with nothing copied, if the bytes do not lie in it.
    /// The caller tells the monitor of what it wrote ([`Self::wrote`]).
    pub fn write(&self, frame: u64, offset: usize, from: &[u8]) -> Option<()> {
        let to = self.frame(frame, offset, from.len())?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) };
        Some(())
    }

    /// An aligned 32-bit word of a frame, the monitor's among them.
    pub(super) fn word(&self, frame: u64, offset: usize) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) || offset >= PAGE as usize {
            return None;
        }
        let at = self.ram.at(frame.checked_mul(PAGE)?.checked_add(offset as u64)?, 4)?;
        // SAFETY: inside the mapping and aligned; shared words are only accessed atomically.
        Some(unsafe { at.cast::<AtomicU32>().as_ref() })
    }

    /// An aligned 32-bit word of a guest's frame: indices of rings.
    pub fn guest_word(&self, frame: u64, offset: usize) -> Option<&AtomicU32> {
        self.frame(frame, offset, 4).and_then(|_| self.word(frame, offset))
    }

    /// The domain page's event channels.
    pub(crate) fn channels(&self) -> &Channels {
        // SAFETY: the page is mapped whole; the structure consists of atomics.
        unsafe { &*self.page.base.as_ptr().add(offset_of!(DomainPage, channels)).cast() }
    }

    /// A word of the domain page.
    pub(crate) fn page_word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4) && offset < DOMAIN_PAGE_SIZE as usize);
        // SAFETY: offsets are those of 32-bit atomics of the page.
        unsafe { &*self.page.base.as_ptr().add(offset).cast() }
    }

    /// A request is about to write to a frame by its address, until [`Self::release`]: no program executes
    /// it directly meanwhile. [`Self::wrote`] follows, before it is written: what the monitor made of its
    /// content is forgotten first. False, and nothing is held, if as many do already as can be counted, or
    /// the frame does not exist.
    pub(super) fn hold(&self, frame: u64) -> bool {
        let Some(count) = self.holds_of(frame) else { return false };
        let more = |n: u8| n.checked_add(1);
        count.fetch_update(Ordering::SeqCst, Ordering::Relaxed, more).is_ok()
    }

    /// The request of a [`Self::hold`] is done.
    pub(super) fn release(&self, frame: u64) {
        let fewer = |n: u8| n.checked_sub(1);
        if let Some(count) = self.holds_of(frame) {
            let _was_held = count.fetch_update(Ordering::Release, Ordering::Relaxed, fewer);
        }
    }

    pub(super) fn holds_of(&self, frame: u64) -> Option<&AtomicU8> {
        let at = self.holds.at(frame, 1)?;
        // SAFETY: inside the mapping; shared bytes are only accessed atomically.
        Some(unsafe { at.cast::<AtomicU8>().as_ref() })
    }

    /// Must follow every write to guest's frames, and precede the moment at which the guest learns
    /// of it: if the monitor has made something of a frame's content (translations, copies), it
    /// forgets that now. `notify` makes the monitor look at the domain page.
    pub(super) fn wrote(&self, frames: impl IntoIterator<Item = u64>, notify: impl Fn()) {
        // Either we see the flag, or the monitor, which sets it before it reads, sees what we wrote.
        fence(Ordering::SeqCst);
        for frame in frames {
            if self.is_watched(frame) {
                self.have_forgotten(frame, &notify);
            }
        }
    }

    fn have_forgotten(&self, frame: u64, notify: impl Fn()) {
        let Ok(number) = u32::try_from(frame.saturating_add(1)) else { return };
        let end = self.patience_ends();
        let written = &self.channels().written;
        let taken = loop {
            let free = written.iter().find(|slot| {
                let how = (Ordering::AcqRel, Ordering::Relaxed);
                slot.compare_exchange(0, number, how.0, how.1).is_ok()
            });
            if free.is_some() || Instant::now() > end {
                break free;
            }
            std::thread::sleep(Duration::from_micros(100));
        };
        notify();
        while let Some(slot) = taken {
            if slot.load(Ordering::Acquire) != number {
                self.set_silent(None);
                break;
            }
            if Instant::now() > end {
                break;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Until when the monitor is waited for: all frames share the time, until it has taken note of one.
    fn patience_ends(&self) -> Instant {
        let is_idle = || self.channels().written.iter().all(|it| it.load(Ordering::Acquire) == 0);
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.is_some() && is_idle() {
            *silent = None;
        }
        *silent.get_or_insert_with(Instant::now) + PATIENCE
    }

    fn set_silent(&self, since: Option<Instant>) {
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_watched(&self, frame: u64) -> bool {
        let Some(flags) = self.flags() else { return true };
        let at = flags.at(frame.saturating_add(flags.length as u64 - self.layout.nr_frames), 1);
        // SAFETY: a byte inside the mapping that another process may change.
        at.is_none_or(|at| unsafe { at.read_volatile() } & frame_flag::WATCHED != 0)
    }

    /// The frames' flags, at the mapping's end; `None` while the monitor has not said where they are,
    /// or if what it says cannot be.
    fn flags(&self) -> Option<&Mapping> {
        if let Some(flags) = self.flags.get() {
            return Some(flags);
        }
        let offset = offset_of!(DomainPage, frame_flags);
        // SAFETY: an aligned word of the mapped page, accessed atomically.
        let word =
            unsafe { &*self.page.base.as_ptr().add(offset).cast::<std::sync::atomic::AtomicU64>() };
        let at = word.load(Ordering::Acquire);
        let start = at / PAGE * PAGE;
        if at == 0 {
            return None;
        }
        let length = (at - start).checked_add(self.layout.nr_frames)?;
        let mapped = Mapping::new(&self.arena, start, length, false).ok()?;
        Some(self.flags.get_or_init(|| mapped))
    }
}
