//! Why a guest cannot be built.

use super::PAGES_PER_MIB;
use control::{ErrorCode, Failure};
use std::io;
use std::path::PathBuf;

/// Names of features (features.h) by bit.
const FEATURES: [(u32, &str); 12] = [
    (0, "writable_page_tables"),
    (1, "writable_descriptor_tables"),
    (2, "auto_translated_physmap"),
    (3, "supervisor_mode_kernel"),
    (4, "pae_pgdir_above_4gb"),
    (5, "mmu_pt_update_preserve_ad"),
    (6, "highmem_assist"),
    (7, "gnttab_map_avail_bits"),
    (8, "hvm_callback_vector"),
    (9, "hvm_safe_pvclock"),
    (10, "hvm_pirqs"),
    (11, "dom0"),
];

/// Why a guest cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The guest does not fit its memory.
    #[error(
        "memory = {have_mib} MiB is too little: kernel, ramdisk and page tables need {need_mib} MiB"
    )]
    TooSmall {
        /// Memory in MiB.
        have_mib: u64,
        /// Least memory in MiB.
        need_mib: u64,
    },
    /// More memory than an address space holds.
    #[error("A domain of {mib} MiB is too large: the most is {most_mib} MiB")]
    TooLarge {
        /// Memory in MiB.
        mib: u64,
        /// Most memory in MiB.
        most_mib: u64,
    },
    /// The kernel demands features that are not offered.
    #[error("The kernel requires features that are not offered: {}", names(*.missing))]
    Features {
        /// Bits as in features.h.
        missing: u32,
    },
    /// The kernel is not linked to the upper half.
    #[error(
        "The kernel maps itself at {virt_base:#x}, but 64-bit kernels must lie above {least:#x}"
    )]
    Base {
        /// The address.
        virt_base: u64,
        /// The lowest possible address.
        least: u64,
    },
    /// The command line is too long.
    #[error("The kernel command line has {length} bytes: the most is {most}")]
    CommandLine {
        /// Its length in bytes.
        length: usize,
        /// Most bytes.
        most: usize,
    },
    /// The command line has a zero byte.
    #[error("The kernel command line has a zero byte at offset {at}")]
    CommandLineZero {
        /// Offset in bytes.
        at: usize,
    },
    /// The ramdisk cannot be read.
    #[error("Cannot read ramdisk {}: {source}", path.display())]
    Ramdisk {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host gives no memory.
    #[error("The host gives no memory for the guest: {0}")]
    Memory(#[source] io::Error),
    /// The layout contradicts itself: a bug of the builder.
    #[error("The builder laid out {what} outside its place")]
    Layout {
        /// What.
        what: &'static str,
    },
}

impl BuildError {
    /// The error for a domain of `mib` MiB that is too large.
    pub(super) fn too_much(mib: u64) -> Self {
        let most = boundary::at::RAM_MAX / boundary::PAGE / PAGES_PER_MIB;
        Self::TooLarge { mib, most_mib: most }
    }
}

/// The names of the features in `bits`.
fn names(bits: u32) -> String {
    let known = |bit: u32| FEATURES.iter().find(|(number, _)| *number == bit);
    let names: Vec<String> = (0..u32::BITS)
        .filter(|bit| bits & 1 << bit != 0)
        .map(|bit| known(bit).map_or_else(|| format!("number {bit}"), |(_, name)| (*name).into()))
        .collect();
    names.join(", ")
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let message = error.to_string();
        match error {
            BuildError::TooSmall { need_mib, .. } => Self::new(ErrorCode::Memory, message)
                .with_hint(format!("Set memory = {need_mib} or more.")),
            BuildError::TooLarge { most_mib, .. } => Self::new(ErrorCode::Memory, message)
                .with_hint(format!("Set memory and maxmem to {most_mib} or less.")),
            BuildError::Features { .. } | BuildError::Base { .. } => {
                Self::new(ErrorCode::Kernel, message)
                    .with_hint("Use a 64-bit Linux kernel with Xen PV support.")
            }
            BuildError::CommandLine { .. } | BuildError::CommandLineZero { .. } => {
                Self::new(ErrorCode::Config, message).with_hint("Shorten root and extra.")
            }
            BuildError::Ramdisk { .. } => Self::new(ErrorCode::Config, message),
            BuildError::Memory(_) => Self::new(ErrorCode::Memory, message)
                .with_hint("End other domains or programs, or give this one less memory."),
            BuildError::Layout { .. } => Self::new(ErrorCode::Host, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_features_are_named() {
        let error = BuildError::Features { missing: 1 << 2 | 1 << 30 };
        assert!(error.to_string().ends_with("auto_translated_physmap, number 30"), "{error}");
    }
}
