//! What of the host's processor a guest sees.
//!
//! [`FEATURES`] is the one table: every feature flag that has a name, whether
//! guests may have it, and from which level on they do. A [`Policy`] says what
//! a domain's configuration takes away; a [`View`] is what remains of a host
//! with that policy, leaf by leaf. Numbers are those of the Intel SDM (vol. 2A,
//! CPUID) and the AMD APM (vol. 3, appendix E); names are those of
//! `libxl_cpuid.c` and Linux's `/proc/cpuinfo`.

#![no_std]
#![forbid(unsafe_code)]

mod features;
mod fixed;
mod level;
mod policy;
mod view;

pub use features::{Bit, FEATURES, Feature, Kind, Register, WORD_PLACES, WORDS, Words, feature};
pub use level::Level;
pub use policy::{Choice, Policy};
pub use view::{OFFERED_STATE, View};

/// The registers of one leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regs {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl Regs {
    pub(crate) fn new(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Regs {
        Regs { eax, ebx, ecx, edx }
    }

    /// One of them.
    pub fn get(&self, register: Register) -> u32 {
        match register {
            Register::Eax => self.eax,
            Register::Ebx => self.ebx,
            Register::Ecx => self.ecx,
            Register::Edx => self.edx,
        }
    }
}

/// A host's processor.
pub trait Host {
    /// A leaf of its CPUID; zeros where it has none.
    fn leaf(&self, leaf: u32, sub: u32) -> Regs;
    /// Its XCR0, 0 without XSAVE.
    fn xcr0(&self) -> u64;
}
