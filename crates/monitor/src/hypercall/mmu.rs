//! Page tables (xen.h `mmu_update`, `mmuext_op`, `update_va_mapping`).
//!
//! Tables need no validation here: what a guest may reach is decided when a
//! host mapping is installed. Updates are writes to guest frames plus what the
//! host mappings must forget.

use abi::{errno::*, mmu};

use super::{Answer, fault};
use crate::state::Monitor;

/// Most updates in one call.
const MOST: u64 = 1 << 20;
/// `MMU_UPDATE_PREEMPTED`: a flag in counts that Xen uses for itself.
const COUNT_MASK: u64 = 0x7fff_ffff;

impl Monitor {
    /// Writes an entry of a guest table.
    fn write_entry(&mut self, table: u32, index: usize, value: u64) {
        self.before_write(table);
        // SAFETY: callers checked that the frame exists; the index is masked.
        unsafe { self.frame_ptr(table).cast::<u64>().add(index & 511).write_volatile(value) };
    }

    /// The frame and index that a machine address names, if it is guest RAM.
    fn slot(&self, machine: u64) -> Option<(u32, usize)> {
        let frame = u32::try_from(machine >> 12).ok()?;
        (u64::from(frame) < self.setup.max_pages).then_some((frame, (machine >> 3) as usize & 511))
    }

    pub(super) fn mmu_update(&mut self, list: u64, count: u64, done: u64) -> Answer {
        let count = count & COUNT_MASK;
        if count > MOST {
            return Err(EINVAL);
        }
        let mut result = Ok(0);
        let mut i = 0;
        while i < count {
            result = self.one_update(list.wrapping_add(i * 16));
            if result.is_err() {
                break;
            }
            i += 1;
        }
        if done != 0 {
            fault(self.write_value(done, &(i as u32)))?;
        }
        result
    }

    fn one_update(&mut self, at: u64) -> Answer {
        let u: mmu::Update = fault(self.read_value(at))?;
        match u.ptr & 3 {
            // The M2P is the identity and stays so.
            mmu::MACHPHYS_UPDATE => Ok(0),
            kind @ (mmu::NORMAL_PT_UPDATE | mmu::PT_UPDATE_PRESERVE_AD) => {
                let (table, index) = self.slot(u.ptr & !7).ok_or(EINVAL)?;
                let mut value = u.val;
                if kind == mmu::PT_UPDATE_PRESERVE_AD {
                    let old = self.entry(table, index).unwrap_or(0);
                    value |= old & (mmu::PTE_ACCESSED | mmu::PTE_DIRTY);
                }
                self.write_entry(table, index, value);
                Ok(0)
            }
            _ => Err(ENOSYS),
        }
    }

    pub(super) fn update_va_mapping(&mut self, va: u64, value: u64, flags: u64) -> Answer {
        let table = self.leaf_table(va).ok_or(EINVAL)?;
        self.slot(u64::from(table) << 12).ok_or(EINVAL)?;
        self.write_entry(table, (va >> 12) as usize & 511, value);
        match flags & mmu::UVMF_MASK {
            mmu::UVMF_TLB_FLUSH => self.flush_all(),
            // Without a flush the old mapping may stay, as in a TLB.
            _ => self.flush_page(va),
        }
        Ok(0)
    }

    pub(super) fn mmuext_op(&mut self, list: u64, count: u64, done: u64) -> Answer {
        let count = count & COUNT_MASK;
        if count > MOST {
            return Err(EINVAL);
        }
        let mut result = Ok(0);
        let mut i = 0;
        while i < count {
            result = self.one_ext(list.wrapping_add(i * 24));
            if result.is_err() {
                break;
            }
            i += 1;
        }
        if done != 0 {
            fault(self.write_value(done, &(i as u32)))?;
        }
        result
    }

    fn ram_frame(&self, mfn: u64) -> Result<u32, i64> {
        if mfn < self.setup.max_pages {
            u32::try_from(mfn).map_err(|_| EINVAL)
        } else {
            Err(EINVAL)
        }
    }

    fn one_ext(&mut self, at: u64) -> Answer {
        let op: mmu::ExtOp = fault(self.read_value(at))?;
        match op.cmd {
            mmu::PIN_L1_TABLE..=mmu::PIN_L4_TABLE => {
                self.ram_frame(op.arg1)?;
            }
            mmu::UNPIN_TABLE => {
                let frame = self.ram_frame(op.arg1)?;
                self.spaces.retire(frame);
            }
            mmu::NEW_BASEPTR => {
                self.vcpu.kernel_root = self.ram_frame(op.arg1)?;
                self.base_changed();
            }
            // Its user half is that of the kernel's table (Linux keeps them equal).
            mmu::NEW_USER_BASEPTR => {
                if op.arg1 != 0 {
                    self.ram_frame(op.arg1)?;
                }
            }
            mmu::TLB_FLUSH_LOCAL | mmu::TLB_FLUSH_MULTI | mmu::TLB_FLUSH_ALL => self.flush_all(),
            mmu::INVLPG_LOCAL | mmu::INVLPG_MULTI | mmu::INVLPG_ALL => self.flush_page(op.arg1),
            mmu::FLUSH_CACHE | mmu::FLUSH_CACHE_GLOBAL | mmu::SET_LDT => {}
            mmu::CLEAR_PAGE => {
                let frame = self.ram_frame(op.arg1)?;
                self.before_write(frame);
                // SAFETY: the frame is guest RAM.
                unsafe { core::ptr::write_bytes(self.frame_ptr(frame), 0, 4096) };
            }
            mmu::COPY_PAGE => {
                let (to, from) = (self.ram_frame(op.arg1)?, self.ram_frame(op.arg2)?);
                self.before_write(to);
                // SAFETY: both frames are guest RAM; equal ones are a harmless no-op.
                unsafe { core::ptr::copy(self.frame_ptr(from), self.frame_ptr(to), 4096) };
            }
            other => return self.unknown(abi::hypercall::MMUEXT_OP, other.into()),
        }
        Ok(0)
    }
}
