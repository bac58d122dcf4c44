//! Memory reservation and maps (memory.h).

use abi::{errno::*, memory as op};
use core::sync::atomic::Ordering;

use super::{Answer, fault};
use crate::state::{Monitor, page};

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
            op::CURRENT_RESERVATION => Ok(self.setup.nr_pages
                - page().ballooned.load(Ordering::Relaxed).min(self.setup.nr_pages)),
            op::MAXIMUM_RESERVATION => Ok(self.setup.max_pages),
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

    /// Frames the guest gives back. Frame numbers stay reserved for it
    /// (MFN = PFN), their memory goes to the host.
    fn decrease(&mut self, at: u64) -> Answer {
        let r: op::Reservation = fault(self.read_value(at))?;
        if r.extent_order > 9 {
            return Err(EINVAL);
        }
        // Nobody has more extents than frames; tables that lead to themselves have.
        let most = r.nr_extents.min(self.setup.max_pages);
        let mut done = 0;
        while done < most {
            let Ok(first) = self.read_value::<u64>(r.extent_start.wrapping_add(done * 8)) else {
                break;
            };
            let count = 1u64 << r.extent_order;
            if first.checked_add(count).is_none_or(|end| end > self.setup.max_pages) {
                break;
            }
            page().ballooned.fetch_add(count, Ordering::Relaxed);
            done += 1;
        }
        Ok(done)
    }

    /// Frames the guest asks for, named by frame number: given where they were.
    fn populate(&mut self, at: u64) -> Answer {
        let r: op::Reservation = fault(self.read_value(at))?;
        if r.extent_order > 9 {
            return Err(EINVAL);
        }
        // Nobody has more extents than frames; tables that lead to themselves have.
        let most = r.nr_extents.min(self.setup.max_pages);
        let mut done = 0;
        while done < most {
            let Ok(first) = self.read_value::<u64>(r.extent_start.wrapping_add(done * 8)) else {
                break;
            };
            let count = 1u64 << r.extent_order;
            if first.checked_add(count).is_none_or(|end| end > self.setup.max_pages) {
                break;
            }
            let given = page().ballooned.load(Ordering::Relaxed);
            page().ballooned.store(given.saturating_sub(count), Ordering::Relaxed);
            done += 1;
        }
        Ok(done)
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
