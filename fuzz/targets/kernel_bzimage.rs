//! A whole kernel file: setup header, any compression, ELF, notes.
#![no_main]

use kernel::{KernelImage, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_output: 2 << 20 };

fuzz_target!(|data: &[u8]| {
    if let Ok(image) = KernelImage::load(data, &LIMITS) {
        assert!(image.elf.len() as u64 <= LIMITS.max_output.max(data.len() as u64));
    }
});
