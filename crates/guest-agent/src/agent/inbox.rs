//! Which of the host's frames came.
//!
//! Linux's console driver can lose input: two of its ways into a terminal's buffer, the interrupt and
//! its thread (hvc_console.c, `hvc_poll`), tell behind its lock how far the buffer is filled, and the
//! later one of them may say the older thing. It happens about once in some hundred megabytes.
//! So the host counts what it sends to sessions, and sends again what did not come.

use crate::FIRST;

/// So many frames come without a word to the host.
const SILENT: u16 = 4;

/// What is to be told to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// All before this number came.
    Came(u16),
    /// Something was lost; from this number on it is wanted again.
    Again(u16),
}

/// The host's frames, by their numbers.
#[derive(Debug)]
pub(super) struct Inbox {
    awaited: u16,
    /// That came since the host was told.
    untold: u16,
    /// The host was told that the awaited one is missing: until that comes, what comes says nothing new.
    asked: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { awaited: FIRST, untold: 0, asked: false }
    }
}

impl Inbox {
    /// A counted frame came: whether it is the next one, and is to be heeded.
    pub(super) fn take(&mut self, number: u16) -> bool {
        let is_next = number == self.awaited;
        if is_next {
            self.awaited = self.awaited.wrapping_add(1);
            self.asked = false;
        }
        // What comes twice is told again: what was told of it may have been overtaken.
        self.untold = self.untold.saturating_add(1);
        is_next
    }

    /// Was that one behind a gap?
    pub(super) fn is_beyond(&self, number: u16) -> bool {
        number.wrapping_sub(self.awaited).wrapping_sub(1) < u16::MAX / 2
    }

    /// Something did not come.
    pub(super) fn miss(&mut self) -> Option<Word> {
        (!std::mem::replace(&mut self.asked, true)).then_some(Word::Again(self.awaited))
    }

    /// What came is told from time to time, and when nothing more is under way.
    pub(super) fn tell(&mut self, nothing_more: bool) -> Option<Word> {
        let due = self.untold >= SILENT || nothing_more && self.untold > 0;
        due.then(|| {
            self.untold = 0;
            Word::Came(self.awaited)
        })
    }
}
