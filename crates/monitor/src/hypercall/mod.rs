//! Hypercalls: numbers to functions, one file per header of the interface.
//!
//! Arguments are hostile: structures are copied once, then checked, then used.

mod events;
mod grant;
mod memory;
mod misc;
mod mmu;
mod sched;
mod vcpu;

use abi::{errno, hypercall as nr};

use crate::{gate::context, guest::Unmapped, state::Monitor};

/// What a hypercall returns: a value ≥ 0, or an errno.
pub type Answer = Result<u64, i64>;

/// Guest memory was not mapped where an argument lies.
pub fn fault<T>(r: Result<T, Unmapped>) -> Result<T, i64> {
    r.map_err(|Unmapped| errno::EFAULT)
}

/// Most calls in one multicall; Linux sends at most 32.
const MULTICALL_MOST: u64 = 1024;

impl Monitor {
    /// The hypercall in RAX with arguments in RDI, RSI, RDX, R10, R8.
    pub fn hypercall(&mut self) {
        let c = context();
        let number = c.regs[0];
        if number == nr::IRET {
            return self.iret();
        }
        let args = [c.regs[7], c.regs[6], c.regs[2], c.regs[10], c.regs[8]];
        let answer = self.call(number, args, true);
        context().regs[0] = word(answer);
    }

    fn call(&mut self, number: u64, a: [u64; 5], outermost: bool) -> Answer {
        match number {
            nr::SET_TRAP_TABLE => self.set_trap_table(a[0]),
            nr::MMU_UPDATE => self.mmu_update(a[0], a[1], a[2]),
            nr::SET_GDT | nr::UPDATE_DESCRIPTOR => self.descriptors(number, a),
            nr::STACK_SWITCH => self.stack_switch(a[1]),
            nr::FPU_TASKSWITCH => self.fpu_taskswitch(a[0]),
            nr::SET_DEBUGREG => self.set_debugreg(a[0], a[1]),
            nr::GET_DEBUGREG => self.get_debugreg(a[0]),
            nr::MEMORY_OP => self.memory_op(a[0], a[1]),
            nr::MULTICALL if outermost => self.multicall(a[0], a[1]),
            nr::UPDATE_VA_MAPPING => self.update_va_mapping(a[0], a[1], a[2]),
            nr::SET_TIMER_OP => self.set_timer(a[0]),
            nr::XEN_VERSION => self.xen_version(a[0], a[1]),
            nr::CONSOLE_IO => self.console_io(a[0], a[1], a[2]),
            nr::GRANT_TABLE_OP => self.grant_table_op(a[0], a[1], a[2]),
            nr::VM_ASSIST => Ok(0),
            nr::VCPU_OP => self.vcpu_op(a[0], a[1], a[2]),
            nr::SET_SEGMENT_BASE => self.set_segment_base(a[0], a[1]),
            nr::MMUEXT_OP => self.mmuext_op(a[0], a[1], a[2]),
            nr::SCHED_OP => self.sched_op(a[0], a[1]),
            nr::CALLBACK_OP => self.callback_op(a[0], a[1]),
            nr::EVENT_CHANNEL_OP => self.event_channel_op(a[0], a[1]),
            nr::PHYSDEV_OP => self.physdev_op(a[0]),
            // As a Xen without `vpmu` on its command line.
            nr::XENPMU_OP => Err(errno::EOPNOTSUPP),
            _ => self.unknown(number, a[0]),
        }
    }

    /// Not provided: told once, never fatal.
    fn unknown(&mut self, number: u64, sub: u64) -> Answer {
        self.complain_once(
            number << 32 | sub & 0xffff_ffff,
            format_args!(
                "hypercall {} ({number}) operation {sub} is not provided",
                nr::name(number)
            ),
        );
        Err(errno::ENOSYS)
    }

    /// `struct multicall_entry` (xen.h): op, result, six arguments.
    fn multicall(&mut self, list: u64, count: u64) -> Answer {
        if count > MULTICALL_MOST {
            return Err(errno::EINVAL);
        }
        for i in 0..count {
            let at = list.wrapping_add(i * 64);
            let e: [u64; 8] = fault(self.read_value(at))?;
            let answer = self.call(e[0], [e[2], e[3], e[4], e[5], e[6]], false);
            fault(self.write_value(at.wrapping_add(8), &word(answer)))?;
        }
        Ok(0)
    }
}

/// An answer as the guest's register holds it.
fn word(answer: Answer) -> u64 {
    answer.unwrap_or_else(|e| e.wrapping_neg() as u64)
}
