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

impl Uses {
    fn count(&mut self, access: Access) -> &mut u32 {
        match access {
            Access::Read => &mut self.readers,
            Access::Write => &mut self.writers,
        }
    }
}

/// No grant is in use.
pub(super) fn no_uses() -> Vec<Uses> {
    vec![Uses::default(); (PAGES * ENTRIES_PER_PAGE) as usize]
}

/// A reference, and the frame that it names.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    reference: u32,
    frame: u64,
}

/// Granted frames in use, until this is dropped. The guest can take back the grants only then.
#[derive(Debug)]
pub struct InUse<T: AsRef<[Granted]>> {
    guest: Arc<Guest>,
    granted: T,
    access: Access,
    /// Of so many no program executes the frames directly meanwhile.
    held: usize,
}

/// A granted frame in use.
pub type Grant = InUse<[Granted; 1]>;
/// The granted frames that a request uses: cheaper than each by itself.
pub type Grants = InUse<Vec<Granted>>;

impl Grant {
    pub(super) fn map(
        guest: Arc<Guest>,
        reference: u32,
        access: Access,
    ) -> Result<Self, GrantError> {
        let mut uses = guest.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = [guest.begin_use(&mut uses, reference, access)?];
        drop(uses);
        Self { guest, granted, access, held: 0 }.hold()
    }

    /// The address of `count` bytes at `offset`; `None` if they do not lie in the page. For writing
    /// only if the access is; then [`Self::wrote`] follows.
    pub fn at(&self, offset: usize, count: usize) -> Option<NonNull<u8>> {
        self.guest.memory.frame(self.frame(), offset, count)
    }

    /// Copies from the frame; `None` if the bytes do not lie in it.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        self.guest.memory.read(self.frame(), offset, to)
    }

    /// Copies to the frame, and tells the monitor; `None` if the bytes do not lie in it, or the
    /// access is not for writing.
    pub fn write(&self, offset: usize, from: &[u8]) -> Option<()> {
        if self.access != Access::Write {
            return None;
        }
        self.guest.memory.write(self.frame(), offset, from)?;
        self.wrote();
        Some(())
    }

    /// An aligned 32-bit word of the frame.
    pub fn word(&self, offset: usize) -> Option<&AtomicU32> {
        self.guest.memory.guest_word(self.frame(), offset)
    }

    fn frame(&self) -> u64 {
        let [granted] = self.granted;
        granted.frame
    }
}

impl Grants {
    pub(super) fn map(
        guest: &Arc<Guest>,
        references: impl ExactSizeIterator<Item = u32>,
        access: Access,
    ) -> Result<Self, GrantError> {
        let granted = Vec::with_capacity(references.len());
        let mut grants = Self { guest: guest.clone(), granted, access, held: 0 };
        // Given back before the grants are, if one of them is refused.
        let mut uses = guest.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for reference in references {
            grants.granted.push(guest.begin_use(&mut uses, reference, access)?);
        }
        drop(uses);
        grants.hold()
    }

    /// As [`Grant::at`], in the frame that was named at `index`.
    pub fn at(&self, index: usize, offset: usize, count: usize) -> Option<NonNull<u8>> {
        self.guest.memory.frame(self.granted.get(index)?.frame, offset, count)
    }

    /// As [`Grant::read`], from the frame that was named at `index`.
    pub fn read(&self, index: usize, offset: usize, to: &mut [u8]) -> Option<()> {
        self.guest.memory.read(self.granted.get(index)?.frame, offset, to)
    }
}

impl<T: AsRef<[Granted]>> InUse<T> {
    /// Sees to it that the frames are the guest's, and if they are to be written, that no program
    /// executes them meanwhile.
    fn hold(mut self) -> Result<Self, GrantError> {
        let memory = &self.guest.memory;
        for &Granted { reference, frame } in self.granted.as_ref() {
            if memory.frame(frame, 0, 1).is_none() {
                return Err(GrantError::Frame { reference, frame });
            }
        }
        if self.access == Access::Write {
            for &Granted { reference, frame } in self.granted.as_ref() {
                if !memory.hold(frame) {
                    return Err(GrantError::Busy { reference, frame });
                }
                self.held += 1;
            }
            self.wrote();
        }
        Ok(self)
    }

    /// What they may be used for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Tells the monitor that the frames were written by their addresses.
    pub fn wrote(&self) {
        self.guest.wrote(self.granted.as_ref().iter().map(|granted| granted.frame));
    }
}

impl<T: AsRef<[Granted]>> Drop for InUse<T> {
    fn drop(&mut self) {
        let granted = self.granted.as_ref();
        for granted in granted.iter().take(self.held) {
            self.guest.memory.release(granted.frame);
        }
        let mut uses = self.guest.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for granted in granted {
            self.guest.end_use(&mut uses, granted.reference, self.access);
        }
    }
}

/// Uses are counted and entries marked under the lock: another thread may give up its last use of the same
/// grant.
impl Guest {
    fn begin_use(
        &self,
        uses: &mut [Uses],
        reference: u32,
        access: Access,
    ) -> Result<Granted, GrantError> {
        let beyond = GrantError::Range(reference);
        let user = uses.get_mut(reference as usize).ok_or(beyond)?;
        let (flags, number) = self.entry(reference).ok_or(beyond)?;
        take(flags, reference, access)?;
        let count = user.count(access);
        *count = count.saturating_add(1);
        Ok(Granted { reference, frame: number.load(Ordering::Acquire).into() })
    }

    fn end_use(&self, uses: &mut [Uses], reference: u32, access: Access) {
        let Some(user) = uses.get_mut(reference as usize) else { return };
        let count = user.count(access);
        *count = count.saturating_sub(1);
        let given_up = match user {
            Uses { readers: 0, writers: 0 } => READING | WRITING,
            Uses { writers: 0, .. } => WRITING,
            _ => 0,
        };
        if let Some((flags, _)) = self.entry(reference) {
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
