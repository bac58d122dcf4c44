//! Grants: frames that the guest lets Domain-0 use (grant_table.h, version 1).

use super::Guest;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

/// Entries of 8 bytes in a page.
const ENTRIES_PER_PAGE: u32 = 512;
/// Pages of the table.
const PAGES: u32 = 32;
/// `GTF_type_mask`, `GTF_permit_access`.
const TYPE_MASK: u32 = 3;
const PERMIT_ACCESS: u32 = 1;
/// `GTF_readonly`.
const READ_ONLY: u32 = 1 << 2;
/// `GTF_reading`: in use.
const READING: u32 = 1 << 3;
/// `GTF_writing`: in use for writing.
const WRITING: u32 = 1 << 4;

/// What a grant is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reading the guest's memory.
    Read,
    /// Reading and writing it.
    Write,
}

/// Why a grant cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Beyond the table.
    #[error("grant reference {0} is beyond the table")]
    Range(u32),
    /// Not granted to Domain-0, or not at all.
    #[error("grant reference {0} gives Domain-0 no access")]
    NotGranted(u32),
    /// For reading only.
    #[error("grant reference {0} is read-only")]
    ReadOnly(u32),
    /// Not the guest's memory.
    #[error("grant reference {reference} names frame {frame:#x}, which is not the guest's")]
    Frame {
        /// The reference.
        reference: u32,
        /// The frame.
        frame: u64,
    },
    /// Too many requests write to its frame at a time.
    #[error("grant reference {reference} names frame {frame:#x}, which too many requests write to")]
    Busy {
        /// The reference.
        reference: u32,
        /// The frame.
        frame: u64,
    },
    /// The guest changed it again and again meanwhile.
    #[error("grant reference {0} does not stand still")]
    Changing(u32),
}

/// How often a grant is in use here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    readers: u32,
    writers: u32,
}

/// No grant is in use.
pub(super) fn no_uses() -> Vec<Uses> {
    vec![Uses::default(); (PAGES * ENTRIES_PER_PAGE) as usize]
}

/// A granted frame in use, until it is dropped. The guest can take back the grant only then.
#[derive(Debug)]
pub struct Grant {
    guest: Arc<Guest>,
    reference: u32,
    frame: u64,
    access: Access,
    /// For writing: no program executes the frame directly meanwhile.
    is_held: bool,
}

impl Grant {
    pub(super) fn map(
        guest: Arc<Guest>,
        reference: u32,
        access: Access,
    ) -> Result<Self, GrantError> {
        if reference >= PAGES * ENTRIES_PER_PAGE {
            return Err(GrantError::Range(reference));
        }
        // Under the lock: another thread may give up its last use of the same grant.
        let mut uses = guest.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let (flags, number) = guest.entry(reference).ok_or(GrantError::Range(reference))?;
        take(flags, reference, access)?;
        let frame = u64::from(number.load(Ordering::Acquire));
        let user = uses.get_mut(reference as usize).ok_or(GrantError::Range(reference))?;
        match access {
            Access::Read => user.readers = user.readers.saturating_add(1),
            Access::Write => user.writers = user.writers.saturating_add(1),
        }
        drop(uses);
        // From here on dropping it gives up the use.
        let mut grant = Self { guest, reference, frame, access, is_held: false };
        if grant.guest.memory.frame(frame, 0, 1).is_none() {
            return Err(GrantError::Frame { reference, frame });
        }
        if access == Access::Write {
            grant.is_held = grant.guest.hold(frame);
            if !grant.is_held {
                return Err(GrantError::Busy { reference, frame });
            }
        }
        Ok(grant)
    }

    /// The frame.
    pub fn frame(&self) -> u64 {
        self.frame
    }

    /// The reference.
    pub fn reference(&self) -> u32 {
        self.reference
    }

    /// What it may be used for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The address of `count` bytes at `offset`; `None` if they do not lie in the page. For writing
    /// only if the access is; then [`Self::wrote`] follows.
    pub fn at(&self, offset: usize, count: usize) -> Option<NonNull<u8>> {
        self.guest.memory.frame(self.frame, offset, count)
    }

    /// Copies from the frame; `None` if the bytes do not lie in it.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        self.guest.memory.read(self.frame, offset, to)
    }

    /// Copies to the frame, and tells the monitor; `None` if the bytes do not lie in it, or the
    /// access is not for writing.
    pub fn write(&self, offset: usize, from: &[u8]) -> Option<()> {
        if self.access != Access::Write {
            return None;
        }
        self.guest.memory.write(self.frame, offset, from)?;
        self.wrote();
        Some(())
    }

    /// Tells the monitor that the frame was written by its address.
    pub fn wrote(&self) {
        self.guest.wrote(self.frame);
    }

    /// An aligned 32-bit word of the frame.
    pub fn word(&self, offset: usize) -> Option<&AtomicU32> {
        self.guest.memory.guest_word(self.frame, offset)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.is_held {
            self.guest.memory.release(self.frame);
        }
        let mut uses = self.guest.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(user) = uses.get_mut(self.reference as usize) else { return };
        let count = match self.access {
            Access::Read => &mut user.readers,
            Access::Write => &mut user.writers,
        };
        *count = count.saturating_sub(1);
        let mut given_up = 0;
        if user.writers == 0 {
            given_up |= WRITING;
            if user.readers == 0 {
                given_up |= READING;
            }
        }
        if let Some((flags, _)) = self.guest.entry(self.reference) {
            flags.fetch_and(!given_up, Ordering::AcqRel);
        }
    }
}

impl Guest {
    /// The two words of an entry: flags with the domain above them, and the frame.
    pub(crate) fn entry(&self, reference: u32) -> Option<(&AtomicU32, &AtomicU32)> {
        let frame = self.memory.layout().grant_mfn + u64::from(reference / ENTRIES_PER_PAGE);
        let offset = (reference % ENTRIES_PER_PAGE) as usize * 8;
        Some((self.memory.word(frame, offset)?, self.memory.word(frame, offset + 4)?))
    }
}

/// Marks an entry as in use, if it allows that to Domain-0.
fn take(flags: &AtomicU32, reference: u32, access: Access) -> Result<(), GrantError> {
    /// The guest may change an entry meanwhile, but has no reason to do it often.
    const TRIES: u32 = 16;
    let mut now = flags.load(Ordering::Acquire);
    for _ in 0..TRIES {
        let domain = now >> 16;
        if now & TYPE_MASK != PERMIT_ACCESS || domain != 0 {
            return Err(GrantError::NotGranted(reference));
        }
        let used = match access {
            Access::Read => READING,
            Access::Write if now & READ_ONLY != 0 => return Err(GrantError::ReadOnly(reference)),
            Access::Write => READING | WRITING,
        };
        match flags.compare_exchange(now, now | used, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            Err(other) => now = other,
        }
    }
    Err(GrantError::Changing(reference))
}
