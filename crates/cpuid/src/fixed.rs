//! What a level fixes besides features: model, caches, name. The processor is
//! an early one of the level, so that kernels take the precautions that the
//! oldest hosts need.

use crate::{Host, Level, Regs};

/// CLFLUSH line size of leaf 1: 64 bytes, in units of eight.
pub(crate) const LINE_SIZE: u32 = 8 << 8;

/// EBX of leaf 0: the first four letters of the vendor's name.
const INTEL: u32 = u32::from_le_bytes(*b"Genu");
const AMD: u32 = u32::from_le_bytes(*b"Auth");

/// Family, model and stepping, as leaf 1 gives them; `None` = the host's.
pub(crate) fn signature(host: &impl Host, level: Level) -> Option<u32> {
    match (host.leaf(0, 0).ebx, level) {
        // Skylake-SP and Haswell-EP; Zen 4 and Zen.
        (INTEL, Level::V4) => Some(0x5_0654),
        (INTEL, _) => Some(0x3_06f2),
        (AMD, Level::V4) => Some(0xa1_0f11),
        (AMD, _) => Some(0x80_0f12),
        _ => None,
    }
}

/// Leaves 2, 4 and `0x8000_0002..=0x8000_0006`: the name, and caches of 32 KiB,
/// 256 KiB and 8 MiB, as C libraries choose their copy routines by them.
pub(crate) fn leaf(host: &impl Host, level: Level, leaf: u32, sub: u32) -> Regs {
    match leaf {
        4 if host.leaf(0, 0).ebx == INTEL => intel_cache(sub),
        0x8000_0002..=0x8000_0004 => name(level, leaf),
        0x8000_0005 if host.leaf(0, 0).ebx == AMD => Regs::new(0, 0, 0x2008_0140, 0x2008_0140),
        // L2: 256 KiB, eight ways. L3 (AMD): 16 times 512 KiB, 16 ways.
        0x8000_0006 if host.leaf(0, 0).ebx == AMD => {
            Regs::new(0, 0, 0x0100_6140, 16 << 18 | 0x8140)
        }
        0x8000_0006 => Regs::new(0, 0, 0x0100_6040, 0),
        _ => Regs::default(),
    }
}

/// Leaf 4: type and level, ways, sets.
fn intel_cache(sub: u32) -> Regs {
    let (kind, level, ways, sets) = match sub {
        0 => (1, 1, 8, 64),
        1 => (2, 1, 8, 64),
        2 => (3, 2, 8, 512),
        3 => (3, 3, 16, 8192),
        _ => return Regs::default(),
    };
    // Self-initialising; lines of 64 bytes, one partition.
    Regs::new(kind | level << 5 | 1 << 8, 63 | (ways - 1) << 22, sets - 1, 0)
}

/// The processor's name, 48 bytes in three leaves.
fn name(level: Level, leaf: u32) -> Regs {
    let text = level.name().bytes().chain(" (Xenolith)".bytes());
    let mut bytes = [0u8; 48];
    for (to, from) in bytes.iter_mut().zip(text) {
        *to = from;
    }
    let word = |i: usize| {
        let at = (leaf - 0x8000_0002) as usize * 16 + i * 4;
        bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    Regs::new(word(0), word(1), word(2), word(3))
}
