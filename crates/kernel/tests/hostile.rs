//! Damaged and cut files: an error or a kernel, never a panic, never long.

mod common;

use std::time::{Duration, Instant};

use common::{FIXTURES, Spec, TINY, bzimage, payload};
use kernel::{KernelImage, Limits};
use proptest::prelude::*;

/// Small, so that a file that grows is seen.
const LIMITS: Limits = Limits { max_output: 4 << 20 };
/// Far above what any case takes; a loop without progress takes longer.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Loads `file` and checks what holds for every result.
fn load(file: &[u8]) {
    let start = Instant::now();
    if let Ok(image) = KernelImage::load(file, &LIMITS) {
        assert!(image.elf.len() as u64 <= LIMITS.max_output);
        assert!(image.virtual_range().contains(&image.entry));
        let mut end = 0;
        for segment in &image.segments {
            assert!(segment.paddr >= end && segment.paddr >= image.paddr_offset);
            assert_eq!(image.segment_bytes(segment).len(), segment.file.len());
            assert!(segment.file.len() as u64 <= segment.mem_size);
            end = segment.range().end;
        }
    }
    assert!(start.elapsed() < MAX_TIME, "took {:?}", start.elapsed());
}

/// All small test files: plain, and compressed alone and in a bzImage.
fn files() -> Vec<Vec<u8>> {
    let plain = Spec::tiny().build();
    let length = plain.len() as u32;
    let mut files = vec![plain];
    for (_, packed) in TINY {
        files.push(packed.to_vec());
        files.push(bzimage(payload(packed), length));
    }
    files
}

#[test]
fn file_cut_at_any_byte() {
    for file in files() {
        for end in 0..file.len() {
            let cut = &file[..end];
            load(cut);
        }
    }
}

#[test]
fn cut_payload_is_an_error() {
    let plain = Spec::tiny().build();
    for (name, packed) in TINY {
        let packed = payload(packed);
        for end in 0..packed.len() {
            let file = bzimage(&packed[..end], plain.len() as u32);
            match KernelImage::load(&file, &LIMITS) {
                Err(_) => {}
                // The end mark of an lzma stream takes some bytes whose value does not matter.
                Ok(image) => {
                    assert!(name == "lzma" && packed.len() - end < 6, "{name} cut at {end}");
                    assert!(image.elf == plain, "{name} cut after {end}");
                }
            }
        }
    }
}

#[test]
fn every_byte_damaged() {
    for file in files() {
        let mut damaged = file.clone();
        for at in 0..file.len() {
            for change in [0x01, 0xff] {
                damaged[at] = file[at] ^ change;
                load(&damaged);
            }
            damaged[at] = file[at];
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn bytes_after_a_magic(kind in 0..7usize, tail in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut file = TINY[kind].1[..12].to_vec();
        file.extend(&tail);
        load(&file);
        load(&bzimage(&file, 5000));
    }

    #[test]
    fn several_changes_to_a_large_file(
        kind in 0..7usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = FIXTURES[kind].1.to_vec();
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        load(&file);
    }

    #[test]
    fn headers_of_random_words(
        changes in prop::collection::vec((0..90usize, prop_oneof![any::<u64>(), 0..0x40_0000u64]), 1..6),
    ) {
        // ELF header, program headers and notes of the plain kernel, in 8-byte words.
        let mut file = Spec::tiny().build();
        for (word, value) in changes {
            file[4 + word * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        load(&file);
    }
}
