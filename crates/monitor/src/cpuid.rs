//! What guests see of the processor.
//!
//! The host's CPUID is read once, before CPUID faulting is switched on for the
//! domain's spaces (spaces inherit it). Guest kernels always see the masked
//! view (the crate `cpuid`); guest programs see it where the CPU can fault on
//! CPUID, else the host's own (docs/exactness.md).

use core::arch::x86_64::__cpuid_count;

use cpuid::{Host, OFFERED_STATE, Policy, Regs, View};

use crate::{
    layout::at,
    state::{Monitor, page},
};

/// Leaves kept: standard 0..=0x1f with subleaves 0..=15, extended 0..=0x21.
const STANDARD: usize = 32;
const SUBLEAVES: usize = 16;
const EXTENDED: usize = 34;
const EXTENDED_BASE: u32 = 0x8000_0000;

/// The host's CPUID and what the guest sees of it, in the arena.
struct Table {
    standard: [[Regs; SUBLEAVES]; STANDARD],
    extended: [Regs; EXTENDED],
    xcr0: u64,
    view: View,
}

/// Right behind the domain page's copy; see `layout::ARENA_CONTEXT`.
const TABLE: u64 = at::ARENA + 0x4_0000;
const _: () = assert!(size_of::<Table>() < 0x8000);
const _: () = assert!(boundary::CPUID_WORDS == cpuid::WORDS);

fn table() -> &'static mut Table {
    // SAFETY: reserved arena space, zero at first (a valid value).
    unsafe { &mut *(TABLE as *mut Table) }
}

impl Host for Table {
    fn leaf(&self, leaf: u32, sub: u32) -> Regs {
        let found = match leaf.checked_sub(EXTENDED_BASE) {
            Some(extended) => self.extended.get(extended as usize),
            None => self.standard.get(leaf as usize).and_then(|subs| subs.get(sub as usize)),
        };
        found.copied().unwrap_or_default()
    }

    fn xcr0(&self) -> u64 {
        self.xcr0
    }
}

/// Executes CPUID on the host.
fn host_leaf(leaf: u32, sub: u32) -> Regs {
    let r = __cpuid_count(leaf, sub);
    Regs { eax: r.eax, ebx: r.ebx, ecx: r.ecx, edx: r.edx }
}

/// Reads the host's CPUID, and what the guest is to see of it; before faulting
/// is switched on.
pub fn read_host() {
    let t = table();
    for (leaf, subs) in t.standard.iter_mut().enumerate() {
        for (sub, regs) in subs.iter_mut().enumerate() {
            *regs = host_leaf(leaf as u32, sub as u32);
        }
    }
    for (leaf, regs) in t.extended.iter_mut().enumerate() {
        *regs = host_leaf(EXTENDED_BASE + leaf as u32, 0);
    }
    if t.standard[1][0].ecx & 1 << 27 != 0 {
        let (low, high): (u32, u32);
        // SAFETY: OSXSAVE is set, so XGETBV exists.
        unsafe { core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) };
        t.xcr0 = u64::from(high) << 32 | u64::from(low);
    }
    let setup = &page().setup;
    let policy = Policy::from_words(setup.cpuid_level, setup.cpuid_hidden);
    t.view = View::new(&*t, &policy).with_xen(abi::version::XEN_VERSION);
}

/// The guest's XCR0.
pub fn guest_xcr0() -> u64 {
    table().view.xcr0()
}

/// The host's XCR0.
pub fn host_xcr0() -> u64 {
    table().xcr0
}

/// State that programs can use, whether their kernel knows it or not.
pub fn program_xcr0() -> u64 {
    table().xcr0 & OFFERED_STATE
}

/// Does the guest's kernel have XSAVE?
pub fn guest_has_xsave() -> bool {
    table().view.has_xsave()
}

/// Bytes of the area that XSAVE fills in the guest's kernel.
pub fn guest_xsave_size() -> u32 {
    let t = table();
    t.view.leaf(t, 0xd, 0).ebx
}

/// Bytes of the area that XSAVE fills in programs.
pub fn xsave_size() -> u32 {
    table().standard[0xd][0].ebx
}

/// Where a state component lies in an XSAVE area of the standard form: offset and size
/// in bytes.
pub fn component(number: usize) -> Option<(usize, usize)> {
    let r = table().standard[0xd].get(number)?;
    Some((r.ebx as usize, r.eax as usize))
}

/// Where a state component begins in an XSAVE area of the compacted form, if what lies before it ends at
/// `end`; bytes (SDM vol. 1, 13.4.3).
pub fn compacted_start(number: usize, end: usize) -> usize {
    let is_aligned = table().standard[0xd].get(number).is_some_and(|r| r.ecx & 2 != 0);
    if is_aligned { end.next_multiple_of(64) } else { end }
}

/// Does the processor know the compacted form of XSAVE areas (XSAVEC)?
pub fn has_compacted_form() -> bool {
    table().standard[0xd][1].eax & 2 != 0
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

impl Monitor {
    /// Executes CPUID for the guest.
    pub fn do_cpuid(&mut self) {
        let c = crate::gate::context();
        let t = table();
        let r = t.view.leaf(t, c.regs[0] as u32, c.regs[1] as u32);
        c.regs[0] = r.eax.into();
        c.regs[3] = r.ebx.into();
        c.regs[1] = r.ecx.into();
        c.regs[2] = r.edx.into();
    }
}
