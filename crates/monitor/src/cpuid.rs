//! What guests see of the processor.
//!
//! The host's CPUID is read once, before CPUID faulting is switched on for the
//! domain's spaces (spaces inherit it). Guest kernels always see the masked
//! view; guest programs see it where the CPU can fault on CPUID, else the
//! host's own (docs/exactness.md).

use core::arch::x86_64::{__cpuid_count, CpuidResult};

use crate::{layout::at, state::Monitor};

/// Leaves kept: standard 0..=0x1f with subleaves 0..=15, extended 0..=0x21.
const STANDARD: usize = 32;
const SUBLEAVES: usize = 16;
const EXTENDED: usize = 34;

/// The host's CPUID, in the arena.
struct Table {
    standard: [[CpuidResult; SUBLEAVES]; STANDARD],
    extended: [CpuidResult; EXTENDED],
    xcr0: u64,
}

/// Right behind the domain page's copy; see `layout::ARENA_CONTEXT`.
const TABLE: u64 = at::ARENA + 0x4_0000;
const _: () = assert!(size_of::<Table>() < 0x8000);

fn table() -> &'static mut Table {
    // SAFETY: reserved arena space, zero at first (a valid value).
    unsafe { &mut *(TABLE as *mut Table) }
}

/// Reads the host's CPUID; before faulting is switched on.
pub fn read_host() {
    let t = table();
    for leaf in 0..STANDARD {
        for sub in 0..SUBLEAVES {
            t.standard[leaf][sub] = __cpuid_count(leaf as u32, sub as u32);
        }
    }
    for leaf in 0..EXTENDED {
        t.extended[leaf] = __cpuid_count(0x8000_0000 + leaf as u32, 0);
    }
    if t.standard[1][0].ecx & 1 << 27 != 0 {
        let (low, high): (u32, u32);
        // SAFETY: OSXSAVE is set, so XGETBV exists.
        unsafe { core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) };
        t.xcr0 = u64::from(high) << 32 | u64::from(low);
    }
}

/// x87, SSE, AVX and AVX-512 state: what guests may use of XCR0.
const XCR0_OFFERED: u64 = 0xe7;

/// The guest's XCR0.
pub fn guest_xcr0() -> u64 {
    table().xcr0 & XCR0_OFFERED
}

/// Offset of PKRU in the host's XSAVE area, bytes.
pub fn pkru_offset() -> u32 {
    table().standard[0xd][9].ebx
}

/// Features the engine needs of the host.
pub fn missing(with_keys: bool) -> Option<&'static str> {
    let t = table();
    let seven = t.standard[7][0];
    let needs = [
        (t.standard[1][0].ecx & 1 << 26 != 0 && t.xcr0 & 7 == 7, "XSAVE with AVX"),
        (seven.ebx & 1 != 0, "FSGSBASE"),
        (seven.ebx & 1 << 8 != 0, "BMI2"),
        (!with_keys || seven.ecx & 1 << 4 != 0, "protection keys (PKU)"),
    ];
    needs.into_iter().find(|(has, _)| !has).map(|(_, what)| what)
}

/// CPUID.1:ECX bits kept: SSE3, PCLMUL, SSSE3, FMA, CX16, SSE4.1, SSE4.2,
/// MOVBE, POPCNT, AES, XSAVE, OSXSAVE, AVX, F16C, RDRAND.
const LEAF1_ECX: u32 = 1 << 0
    | 1 << 1
    | 1 << 9
    | 1 << 12
    | 1 << 13
    | 1 << 19
    | 1 << 20
    | 1 << 22
    | 1 << 23
    | 1 << 25
    | 1 << 26
    | 1 << 27
    | 1 << 28
    | 1 << 29
    | 1 << 30;
/// The hypervisor bit.
const HYPERVISOR: u32 = 1 << 31;
/// CPUID.1:EDX bits kept: FPU, DE, TSC, MSR, PAE, CX8, APIC, CMOV, PAT, CLFSH,
/// MMX, FXSR, SSE, SSE2 — no SEP, MTRR, PSE, PGE, MCE as Xen PV.
const LEAF1_EDX: u32 = 1 << 0
    | 1 << 2
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 9
    | 1 << 15
    | 1 << 16
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26;
/// CPUID.7.0:EBX bits kept: BMI1, AVX2, BMI2, ERMS, AVX512F/DQ, RDSEED, ADX,
/// IFMA, CLFLUSHOPT, CLWB, AVX512CD, SHA, AVX512BW/VL.
const LEAF7_EBX: u32 = 1 << 3
    | 1 << 5
    | 1 << 8
    | 1 << 9
    | 1 << 16
    | 1 << 17
    | 1 << 18
    | 1 << 19
    | 1 << 21
    | 1 << 23
    | 1 << 24
    | 1 << 28
    | 1 << 29
    | 1 << 30
    | 1 << 31;
/// CPUID.7.0:ECX bits kept: VBMI, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG,
/// VPOPCNTDQ, RDPID.
const LEAF7_ECX: u32 =
    1 << 1 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 22;
/// CPUID.7.0:EDX bits kept: 4VNNIW, 4FMAPS, FSRM, VP2INTERSECT.
const LEAF7_EDX: u32 = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8;
/// CPUID.0x80000001:ECX bits kept: LAHF, ABM, SSE4A, misaligned SSE, prefetch.
const EXT1_ECX: u32 = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
/// CPUID.0x80000001:EDX bits kept: SYSCALL, NX, LM, and RDTSCP where present;
/// AMD repeats some of leaf 1.
const EXT1_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29;

/// Xen's leaves (arch-x86/cpuid.h).
const XEN_BASE: u32 = 0x4000_0000;

fn regs(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidResult {
    CpuidResult { eax, ebx, ecx, edx }
}

/// The guest's view of a leaf.
pub fn guest_leaf(leaf: u32, sub: u32) -> CpuidResult {
    let t = table();
    let host = |l: u32, s: u32| {
        t.standard[(l as usize).min(STANDARD - 1)][(s as usize).min(SUBLEAVES - 1)]
    };
    match leaf {
        0 => regs(host(0, 0).eax.min(0xd), host(0, 0).ebx, host(0, 0).ecx, host(0, 0).edx),
        1 => {
            let h = host(1, 0);
            let avx = if guest_xcr0() & 4 == 0 { 1 << 28 | 1 << 12 | 1 << 29 } else { 0 };
            // One logical processor, APIC id 0.
            regs(
                h.eax,
                h.ebx & 0xff00 | 1 << 16,
                h.ecx & LEAF1_ECX & !avx | HYPERVISOR,
                h.edx & LEAF1_EDX,
            )
        }
        2 => host(2, 0),
        4 => {
            let h = host(4, sub);
            regs(h.eax & 0x3fff, h.ebx, h.ecx, h.edx)
        }
        7 if sub == 0 => {
            let h = host(7, 0);
            let wide = guest_xcr0() & 0xe0 == 0xe0;
            let no512 =
                if wide { 0 } else { 1 << 16 | 1 << 17 | 1 << 21 | 1 << 28 | 1 << 30 | 1 << 31 };
            let no512c = if wide { 0 } else { 1 << 1 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14 };
            regs(0, h.ebx & LEAF7_EBX & !no512, h.ecx & LEAF7_ECX & !no512c, h.edx & LEAF7_EDX)
        }
        0xd => xstate_leaf(sub),
        XEN_BASE => regs(XEN_BASE + 4, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e),
        0x4000_0001 => regs(abi::version::XEN_VERSION, 0, 0, 0),
        0x8000_0000 => regs(
            t.extended[0].eax.min(0x8000_0008),
            t.extended[0].ebx,
            t.extended[0].ecx,
            t.extended[0].edx,
        ),
        0x8000_0001 => {
            let h = t.extended[1];
            regs(h.eax, 0, h.ecx & EXT1_ECX, h.edx & EXT1_EDX)
        }
        0x8000_0002..=0x8000_0006 => t.extended[(leaf & 0xff) as usize],
        0x8000_0007 => regs(0, 0, 0, t.extended[7].edx & 1 << 8),
        // Physical and virtual address bits; no LA57.
        0x8000_0008 => regs(0x302e, 0, 0, 0),
        _ => regs(0, 0, 0, 0),
    }
}

/// Leaf 0xd: sizes for the guest's XCR0 only, standard form (no XSAVES).
fn xstate_leaf(sub: u32) -> CpuidResult {
    let t = table();
    let xcr0 = guest_xcr0();
    let component = |i: usize| t.standard[0xd][i.min(SUBLEAVES - 1)];
    match sub {
        0 => {
            let size = (2..16)
                .filter(|i| xcr0 & 1 << i != 0)
                .map(|i| component(i).ebx + component(i).eax)
                .fold(576, u32::max);
            regs(xcr0 as u32, size, size, (xcr0 >> 32) as u32)
        }
        // XSAVEOPT and XGETBV with ECX = 1; XSAVEC and XSAVES are not offered.
        1 => regs(component(1).eax & 0b0001, 0, 0, 0),
        i if i < 16 && xcr0 & 1 << i != 0 => {
            let c = component(i as usize);
            regs(c.eax, c.ebx, 0, 0)
        }
        _ => regs(0, 0, 0, 0),
    }
}

impl Monitor {
    /// Executes CPUID for the guest.
    pub fn do_cpuid(&mut self) {
        let c = crate::gate::context();
        let r = guest_leaf(c.regs[0] as u32, c.regs[1] as u32);
        c.regs[0] = r.eax.into();
        c.regs[3] = r.ebx.into();
        c.regs[1] = r.ecx.into();
        c.regs[2] = r.edx.into();
    }
}
