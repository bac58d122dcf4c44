//! A plain ELF kernel; what loads keeps the promises that a domain builder relies on.
#![no_main]

use kernel::{KernelImage, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_output: 64 << 20 };

fuzz_target!(|data: &[u8]| {
    let Ok(image) = KernelImage::from_elf(data.to_vec(), &LIMITS) else { return };
    assert!(image.virtual_range().contains(&image.entry));
    assert!(image.virt_base.is_multiple_of(4096));
    let mut end = 0;
    for segment in &image.segments {
        assert!(segment.paddr >= end && segment.paddr >= image.paddr_offset);
        assert_eq!(image.segment_bytes(segment).len(), segment.file.len());
        assert!(segment.file.len() as u64 <= segment.mem_size);
        end = segment.range().end;
    }
    assert!(end - image.physical_range().start <= LIMITS.max_output);
});
