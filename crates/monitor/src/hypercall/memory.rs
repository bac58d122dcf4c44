//! Memory reservation and maps (memory.h).

use abi::{errno::*, memory as op};
use core::sync::atomic::Ordering;

use super::{Answer, fault};
use crate::{
    layout::at,
    state::{Frame, Monitor, page},
    sys,
};

impl Monitor {
    pub(super) fn memory_op(&mut self, cmd: u64, at: u64) -> Answer {
        match cmd & op::CMD_MASK {
            op::MACHPHYS_MAPPING => {
                let range = self.m2p_range();
                fault(self.write_value(at, &range))?;
                Ok(0)
            }
            op::MEMORY_MAP => self.memory_map(at),
            op::MAXIMUM_RAM_PAGE => Ok(self.setup.nr_frames - 1),
            op::CURRENT_RESERVATION => Ok(self.pages()),
            op::MAXIMUM_RESERVATION => Ok(self.most_pages()),
            op::DECREASE_RESERVATION => self.decrease(at),
            op::POPULATE_PHYSMAP => self.populate(at),
            op::EXCHANGE => self.exchange(at),
            other => self.unknown(abi::hypercall::MEMORY_OP, other),
        }
    }

    /// `struct xen_memory_map`: entries the guest has room for, address of 20-byte entries.
    fn memory_map(&mut self, at: u64) -> Answer {
        let room: u32 = fault(self.read_value(at))?;
        let buffer: u64 = fault(self.read_value(at.wrapping_add(8)))?;
        if room < 1 {
            return Err(EINVAL);
        }
        let mut entry = [0u8; 20];
        entry[8..16].copy_from_slice(&(self.setup.max_pages << 12).to_le_bytes());
        entry[16..20].copy_from_slice(&1u32.to_le_bytes());
        fault(self.write(buffer, &entry))?;
        fault(self.write_value(at, &1u32))?;
        Ok(0)
    }

    /// Frames that the guest has.
    fn pages(&self) -> u64 {
        self.setup.max_pages.saturating_sub(page().ballooned.load(Ordering::Relaxed))
    }

    /// Frames that it may have (`xm mem-max`).
    fn most_pages(&self) -> u64 {
        page().most_pages.load(Ordering::Relaxed).min(self.setup.max_pages)
    }

    /// Frames the guest gives back. Frame numbers stay reserved for it
    /// (MFN = PFN), their memory goes to the host.
    fn decrease(&mut self, at: u64) -> Answer {
        let mut run = 0..0;
        let done = self.each_extent(at, |m, extent| {
            for frame in extent.clone() {
                if m.mark(frame, true) {
                    page().ballooned.fetch_add(1, Ordering::Relaxed);
                }
                m.before_write(frame as u32);
            }
            // Frames in a row go back in one go.
            if run.end == extent.start {
                run.end = extent.end;
            } else {
                m.discard(core::mem::replace(&mut run, extent));
            }
            true
        });
        self.discard(run);
        done
    }

    /// Frames the guest asks for, named by frame number: given where they were, empty.
    fn populate(&mut self, at: u64) -> Answer {
        self.each_extent(at, |m, extent| {
            if m.pages().saturating_add(extent.end - extent.start) > m.most_pages() {
                return false;
            }
            for frame in extent {
                if m.mark(frame, false) {
                    page().ballooned.fetch_sub(1, Ordering::Relaxed);
                }
            }
            true
        })
    }

    /// Does something with each extent of a reservation that lies within the guest's frames, until
    /// `act` refuses; the answer is how many were done.
    fn each_extent(
        &mut self,
        at: u64,
        mut act: impl FnMut(&mut Self, core::ops::Range<u64>) -> bool,
    ) -> Answer {
        let r: op::Reservation = fault(self.read_value(at))?;
        if r.extent_order > 9 {
            return Err(EINVAL);
        }
        let count = 1u64 << r.extent_order;
        // Nobody has more extents than frames; tables that lead to themselves have.
        let most = r.nr_extents.min(self.setup.max_pages);
        let mut done = 0;
        while done < most {
            let Ok(first) = self.read_value::<u64>(r.extent_start.wrapping_add(done * 8)) else {
                break;
            };
            let end = first.checked_add(count).filter(|end| *end <= self.setup.max_pages);
            if !end.is_some_and(|end| act(self, first..end)) {
                break;
            }
            done += 1;
        }
        Ok(done)
    }

    /// Notes whether the guest has given a frame back; whether that is news.
    fn mark(&mut self, frame: u64, given: bool) -> bool {
        let Some(facts) = self.frames.get_mut(frame as usize) else { return false };
        let was = facts.0 & Frame::GIVEN != 0;
        facts.0 = if given { facts.0 | Frame::GIVEN } else { facts.0 & !Frame::GIVEN };
        was != given
    }

    /// Gives the memory of frames of the guest back to the host; they read as zero from now on,
    /// in every process that has them mapped.
    fn discard(&mut self, frames: core::ops::Range<u64>) {
        if frames.is_empty() || frames.end > self.setup.max_pages {
            return;
        }
        let length = (frames.end - frames.start) * boundary::PAGE;
        // SAFETY: frames of the guest's own, seen through the monitor's view of them: what lies there
        // is the guest's to change.
        let failed = unsafe { sys::discard(at::RAM + frames.start * boundary::PAGE, length) };
        if failed != 0 {
            self.complain_once(
                abi::hypercall::MEMORY_OP << 32 | op::DECREASE_RESERVATION,
                format_args!("memory that the guest gives back stays with it: error {failed}"),
            );
        }
    }

    /// Linux exchanges frames for contiguous ones; frames are contiguous here
    /// already when the guest's own frames are, else it is refused.
    fn exchange(&mut self, at: u64) -> Answer {
        let e: op::Exchange = fault(self.read_value(at))?;
        self.complain_once(
            abi::hypercall::MEMORY_OP << 32 | op::EXCHANGE,
            format_args!(
                "memory exchange of {} extents refused: no contiguous frames",
                e.input.nr_extents
            ),
        );
        Err(ENOSYS)
    }
}
