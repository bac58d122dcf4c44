//! Traps, segments, debug registers, callbacks, version, consoles.

use abi::{callback, console, errno::*, physdev, trap, version};
use boundary::bell;

use super::{Answer, fault};
use crate::{
    guest::{M2P, is_canonical},
    log,
    proven::Masked,
    state::{Callback, Monitor, page},
};

/// Longest text of one `console_io` write.
const CONSOLE_MOST: u64 = 4096;

impl Monitor {
    pub(super) fn set_trap_table(&mut self, list: u64) -> Answer {
        if list == 0 {
            self.vcpu.traps = [trap::TrapInfo::default(); 256];
            return Ok(0);
        }
        for i in 0..256 {
            let t: trap::TrapInfo = fault(self.read_value(list.wrapping_add(i * 16)))?;
            if t.address == 0 {
                break;
            }
            *self.vcpu.traps.at_mut(t.vector.into()) = t;
        }
        Ok(0)
    }

    /// Guest segments are flat; descriptor tables are kept in the guest's own memory.
    pub(super) fn descriptors(&mut self, number: u64, a: [u64; 5]) -> Answer {
        if number == abi::hypercall::UPDATE_DESCRIPTOR {
            let frame = u32::try_from(a[0] >> 12).map_err(|_| EINVAL)?;
            if u64::from(frame) >= self.setup.max_pages {
                return Err(EINVAL);
            }
            self.before_write(frame);
            // SAFETY: the frame is guest RAM; the offset is aligned and within it.
            unsafe {
                let p = self.frame_ptr(frame).add(a[0] as usize & 0xff8).cast::<u64>();
                p.write_volatile(a[1]);
            }
        }
        Ok(0)
    }

    pub(super) fn stack_switch(&mut self, sp: u64) -> Answer {
        self.vcpu.kernel_stack = sp;
        Ok(0)
    }

    pub(super) fn fpu_taskswitch(&mut self, set: u64) -> Answer {
        self.vcpu.task_switched = set != 0;
        Ok(0)
    }

    pub(super) fn set_debugreg(&mut self, n: u64, value: u64) -> Answer {
        let r = self.vcpu.debug.get_mut(n as usize).ok_or(EINVAL)?;
        *r = value;
        Ok(0)
    }

    pub(super) fn get_debugreg(&mut self, n: u64) -> Answer {
        self.vcpu.debug.get(n as usize).copied().ok_or(EINVAL)
    }

    pub(super) fn set_segment_base(&mut self, which: u64, base: u64) -> Answer {
        if which != trap::SEGBASE_GS_USER_SEL && !is_canonical(base) {
            return Err(EINVAL);
        }
        match which {
            trap::SEGBASE_FS => self.vcpu.fs_user = base,
            trap::SEGBASE_GS_USER => self.vcpu.gs_user = base,
            trap::SEGBASE_GS_KERNEL => self.vcpu.gs_kernel = base,
            trap::SEGBASE_GS_USER_SEL => self.vcpu.gs_user = 0,
            _ => return Err(EINVAL),
        }
        Ok(0)
    }

    pub(super) fn callback_op(&mut self, op: u64, at: u64) -> Answer {
        let r: callback::Register = fault(self.read_value(at))?;
        let slot = self.vcpu.callbacks.get_mut(usize::from(r.kind)).ok_or(EINVAL)?;
        match op {
            callback::OP_REGISTER => *slot = Callback { address: r.address, flags: r.flags },
            callback::OP_UNREGISTER => *slot = Callback::default(),
            _ => return self.unknown(abi::hypercall::CALLBACK_OP, op),
        }
        self.forget_syscall_entry(0);
        Ok(0)
    }

    pub(super) fn xen_version(&mut self, op: u64, at: u64) -> Answer {
        match op {
            version::VERSION => return Ok(version::XEN_VERSION.into()),
            version::EXTRAVERSION => self.put_text(at, b".0-xenolith", 16)?,
            version::CAPABILITIES => self.put_text(at, b"xen-3.0-x86_64", 1024)?,
            version::CHANGESET => self.put_text(at, b"xenolith", 64)?,
            version::COMMANDLINE => self.put_text(at, b"", 1024)?,
            version::COMPILE_INFO => {
                self.put_text(at, b"rustc", 64)?;
                self.put_text(at.wrapping_add(64), b"xenolith", 16)?;
                self.put_text(at.wrapping_add(80), b"", 32)?;
                self.put_text(at.wrapping_add(112), b"", 32)?;
            }
            // Where the guest's part of the address space ends.
            version::PLATFORM_PARAMETERS => {
                fault(self.write_value(at, &crate::guest::KERNEL_HALF))?
            }
            version::GET_FEATURES => {
                let sub: u32 = fault(self.read_value(at))?;
                let bits = if sub == 0 { version::FEATURES } else { 0 };
                fault(self.write_value(at.wrapping_add(4), &bits))?;
            }
            version::PAGESIZE => return Ok(4096),
            version::GUEST_HANDLE => fault({
                let uuid = self.setup.uuid;
                self.write(at, &uuid)
            })?,
            _ => return self.unknown(abi::hypercall::XEN_VERSION, op),
        }
        Ok(0)
    }

    /// Writes zero-terminated text into a field of `room` bytes.
    fn put_text(&mut self, at: u64, text: &[u8], room: usize) -> Result<(), i64> {
        let n = text.len().min(room - 1);
        fault(self.write(at, text.get(..n).unwrap_or_default()))?;
        fault(self.write(at.wrapping_add(n as u64), &[0]))
    }

    pub(super) fn console_io(&mut self, op: u64, count: u64, at: u64) -> Answer {
        if op != console::IO_WRITE {
            return Ok(0);
        }
        let mut buffer = [0u8; 256];
        let mut done = 0;
        let count = count.min(CONSOLE_MOST);
        while done < count {
            let n = (count - done).min(256) as usize;
            let piece = buffer.get_mut(..n).unwrap_or_default();
            fault(self.read(at.wrapping_add(done), piece))?;
            log::append(&page().emergency, piece);
            done += n as u64;
        }
        log::ring(bell::EMERGENCY);
        Ok(count)
    }

    pub(super) fn physdev_op(&mut self, op: u64) -> Answer {
        match op {
            physdev::SET_IOPL | physdev::SET_IOBITMAP => Ok(0),
            _ => self.unknown(abi::hypercall::PHYSDEV_OP, op),
        }
    }

    /// Guest address of the M2P and its end, as `XENMEM_machphys_mapping` tells.
    pub(super) fn m2p_range(&self) -> [u64; 3] {
        [M2P, M2P + self.setup.m2p_frames * 4096, self.setup.nr_frames - 1]
    }
}
