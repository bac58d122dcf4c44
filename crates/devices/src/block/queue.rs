//! A queue of a disk: its ring, its event channel, and the grants it keeps.

use super::in_flight::{InFlight, Left, Records, Slot};
use super::nodes::RingNodes;
use super::protocol::{ENTRY, Status, Tag};
use crate::guest::{Access, Grant, GrantError, Grants, Guest, Port};
use crate::ring::{BackRing, RingError};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

/// Most grants that a queue keeps: the frontend's largest working set, 32 requests of 32 segments and
/// a page that lists them (xen-blkfront, with room for the ring's size).
const MOST_KEPT: usize = 1056;

/// Why a queue cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Its ring cannot.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Its event channel does not exist.
    #[error("event channel {0} does not exist")]
    Port(u32),
    /// More requests than the ring has room for.
    #[error("more requests are open than the ring has room for")]
    TooMany,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    guest: Arc<Guest>,
    ring: BackRing<ENTRY>,
    port: Port,
    records: Records,
    kept: Option<Kept>,
}

impl Queue {
    /// Begins to serve a ring, or goes on with one that a process before this one served: then these
    /// are the requests that it left.
    ///
    /// # Errors
    /// When the ring or the event channel is none.
    pub fn open(
        guest: &Arc<Guest>,
        nodes: &RingNodes,
        (file, number): (&Arc<InFlight>, usize),
        persistent: bool,
    ) -> Result<(Self, Vec<Left>), QueueError> {
        let mut ring = BackRing::attach(guest, &nodes.references)?;
        let port = guest.bind(nodes.port).ok_or(QueueError::Port(nodes.port))?;
        let (records, left) = Records::open(file, number, nodes, ring.responded());
        // As many were taken as were answered and are left.
        ring.resume_at(ring.responded().wrapping_add(left.len() as u32));
        let kept = persistent.then(Kept::default);
        Ok((Self { guest: guest.clone(), ring, port, records, kept }, left))
    }

    /// Takes the next request, with its record; `None` when none waits.
    ///
    /// # Errors
    /// When the frontend claims more requests than fit.
    pub fn take(&mut self) -> Result<Option<Left>, QueueError> {
        let Some(request) = self.ring.peek(0)? else { return Ok(None) };
        let slot = self.records.keep(&request).ok_or(QueueError::TooMany)?;
        self.ring.skip(1);
        Ok(Some((slot, request)))
    }

    /// Answers a request; the guest sees it after [`Self::publish`].
    pub fn respond(&mut self, slot: Slot, tag: Tag, status: Status) {
        self.records.answer(slot, self.ring.responded());
        self.ring.respond(&tag.response(status));
    }

    /// Shows the guest what was answered, and tells it.
    pub fn publish(&mut self) {
        if !self.ring.is_published() {
            let wants_to_know = self.ring.publish();
            self.records.published();
            if wants_to_know {
                self.port.notify();
            }
        }
    }

    /// True when a request waits.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn has_work(&self) -> Result<bool, QueueError> {
        Ok(self.ring.waiting()? > 0)
    }

    /// Asks to be notified of the next request; true if one came meanwhile.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn rest(&mut self) -> Result<bool, QueueError> {
        Ok(self.ring.rest()?)
    }

    /// Tells the guest that something may have changed: a process before this one may have answered
    /// without coming to say so.
    pub fn notify(&self) {
        self.port.notify();
    }

    /// Frames that the frontend granted for a request. They are kept for later requests where it agreed
    /// to that.
    ///
    /// # Errors
    /// As [`Guest::map_all`].
    pub fn frames(
        &mut self,
        references: impl ExactSizeIterator<Item = u32>,
        access: Access,
    ) -> Result<Frames, GrantError> {
        Ok(match &mut self.kept {
            Some(kept) => {
                let grants = references.map(|it| kept.get(&self.guest, it, access));
                Frames::Kept(grants.collect::<Result<_, _>>()?)
            }
            None => Frames::Own(self.guest.map_all(references, access)?),
        })
    }
}

/// Frames that a request uses.
#[derive(Debug)]
pub enum Frames {
    /// Until it is done.
    Own(Grants),
    /// Longer.
    Kept(Vec<Arc<Grant>>),
}

impl Frames {
    /// The address of `count` bytes at `offset` of a frame, by its index among the references; `None` if
    /// they do not lie in it. For writing only if the access is; then [`Self::wrote`] follows.
    pub fn at(&self, index: usize, offset: usize, count: usize) -> Option<NonNull<u8>> {
        match self {
            Self::Own(grants) => grants.at(index, offset, count),
            Self::Kept(grants) => grants.get(index)?.at(offset, count),
        }
    }

    /// Copies from a frame; `None` if the bytes do not lie in it.
    pub fn read(&self, index: usize, offset: usize, to: &mut [u8]) -> Option<()> {
        match self {
            Self::Own(grants) => grants.read(index, offset, to),
            Self::Kept(grants) => grants.get(index)?.read(offset, to),
        }
    }

    /// Tells the monitor that they were written by their addresses.
    pub fn wrote(&self) {
        match self {
            Self::Own(grants) => grants.wrote(),
            Self::Kept(grants) => grants.iter().for_each(|grant| grant.wrote()),
        }
    }
}

/// Grants in use between requests (`feature-persistent`).
#[derive(Debug, Default)]
struct Kept {
    grants: HashMap<u32, (Arc<Grant>, u64)>,
    now: u64,
}

impl Kept {
    fn get(
        &mut self,
        guest: &Arc<Guest>,
        reference: u32,
        access: Access,
    ) -> Result<Arc<Grant>, GrantError> {
        self.now += 1;
        if let Some((grant, used)) = self.grants.get_mut(&reference)
            && (access == Access::Read || grant.access() == Access::Write)
        {
            *used = self.now;
            return Ok(grant.clone());
        }
        // A frontend that keeps grants uses them in both directions.
        let grant = guest.map(reference, Access::Write).or_else(|error| match access {
            Access::Read => guest.map(reference, access),
            Access::Write => Err(error),
        })?;
        let grant = Arc::new(grant);
        if self.grants.len() >= MOST_KEPT {
            self.drop_half();
        }
        self.grants.insert(reference, (grant.clone(), self.now));
        Ok(grant)
    }

    /// Gives up the half that was not used for longest. (Not one alone: a frontend that uses ever
    /// more grants would make us look for it each time.)
    fn drop_half(&mut self) {
        let mut times: Vec<u64> = self.grants.values().map(|(_, used)| *used).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.grants.retain(|_, (_, used)| *used >= median);
    }
}
