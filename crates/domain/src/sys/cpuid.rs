//! The host's processor.

use core::arch::x86_64::{__cpuid_count, __get_cpuid_max};
use cpuid::{Host, Regs};

/// This host's processor, asked anew each time.
pub struct ThisHost;

/// OSXSAVE in CPUID.1:ECX.
const OSXSAVE: u32 = 1 << 27;
/// First extended leaf.
const EXTENDED: u32 = 0x8000_0000;

impl Host for ThisHost {
    fn leaf(&self, leaf: u32, sub: u32) -> Regs {
        if leaf > __get_cpuid_max(leaf & EXTENDED).0 {
            return Regs::default();
        }
        let r = __cpuid_count(leaf, sub);
        Regs { eax: r.eax, ebx: r.ebx, ecx: r.ecx, edx: r.edx }
    }

    fn xcr0(&self) -> u64 {
        if self.leaf(1, 0).ecx & OSXSAVE == 0 {
            return 0;
        }
        let (low, high): (u32, u32);
        // SAFETY: OSXSAVE is set, so XGETBV exists.
        unsafe { core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) };
        u64::from(high) << 32 | u64::from(low)
    }
}

/// Whether CPUID of programs can be made to fault here (arch_prctl(2)).
pub fn can_fault_on_cpuid() -> bool {
    /// `ARCH_SET_CPUID` (asm/prctl.h); 1 leaves CPUID as it is.
    const ARCH_SET_CPUID: libc::c_long = 0x1012;
    // SAFETY: changes nothing: CPUID does not fault in this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_CPUID, 1) == 0 }
}
