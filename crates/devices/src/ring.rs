//! Shared rings (ring.h): requests of the guest's, responses of ours, in the same slots.
//!
//! All indices run freely, modulo 2^32. What the guest may write is read once and checked.

use crate::guest::{Access, Grant, GrantError, Guest};
use boundary::PAGE;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Offsets in the first page of a ring.
mod offset {
    pub const REQ_PROD: usize = 0;
    pub const REQ_EVENT: usize = 4;
    pub const RSP_PROD: usize = 8;
    pub const RSP_EVENT: usize = 12;
    pub const ENTRIES: usize = 64;
}

/// Most pages of a ring (`max-ring-page-order` 4).
pub const MOST_PAGES: usize = 16;

/// Why a ring cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Its pages are not granted.
    #[error("the ring's {0}")]
    Grant(#[from] GrantError),
    /// No or too many pages.
    #[error("a ring of {0} pages is not possible: 1, 2, 4, 8 or 16 are")]
    Pages(usize),
    /// The producer index ran away.
    #[error("the frontend claims {claimed} requests, but its ring has room for {room}")]
    Overflow {
        /// What it claims.
        claimed: u32,
        /// Entries of the ring.
        room: u32,
    },
}

/// Our end of a ring with entries of `SIZE` bytes (the larger of request and response).
#[derive(Debug)]
pub struct BackRing<const SIZE: usize> {
    pages: Vec<Grant>,
    /// Entries, a power of two.
    count: u32,
    req_cons: u32,
    /// Responses written, published or not.
    rsp_prod: u32,
    published: u32,
}

impl<const SIZE: usize> BackRing<SIZE> {
    /// Maps a ring whose pages have these grant references. It goes on where its last backend
    /// stopped: requests without a response are taken again, in the order of their slots. That is
    /// right for a backend that responds in order; one that does not has to keep what it took.
    ///
    /// # Errors
    /// When the pages are not granted, or are not a power of two of them.
    pub fn attach(guest: &Arc<Guest>, references: &[u32]) -> Result<Self, RingError> {
        if !references.len().is_power_of_two() || references.len() > MOST_PAGES {
            return Err(RingError::Pages(references.len()));
        }
        let pages: Vec<Grant> = references
            .iter()
            .map(|reference| guest.map(*reference, Access::Write))
            .collect::<Result<_, _>>()?;
        let room = (pages.len() * PAGE as usize - offset::ENTRIES) / SIZE;
        // The largest power of two that fits (ring.h, __RING_SIZE).
        let count = room.checked_ilog2().map_or(1, |log| 1 << log);
        let mut ring = Self { pages, count, req_cons: 0, rsp_prod: 0, published: 0 };
        ring.rsp_prod =
            ring.index(offset::RSP_PROD).map_or(0, |index| index.load(Ordering::Acquire));
        (ring.req_cons, ring.published) = (ring.rsp_prod, ring.rsp_prod);
        Ok(ring)
    }

    /// Entries.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The index of the next request.
    pub fn consumed(&self) -> u32 {
        self.req_cons
    }

    /// Goes on at another request: for a backend that remembers what the one before it took.
    pub fn resume_at(&mut self, req_cons: u32) {
        self.req_cons = req_cons;
    }

    fn index(&self, at: usize) -> Option<&AtomicU32> {
        self.pages.first().and_then(|page| page.word(at))
    }

    /// Requests that wait.
    ///
    /// # Errors
    /// When the guest claims more than fit.
    pub fn waiting(&self) -> Result<u32, RingError> {
        let produced =
            self.index(offset::REQ_PROD).map_or(self.req_cons, |i| i.load(Ordering::Acquire));
        let claimed = produced.wrapping_sub(self.rsp_prod);
        if claimed > self.count {
            return Err(RingError::Overflow { claimed, room: self.count });
        }
        let waiting = produced.wrapping_sub(self.req_cons);
        // An index that goes back would make requests out of what was taken before.
        if waiting > self.count {
            return Err(RingError::Overflow { claimed: waiting, room: self.count });
        }
        Ok(waiting)
    }

    /// Takes a copy of the next request; `None` when none waits.
    ///
    /// # Errors
    /// When the guest claims more requests than fit.
    pub fn take(&mut self) -> Result<Option<[u8; SIZE]>, RingError> {
        if self.waiting()? == 0 {
            return Ok(None);
        }
        let mut request = [0; SIZE];
        self.copy(self.req_cons, &mut request);
        self.req_cons = self.req_cons.wrapping_add(1);
        Ok(Some(request))
    }

    /// Takes all `n` requests at once or none, for requests of several slots: the copy of the one
    /// `ahead` of the next, which is not yet taken.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn peek(&self, ahead: u32) -> Result<Option<[u8; SIZE]>, RingError> {
        if self.waiting()? <= ahead {
            return Ok(None);
        }
        let mut request = [0; SIZE];
        self.copy(self.req_cons.wrapping_add(ahead), &mut request);
        Ok(Some(request))
    }

    /// Leaves the next `n` requests behind, which were peeked at.
    pub fn skip(&mut self, n: u32) {
        self.req_cons = self.req_cons.wrapping_add(n);
    }

    /// The parts of an entry: page, offset in it, and the part's place in the entry.
    fn parts(&self, index: u32) -> impl Iterator<Item = (&Grant, usize, std::ops::Range<usize>)> {
        let page = PAGE as usize;
        let start = offset::ENTRIES + (index & (self.count - 1)) as usize * SIZE;
        let first = (page - start % page).min(SIZE);
        let pieces = [(start, 0..first), (start + first, first..SIZE)];
        pieces.into_iter().filter(|(_, range)| !range.is_empty()).filter_map(move |(at, range)| {
            self.pages.get(at / page).map(|grant| (grant, at % page, range))
        })
    }

    fn copy(&self, index: u32, to: &mut [u8; SIZE]) {
        for (grant, offset, range) in self.parts(index) {
            if let Some(piece) = to.get_mut(range) {
                let _lies_in_the_page = grant.read(offset, piece);
            }
        }
    }

    /// Writes the next response; the guest sees it after [`Self::publish`].
    pub fn respond(&mut self, response: &[u8]) {
        let index = self.rsp_prod;
        for (grant, offset, range) in self.parts(index) {
            let end = range.end.min(response.len());
            if let Some(piece) = response.get(range.start..end) {
                let _lies_in_the_page = grant.write(offset, piece);
            }
        }
        self.rsp_prod = index.wrapping_add(1);
    }

    /// True when the guest can see all responses written so far.
    pub fn is_published(&self) -> bool {
        self.published == self.rsp_prod
    }

    /// Responses written so far.
    pub fn responded(&self) -> u32 {
        self.rsp_prod
    }

    /// Shows the guest all responses; says whether it wants to be notified.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let old = std::mem::replace(&mut self.published, self.rsp_prod);
        let (Some(produced), Some(event)) =
            (self.index(offset::RSP_PROD), self.index(offset::RSP_EVENT))
        else {
            return false;
        };
        produced.store(self.rsp_prod, Ordering::Release);
        fence(Ordering::SeqCst);
        let new = self.rsp_prod;
        new.wrapping_sub(event.load(Ordering::Acquire)) < new.wrapping_sub(old)
    }

    /// Asks to be notified of the next request; true if one came meanwhile.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn rest(&mut self) -> Result<bool, RingError> {
        self.rest_until(1)
    }

    /// Asks to be notified once `wanted` requests wait; true if they do already.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn rest_until(&mut self, wanted: u32) -> Result<bool, RingError> {
        if self.waiting()? >= wanted {
            return Ok(true);
        }
        if let Some(event) = self.index(offset::REQ_EVENT) {
            event.store(self.req_cons.wrapping_add(wanted), Ordering::Release);
        }
        fence(Ordering::SeqCst);
        Ok(self.waiting()? >= wanted)
    }
}
