//! vCPU operations (vcpu.h).

use abi::{errno::*, vcpu as v};

use super::{Answer, fault};
use crate::state::Monitor;

impl Monitor {
    pub(super) fn vcpu_op(&mut self, op: u64, vcpu: u64, at: u64) -> Answer {
        if vcpu >= u64::from(self.setup.vcpus) {
            return Err(ENOENT);
        }
        match op {
            v::IS_UP => Ok(1),
            v::GET_RUNSTATE_INFO => {
                let info = self.runstate();
                fault(self.write_value(at, &info))?;
                Ok(0)
            }
            // Steal time: a record that says "running" once; it is not kept up.
            v::REGISTER_RUNSTATE => {
                let area: u64 = fault(self.read_value(at))?;
                let info = self.runstate();
                if area != 0 {
                    fault(self.write_value(area, &info))?;
                }
                Ok(0)
            }
            v::STOP_PERIODIC_TIMER => Ok(0),
            v::SET_SINGLESHOT_TIMER => {
                let deadline: u64 = fault(self.read_value(at))?;
                let flags: u32 = fault(self.read_value(at.wrapping_add(8)))?;
                if flags & v::SINGLESHOT_FUTURE != 0 && deadline <= self.now() {
                    return Err(ETIME);
                }
                self.set_deadline(deadline.max(1));
                Ok(0)
            }
            v::STOP_SINGLESHOT_TIMER => {
                self.set_deadline(0);
                Ok(0)
            }
            v::REGISTER_VCPU_INFO => self.register_vcpu_info(at),
            v::REGISTER_TIME => {
                let area: u64 = fault(self.read_value(at))?;
                if area != 0 {
                    let info = self.time_info();
                    fault(self.write_value(area, &info))?;
                }
                Ok(0)
            }
            _ => self.unknown(abi::hypercall::VCPU_OP, op),
        }
    }

    fn runstate(&self) -> v::RunstateInfo {
        v::RunstateInfo { entry_time: self.now(), ..v::RunstateInfo::default() }
    }

    /// `struct vcpu_register_vcpu_info`: mfn, offset.
    fn register_vcpu_info(&mut self, at: u64) -> Answer {
        let mfn: u64 = fault(self.read_value(at))?;
        let offset: u32 = fault(self.read_value(at.wrapping_add(8)))?;
        if mfn >= self.setup.max_pages
            || !offset.is_multiple_of(8)
            || offset as usize > 4096 - size_of::<v::VcpuInfo>()
        {
            return Err(EINVAL);
        }
        let frame = u32::try_from(mfn).map_err(|_| EINVAL)?;
        self.before_write(frame);
        // SAFETY: `vcpu_info` is mapped; see `Monitor::map_vcpu_info`.
        let mut info = unsafe { crate::event::info().cast::<v::VcpuInfo>().read_volatile() };
        // Events may have come meanwhile: the guest looks at all of them.
        info.evtchn_pending_sel = !0;
        info.evtchn_upcall_pending = 1;
        // SAFETY: the frame is guest RAM and the struct lies within it.
        unsafe {
            let to = self.frame_ptr(frame).add(offset as usize).cast::<v::VcpuInfo>();
            to.write_volatile(info);
        }
        self.vcpu.info_frame = frame;
        self.vcpu.info_offset = offset;
        self.map_vcpu_info();
        Ok(0)
    }
}
