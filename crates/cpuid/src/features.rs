//! The table of features.

use crate::Level;

/// A register that CPUID fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Registers that hold feature flags.
pub const WORDS: usize = 11;
/// One value for each of them.
pub type Words = [u32; WORDS];
/// Leaf, subleaf and register of each.
pub const WORD_PLACES: [(u32, u32, Register); WORDS] = [
    (1, 0, Register::Ecx),
    (1, 0, Register::Edx),
    (7, 0, Register::Ebx),
    (7, 0, Register::Ecx),
    (7, 0, Register::Edx),
    (7, 1, Register::Eax),
    (0xd, 1, Register::Eax),
    (0x8000_0001, 0, Register::Ecx),
    (0x8000_0001, 0, Register::Edx),
    (0x8000_0007, 0, Register::Edx),
    (0x8000_0008, 0, Register::Ebx),
];

/// A bit of one of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    /// Index in [`WORD_PLACES`].
    pub word: usize,
    /// The word with this bit alone.
    pub mask: u32,
}

impl Bit {
    const fn new(word: usize, bit: u32) -> Bit {
        Bit { word, mask: 1 << bit }
    }

    /// The feature there.
    pub fn feature(self) -> Option<&'static Feature> {
        FEATURES.iter().find(|feature| feature.bit == self)
    }

    /// Is it set?
    pub fn of(self, words: &Words) -> bool {
        words[self.word] & self.mask != 0
    }
}

/// May guests have it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They must: no 64-bit kernel comes up without.
    Needed,
    /// They may.
    Offered,
    /// They never see it, for this reason.
    Hidden(&'static str),
}

/// A feature.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Its names, libxl's first.
    pub names: &'static [&'static str],
    /// Its place.
    pub bit: Bit,
    /// May guests have it?
    pub kind: Kind,
    /// The lowest level that has it; 1 = every level, 0 = none.
    level: u32,
    /// It is nothing without this one.
    pub needs: Option<Bit>,
}

impl Feature {
    /// Its first name.
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// Does a guest of that level have it wherever it runs?
    pub fn is_of(&self, level: Level) -> bool {
        self.level != 0 && self.level <= level as u32
    }

    /// Does every level have it?
    pub fn is_of_all_levels(&self) -> bool {
        self.level == 1
    }

    /// May guests have it?
    pub fn is_offered(&self) -> bool {
        !matches!(self.kind, Kind::Hidden(_))
    }
}

const fn needed(word: usize, bit: u32, names: &'static [&'static str]) -> Feature {
    Feature { names, bit: Bit::new(word, bit), kind: Kind::Needed, level: 1, needs: None }
}

const fn offered(
    word: usize,
    bit: u32,
    names: &'static [&'static str],
    level: u32,
    needs: Option<Bit>,
) -> Feature {
    Feature { names, bit: Bit::new(word, bit), kind: Kind::Offered, level, needs }
}

const fn hidden(
    word: usize,
    bit: u32,
    names: &'static [&'static str],
    why: &'static str,
) -> Feature {
    Feature { names, bit: Bit::new(word, bit), kind: Kind::Hidden(why), level: 0, needs: None }
}

/// The hypervisor bit: guests see it whatever the host has.
pub(crate) const HYPERVISOR: Bit = Bit::new(0, 31);
/// Features with vector state.
pub(crate) const XSAVE: Bit = Bit::new(0, 26);
pub(crate) const AVX: Bit = Bit::new(0, 28);
pub(crate) const AVX512F: Bit = Bit::new(2, 16);

const PV: &str = "Xen PV has none";
const OFF: &str = "not supported";
const HARDWARE: &str = "the host's own business";
const OLD: &str = "no processor that is supported has it";
const MITIGATION: &str = "mitigations are the host's";
const ONE: &str = "one vCPU";

/// Every feature flag with a name, by word and bit.
#[rustfmt::skip]
pub const FEATURES: &[Feature] = &[
    // 1:ecx
    offered(0, 0, &["sse3", "pni"], 2, Some(Bit::new(1, 26))),
    offered(0, 1, &["pclmulqdq", "pclmul"], 0, Some(Bit::new(1, 26))),
    hidden(0, 2, &["dtes64"], HARDWARE),
    hidden(0, 3, &["monitor"], PV),
    hidden(0, 4, &["dscpl", "ds_cpl"], HARDWARE),
    hidden(0, 5, &["vmx"], OFF),
    hidden(0, 6, &["smx"], OFF),
    hidden(0, 7, &["est"], HARDWARE),
    hidden(0, 8, &["tm2"], HARDWARE),
    offered(0, 9, &["ssse3"], 2, Some(Bit::new(0, 0))),
    hidden(0, 10, &["cntxid"], HARDWARE),
    offered(0, 12, &["fma"], 3, Some(AVX)),
    offered(0, 13, &["cx16", "cmpxchg16", "cmpxchg16b"], 2, None),
    hidden(0, 14, &["xtpr"], HARDWARE),
    hidden(0, 15, &["pdcm"], HARDWARE),
    hidden(0, 17, &["pcid"], PV),
    hidden(0, 18, &["dca"], HARDWARE),
    offered(0, 19, &["sse4_1"], 2, Some(Bit::new(0, 9))),
    offered(0, 20, &["sse4_2"], 2, Some(Bit::new(0, 19))),
    hidden(0, 21, &["x2apic"], PV),
    offered(0, 22, &["movbe"], 3, None),
    offered(0, 23, &["popcnt"], 2, None),
    hidden(0, 24, &["tsc-deadline"], PV),
    offered(0, 25, &["aes", "aesni"], 0, Some(Bit::new(1, 26))),
    offered(0, 26, &["xsave"], 3, None),
    offered(0, 27, &["osxsave"], 3, Some(XSAVE)),
    offered(0, 28, &["avx"], 3, Some(Bit::new(0, 27))),
    offered(0, 29, &["f16c"], 3, Some(AVX)),
    offered(0, 30, &["rdrand"], 0, None),
    offered(0, 31, &["hypervisor"], 1, None),
    // 1:edx
    needed(1, 0, &["fpu"]),
    hidden(1, 1, &["vme"], PV),
    offered(1, 2, &["de"], 1, None),
    hidden(1, 3, &["pse"], PV),
    needed(1, 4, &["tsc"]),
    needed(1, 5, &["msr"]),
    needed(1, 6, &["pae"]),
    hidden(1, 7, &["mce"], PV),
    needed(1, 8, &["cx8", "cmpxchg8", "cmpxchg8b"]),
    offered(1, 9, &["apic"], 1, None),
    hidden(1, 11, &["sysenter", "sep"], "only 64-bit programs run, which have SYSCALL"),
    hidden(1, 12, &["mtrr"], PV),
    hidden(1, 13, &["pge"], PV),
    hidden(1, 14, &["mca"], PV),
    needed(1, 15, &["cmov"]),
    offered(1, 16, &["pat"], 1, None),
    hidden(1, 17, &["pse36"], PV),
    hidden(1, 18, &["psn"], HARDWARE),
    offered(1, 19, &["clfsh", "clflush"], 1, None),
    hidden(1, 21, &["ds"], HARDWARE),
    hidden(1, 22, &["acpi"], HARDWARE),
    offered(1, 23, &["mmx"], 1, None),
    needed(1, 24, &["fxsr"]),
    needed(1, 25, &["sse"]),
    needed(1, 26, &["sse2"]),
    hidden(1, 27, &["ss"], HARDWARE),
    hidden(1, 28, &["htt"], ONE),
    hidden(1, 29, &["tm"], HARDWARE),
    hidden(1, 30, &["ia64"], OFF),
    hidden(1, 31, &["pbe"], HARDWARE),
    // 7,0:ebx
    hidden(2, 0, &["fsgsbase"], "bases would not outlive a system call"),
    hidden(2, 1, &["tsc_adjust"], PV),
    offered(2, 3, &["bmi1"], 3, None),
    hidden(2, 4, &["hle"], OFF),
    offered(2, 5, &["avx2"], 3, Some(AVX)),
    hidden(2, 7, &["smep"], PV),
    offered(2, 8, &["bmi2"], 3, None),
    offered(2, 9, &["erms"], 0, None),
    hidden(2, 10, &["invpcid"], PV),
    hidden(2, 11, &["rtm"], OFF),
    hidden(2, 12, &["cmt", "pqm", "cqm"], HARDWARE),
    hidden(2, 14, &["mpx"], OFF),
    offered(2, 16, &["avx512f"], 4, Some(Bit::new(2, 5))),
    offered(2, 17, &["avx512dq"], 4, Some(AVX512F)),
    offered(2, 18, &["rdseed"], 0, None),
    offered(2, 19, &["adx"], 0, None),
    hidden(2, 20, &["smap"], PV),
    offered(2, 21, &["avx512-ifma"], 0, Some(AVX512F)),
    offered(2, 23, &["clflushopt"], 0, None),
    offered(2, 24, &["clwb"], 0, None),
    hidden(2, 25, &["proc-trace", "intel_pt"], OFF),
    hidden(2, 26, &["avx512pf"], OLD),
    hidden(2, 27, &["avx512er"], OLD),
    offered(2, 28, &["avx512cd"], 4, Some(AVX512F)),
    offered(2, 29, &["sha", "sha_ni"], 0, Some(Bit::new(1, 26))),
    offered(2, 30, &["avx512bw"], 4, Some(AVX512F)),
    offered(2, 31, &["avx512vl"], 4, Some(AVX512F)),
    // 7,0:ecx
    hidden(3, 0, &["prefetchwt1"], OLD),
    offered(3, 1, &["avx512-vbmi"], 0, Some(AVX512F)),
    hidden(3, 2, &["umip"], "the monitor does not enforce it"),
    hidden(3, 3, &["pku"], "the engine has the keys for itself"),
    hidden(3, 4, &["ospke"], "the engine has the keys for itself"),
    hidden(3, 5, &["waitpkg"], OFF),
    offered(3, 6, &["avx512-vbmi2"], 0, Some(AVX512F)),
    hidden(3, 7, &["cet-ss", "shstk"], OFF),
    offered(3, 8, &["gfni"], 0, Some(Bit::new(1, 26))),
    offered(3, 9, &["vaes"], 0, Some(AVX)),
    offered(3, 10, &["vpclmulqdq"], 0, Some(AVX)),
    offered(3, 11, &["avx512-vnni"], 0, Some(AVX512F)),
    offered(3, 12, &["avx512-bitalg"], 0, Some(AVX512F)),
    offered(3, 14, &["avx512-vpopcntdq"], 0, Some(AVX512F)),
    hidden(3, 16, &["la57"], PV),
    offered(3, 22, &["rdpid"], 0, None),
    hidden(3, 25, &["cldemote"], OFF),
    hidden(3, 27, &["movdiri"], OFF),
    hidden(3, 28, &["movdir64b"], OFF),
    hidden(3, 29, &["enqcmd"], OFF),
    // 7,0:edx
    offered(4, 2, &["avx512-4vnniw"], 0, Some(AVX512F)),
    offered(4, 3, &["avx512-4fmaps"], 0, Some(AVX512F)),
    offered(4, 4, &["fsrm"], 0, None),
    offered(4, 8, &["avx512-vp2intersect"], 0, Some(AVX512F)),
    hidden(4, 10, &["md-clear"], MITIGATION),
    hidden(4, 14, &["serialize"], OFF),
    hidden(4, 20, &["cet-ibt", "ibt"], OFF),
    hidden(4, 22, &["amx-bf16"], OFF),
    hidden(4, 23, &["avx512-fp16"], OFF),
    hidden(4, 24, &["amx-tile"], OFF),
    hidden(4, 25, &["amx-int8"], OFF),
    hidden(4, 26, &["ibrsb", "spec_ctrl"], MITIGATION),
    hidden(4, 27, &["stibp"], MITIGATION),
    hidden(4, 28, &["l1d-flush", "flush_l1d"], MITIGATION),
    hidden(4, 29, &["arch-caps", "arch_capabilities"], MITIGATION),
    hidden(4, 30, &["core-caps"], HARDWARE),
    hidden(4, 31, &["ssbd"], MITIGATION),
    // 7,1:eax
    hidden(5, 4, &["avx-vnni"], OFF),
    hidden(5, 5, &["avx512-bf16"], OFF),
    hidden(5, 10, &["fzrm"], OFF),
    hidden(5, 11, &["fsrs"], OFF),
    hidden(5, 12, &["fsrcs"], OFF),
    // 0xd,1:eax
    offered(6, 0, &["xsaveopt"], 0, Some(XSAVE)),
    hidden(6, 1, &["xsavec"], "the engine knows the standard form only"),
    hidden(6, 2, &["xgetbv1"], OFF),
    hidden(6, 3, &["xsaves"], "the engine knows the standard form only"),
    // 0x8000_0001:ecx
    offered(7, 0, &["lahfsahf", "lahf_lm"], 2, None),
    hidden(7, 1, &["cmplegacy", "cmp_legacy"], ONE),
    hidden(7, 2, &["svm"], OFF),
    hidden(7, 3, &["extapic"], HARDWARE),
    hidden(7, 4, &["altmovcr8", "cr8_legacy"], HARDWARE),
    offered(7, 5, &["abm", "lzcnt"], 3, None),
    offered(7, 6, &["sse4a"], 0, Some(Bit::new(0, 0))),
    offered(7, 7, &["misalignsse"], 0, Some(Bit::new(1, 26))),
    offered(7, 8, &["3dnowprefetch"], 0, None),
    hidden(7, 9, &["osvw"], HARDWARE),
    hidden(7, 10, &["ibs"], HARDWARE),
    hidden(7, 11, &["xop"], OLD),
    hidden(7, 12, &["skinit"], HARDWARE),
    hidden(7, 13, &["wdt"], HARDWARE),
    hidden(7, 15, &["lwp"], OLD),
    hidden(7, 16, &["fma4"], OLD),
    hidden(7, 19, &["nodeid", "nodeid_msr"], HARDWARE),
    hidden(7, 21, &["tbm"], OLD),
    hidden(7, 22, &["topoext"], ONE),
    hidden(7, 23, &["perfctr_core"], PV),
    hidden(7, 24, &["perfctr_nb"], PV),
    hidden(7, 29, &["monitorx", "mwaitx"], PV),
    // 0x8000_0001:edx
    needed(8, 11, &["syscall"]),
    hidden(8, 19, &["mp"], ONE),
    needed(8, 20, &["nx"]),
    hidden(8, 22, &["mmxext"], OFF),
    hidden(8, 25, &["ffxsr", "fxsr_opt"], OFF),
    hidden(8, 26, &["page1gb", "pdpe1gb"], PV),
    offered(8, 27, &["rdtscp"], 0, None),
    needed(8, 29, &["lm"]),
    hidden(8, 30, &["3dnowext"], OLD),
    hidden(8, 31, &["3dnow"], OLD),
    // 0x8000_0007:edx
    offered(9, 8, &["invtsc", "itsc"], 0, None),
    // 0x8000_0008:ebx
    hidden(10, 0, &["clzero"], OFF),
    hidden(10, 9, &["wbnoinvd"], OFF),
    hidden(10, 12, &["ibpb"], MITIGATION),
    hidden(10, 14, &["ibrs"], MITIGATION),
    hidden(10, 15, &["amd-stibp"], MITIGATION),
    hidden(10, 24, &["amd-ssbd"], MITIGATION),
];

/// The feature of that name; case, `-`, `_` and `.` do not matter.
pub fn feature(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.names.iter().any(|known| is_same(known, name)))
}

fn is_same(a: &str, b: &str) -> bool {
    plain(a).eq(plain(b))
}

fn plain(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(|b| !matches!(b, b'-' | b'_' | b'.')).map(|b| b.to_ascii_lowercase())
}
