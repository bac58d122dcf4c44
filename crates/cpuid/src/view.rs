//! What a guest sees: leaf by leaf, from a host and a policy.

use crate::{
    Host, Level, Policy, Register, Regs, WORD_PLACES, WORDS, Words,
    features::{AVX, AVX512F, FEATURES, HYPERVISOR, XSAVE},
    fixed,
};

/// x87, SSE, AVX and AVX-512 state: what guests may use of XCR0.
pub const OFFERED_STATE: u64 = 0xe7;
/// x87 and SSE: state that is there without XSAVE too.
const LEGACY_STATE: u64 = 3;
/// What AVX needs, and what AVX-512 needs besides (SDM vol. 1, 13.3).
const AVX_STATE: u64 = 1 << 2;
const AVX512_STATE: u64 = 0xe0;
/// Bytes of the legacy region and the header of an XSAVE area.
const XSAVE_LEAST: u32 = 576;
/// State components that the standard form may have.
const COMPONENTS: u32 = 16;

/// Highest leaves that guests see.
const LAST: u32 = 0xd;
const LAST_EXTENDED: u32 = 0x8000_0008;
/// Xen's leaves (arch-x86/cpuid.h): "XenVMMXenVMM".
const XEN: u32 = 0x4000_0000;
/// 46 physical and 48 virtual address bits; no LA57.
const ADDRESS_BITS: u32 = 0x302e;

/// What a guest sees. All zeros is a value too: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct View {
    words: Words,
    xcr0: u64,
    level: u32,
    xen_version: u32,
}

impl View {
    /// The view of a guest with that policy on that host.
    pub fn new(host: &impl Host, policy: &Policy) -> View {
        let mut words = [0; WORDS];
        for feature in FEATURES.iter().filter(|f| f.is_offered()) {
            words[feature.bit.word] |= feature.bit.mask;
        }
        for (word, (leaf, sub, register)) in words.iter_mut().zip(WORD_PLACES) {
            *word &= host.leaf(leaf, sub).get(register);
        }
        words[HYPERVISOR.word] |= HYPERVISOR.mask;
        for (word, hidden) in words.iter_mut().zip(policy.hidden) {
            *word &= !hidden;
        }
        let state = host.xcr0() & OFFERED_STATE;
        if state & (LEGACY_STATE | AVX_STATE) != LEGACY_STATE | AVX_STATE {
            words[AVX.word] &= !AVX.mask;
        }
        if state & AVX512_STATE != AVX512_STATE {
            words[AVX512F.word] &= !AVX512F.mask;
        }
        drop_dependents(&mut words);
        let mut xcr0 = LEGACY_STATE;
        xcr0 |= if AVX.of(&words) { AVX_STATE } else { 0 };
        xcr0 |= if AVX512F.of(&words) { AVX512_STATE } else { 0 };
        View { words, xcr0, level: policy.level as u32, xen_version: 0 }
    }

    /// With Xen's version in its leaf.
    pub fn with_xen(self, xen_version: u32) -> View {
        View { xen_version, ..self }
    }

    /// The feature words.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// XCR0 as the guest's kernel sees it; x87 and SSE without XSAVE.
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Does the guest's kernel have XSAVE?
    pub fn has_xsave(&self) -> bool {
        XSAVE.of(&self.words)
    }

    /// Vector state that programs can use on this host and that the guest's
    /// kernel does not know: it would be lost at context switches.
    pub fn unknown_state(&self, host: &impl Host) -> u64 {
        host.xcr0() & OFFERED_STATE & !self.xcr0
    }

    fn is_fixed(&self) -> bool {
        self.level != Level::Host as u32
    }

    /// A feature word by its place, 0 where there is none.
    fn word(&self, leaf: u32, sub: u32, register: Register) -> u32 {
        let places = WORD_PLACES.iter().zip(self.words);
        let mut found = places.filter(|(place, _)| **place == (leaf, sub, register));
        found.next().map_or(0, |(_, word)| word)
    }

    /// A leaf of which only feature words are seen.
    fn flags(&self, leaf: u32, sub: u32) -> Regs {
        let word = |register| self.word(leaf, sub, register);
        Regs::new(
            word(Register::Eax),
            word(Register::Ebx),
            word(Register::Ecx),
            word(Register::Edx),
        )
    }

    /// The guest's view of a leaf.
    pub fn leaf(&self, host: &impl Host, leaf: u32, sub: u32) -> Regs {
        match leaf {
            0 => {
                let h = host.leaf(0, 0);
                Regs { eax: if self.is_fixed() { LAST } else { h.eax.min(LAST) }, ..h }
            }
            1 => self.identity(host),
            2 | 4 | 0x8000_0002..=0x8000_0006 if self.is_fixed() => {
                fixed::leaf(host, Level::from_number(self.level), leaf, sub)
            }
            2 | 0x8000_0002..=0x8000_0006 => host.leaf(leaf, 0),
            // Cores and threads of the package are not the guest's.
            4 => {
                let h = host.leaf(4, sub);
                Regs { eax: h.eax & 0x3fff, ..h }
            }
            // Its highest subleaf is 0.
            7 if sub == 0 => self.flags(7, 0),
            0xd => self.state_leaf(host, sub),
            XEN => Regs::new(XEN + 4, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e),
            0x4000_0001 => Regs::new(self.xen_version, 0, 0, 0),
            0x8000_0000 => {
                let h = host.leaf(leaf, 0);
                let last = if self.is_fixed() { LAST_EXTENDED } else { h.eax.min(LAST_EXTENDED) };
                Regs { eax: last, ..h }
            }
            0x8000_0001 => Regs { eax: self.signature(host, leaf), ..self.flags(leaf, 0) },
            0x8000_0007 => self.flags(leaf, 0),
            0x8000_0008 => Regs::new(ADDRESS_BITS, 0, 0, 0),
            _ => Regs::default(),
        }
    }

    /// Family, model and stepping.
    fn signature(&self, host: &impl Host, leaf: u32) -> u32 {
        let h = host.leaf(leaf, 0).eax;
        if !self.is_fixed() {
            return h;
        }
        match fixed::signature(host, Level::from_number(self.level)) {
            // Intel leaves this leaf's EAX empty.
            Some(_) if leaf != 1 && h == 0 => 0,
            Some(signature) => signature,
            None => h,
        }
    }

    /// Leaf 1: one logical processor with APIC id 0.
    fn identity(&self, host: &impl Host) -> Regs {
        let line = if self.is_fixed() { fixed::LINE_SIZE } else { host.leaf(1, 0).ebx & 0xff00 };
        Regs { eax: self.signature(host, 1), ebx: line | 1 << 16, ..self.flags(1, 0) }
    }

    /// Leaf 0xd: sizes for the guest's XCR0 only, standard form (no XSAVES).
    /// Offsets are the processor's: XSAVE writes there.
    fn state_leaf(&self, host: &impl Host, sub: u32) -> Regs {
        let has = |i: u32| self.xcr0 >> i & 1 != 0;
        match sub {
            _ if !self.has_xsave() => Regs::default(),
            0 => {
                let end = |i| {
                    let h = host.leaf(0xd, i);
                    h.ebx.saturating_add(h.eax)
                };
                let size = (2..COMPONENTS).filter(|i| has(*i)).map(end).fold(XSAVE_LEAST, u32::max);
                Regs::new(self.xcr0 as u32, size, size, (self.xcr0 >> 32) as u32)
            }
            1 => self.flags(0xd, 1),
            i if (2..COMPONENTS).contains(&i) && has(i) => {
                let h = host.leaf(0xd, i);
                Regs::new(h.eax, h.ebx, 0, 0)
            }
            _ => Regs::default(),
        }
    }
}

/// Takes away what is nothing without something that is not there.
fn drop_dependents(words: &mut Words) {
    loop {
        let before = *words;
        for feature in FEATURES {
            if feature.needs.is_some_and(|needed| !needed.of(words)) {
                words[feature.bit.word] &= !feature.bit.mask;
            }
        }
        if *words == before {
            return;
        }
    }
}
