//! A request under way: what it needs, and the steps it takes.

use super::buffers::Buffers;
use super::image::{Geometry, Operation};
use super::in_flight::Slot;
use super::protocol::{Body, Indirect, Request, SECTOR, Segment, Status, Tag, Transfer, segments};
use super::queue::{Frames, Queue};
use crate::guest::{Access, Guest};
use boundary::PAGE;
use std::sync::Arc;

/// A step of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Read,
    Write,
    Flush,
    Discard,
}

/// A request under way.
#[derive(Debug)]
pub struct Task {
    /// Number of its queue.
    pub queue: usize,
    /// Its record.
    pub slot: Slot,
    /// What its response repeats.
    pub tag: Tag,
    /// True if it waits for all before it, and all behind it for it.
    pub is_barrier: bool,
    steps: &'static [Step],
    offset: u64,
    /// Bytes on the disk.
    bytes: u64,
    buffers: Buffers,
    /// Frames in use.
    frames: Option<Frames>,
}

/// What a disk allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Its dimensions.
    pub geometry: Geometry,
    /// The guest may write.
    pub writable: bool,
    /// Discards are passed on.
    pub discard: bool,
}

impl Limits {
    /// The place of `bytes` from `sector` on, if they lie on the disk and begin and end at sectors
    /// of its.
    fn place(&self, sector: u64, bytes: u64) -> Result<u64, Status> {
        let size = u64::from(self.geometry.sector_size);
        let offset = sector.checked_mul(SECTOR).ok_or(Status::Error)?;
        let end = offset.checked_add(bytes).ok_or(Status::Error)?;
        let fits = end <= self.geometry.bytes;
        let is_aligned = offset.is_multiple_of(size) && bytes.is_multiple_of(size);
        if fits && is_aligned { Ok(offset) } else { Err(Status::Error) }
    }

    fn may_write(&self) -> Result<(), Status> {
        if self.writable { Ok(()) } else { Err(Status::Error) }
    }
}

impl Task {
    /// Checks a request and prepares it.
    ///
    /// # Errors
    /// The status to answer it with.
    pub fn new(
        guest: &Arc<Guest>,
        (number, queue): (usize, &mut Queue),
        slot: Slot,
        (tag, request): (Tag, Request),
        limits: &Limits,
    ) -> Result<Self, Status> {
        let Request { sector, body } = request;
        let (transfer, list) = match body {
            Body::Direct(transfer, list) => (transfer, list),
            Body::Indirect(transfer, indirect) => (transfer, listed(queue, &indirect)?),
            Body::Discard(count) => {
                limits.may_write()?;
                if !limits.discard {
                    return Err(Status::Unsupported);
                }
                let bytes = count.checked_mul(SECTOR).ok_or(Status::Error)?;
                let offset = limits.place(sector, bytes)?;
                // fallocate(2) takes no empty range.
                let steps: &[Step] = if bytes == 0 { &[] } else { &[Step::Discard] };
                let mut task = Self::empty(number, slot, tag, steps);
                (task.offset, task.bytes) = (offset, bytes);
                return Ok(task);
            }
        };
        let has_data = !list.is_empty();
        let steps: &[Step] = match (transfer, has_data) {
            (Transfer::Read, _) => &[Step::Read],
            (Transfer::Write, _) => &[Step::Write],
            (Transfer::Flush | Transfer::Barrier, false) => &[Step::Flush],
            (Transfer::Flush, true) => &[Step::Flush, Step::Write],
            (Transfer::Barrier, true) => &[Step::Flush, Step::Write, Step::Flush],
        };
        if has_data && transfer != Transfer::Read {
            limits.may_write()?;
        }
        let mut task = Self::empty(number, slot, tag, steps);
        task.is_barrier = transfer == Transfer::Barrier;
        if has_data {
            // Ours is written to when the disk is read.
            let access = if transfer == Transfer::Read { Access::Write } else { Access::Read };
            task.map(guest, queue, &list, access)?;
            task.offset = limits.place(sector, task.buffers.len() as u64)?;
            task.bytes = task.buffers.len() as u64;
        }
        Ok(task)
    }

    fn empty(queue: usize, slot: Slot, tag: Tag, steps: &'static [Step]) -> Self {
        Self {
            queue,
            slot,
            tag,
            is_barrier: false,
            steps,
            offset: 0,
            bytes: 0,
            buffers: Buffers::default(),
            frames: None,
        }
    }

    fn map(
        &mut self,
        guest: &Arc<Guest>,
        queue: &mut Queue,
        list: &[Segment],
        access: Access,
    ) -> Result<(), Status> {
        self.buffers = Buffers::new(guest, list.len());
        let references = list.iter().map(|segment| segment.reference);
        let frames = queue.frames(references, access).map_err(|_| Status::Error)?;
        for (index, segment) in list.iter().enumerate() {
            let (offset, length) = segment.range().ok_or(Status::Error)?;
            let at = frames.at(index, offset, length).ok_or(Status::Error)?;
            self.buffers.push(at, length);
        }
        self.frames = Some(frames);
        Ok(())
    }

    /// The step to be done now; `None` after the last.
    pub fn step(&self) -> Option<Step> {
        self.steps.first().copied()
    }

    /// What that is to an image.
    pub fn operation(&self) -> Option<Operation> {
        Some(match self.step()? {
            Step::Read => Operation::Read,
            Step::Write => Operation::Write,
            Step::Flush => Operation::Flush,
            Step::Discard => Operation::Discard { bytes: self.bytes },
        })
    }

    /// The step is done.
    pub fn stepped(&mut self) {
        if self.step() == Some(Step::Read) {
            // The monitor hears of it before the guest does.
            self.frames.iter().for_each(Frames::wrote);
        }
        self.steps = self.steps.get(1..).unwrap_or_default();
    }

    /// Offset on the disk.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its memory.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Lends its memory; [`Self::give_back`] follows.
    pub fn lend(&mut self) -> Buffers {
        std::mem::take(&mut self.buffers)
    }

    /// Takes the memory back.
    pub fn give_back(&mut self, buffers: Buffers) {
        self.buffers = buffers;
    }
}

/// Copies the segments of an indirect request.
fn listed(queue: &mut Queue, indirect: &Indirect) -> Result<Vec<Segment>, Status> {
    let mut list = Vec::with_capacity(indirect.count);
    let pages = queue.frames(indirect.pages.iter().copied(), Access::Read);
    let pages = pages.map_err(|_| Status::Error)?;
    for index in 0..indirect.pages.len() {
        let count = indirect.in_page(index);
        let mut bytes = [0; PAGE as usize];
        let bytes = bytes.get_mut(..count * 8).ok_or(Status::Error)?;
        pages.read(index, 0, bytes).ok_or(Status::Error)?;
        list.extend(segments(bytes, count)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(sector_size: u32, bytes: u64) -> Limits {
        let geometry =
            Geometry { bytes, sector_size, physical_sector_size: 4096, discard_granularity: 4096 };
        Limits { geometry, writable: true, discard: true }
    }

    #[test]
    fn a_place_lies_on_the_disk() {
        let small = limits(512, 8192);
        assert_eq!(small.place(0, 8192), Ok(0));
        assert_eq!(small.place(15, 512), Ok(7680));
        assert_eq!(small.place(16, 0), Ok(8192));
        for (sector, bytes) in
            [(15, 1024), (16, 512), (17, 0), (u64::MAX, 512), (u64::MAX / 512, 512), (1, u64::MAX)]
        {
            assert_eq!(small.place(sector, bytes), Err(Status::Error), "{sector} {bytes}");
        }
    }

    #[test]
    fn a_place_begins_and_ends_at_large_sectors() {
        let large = limits(4096, 16384);
        assert_eq!(large.place(8, 8192), Ok(4096));
        for (sector, bytes) in [(1, 4096), (4, 4096), (8, 512), (8, 6144), (24, 8192)] {
            assert_eq!(large.place(sector, bytes), Err(Status::Error), "{sector} {bytes}");
        }
    }
}
