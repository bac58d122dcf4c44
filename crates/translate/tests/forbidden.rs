//! The search for instructions that load PKRU.

use proptest::prelude::*;
use translate::forbidden::{find, instruction_at, straddles};

/// The definition, byte by byte (SDM vol. 2, WRPKRU and XRSTOR).
fn is_one(b: &[u8]) -> bool {
    b[0] == 0x0f
        && (b[1] == 1 && b[2] == 0xef || b[1] == 0xae && b[2] & 0x38 == 0x28 && b[2] < 0xc0)
}

fn first(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(3).position(is_one).map(|i| from + i)
}

/// All of XRSTOR's ModRM bytes, WRPKRU, and their neighbours that are harmless.
#[test]
fn every_modrm() {
    for modrm in 0..=255u8 {
        assert_eq!(find(&[0x0f, 0xae, modrm], 0).is_some(), is_one(&[0x0f, 0xae, modrm]));
        assert_eq!(find(&[0x0f, 0x01, modrm], 0).is_some(), modrm == 0xef);
    }
}

/// At every offset of a page, those across the chunks of the search included.
#[test]
fn every_offset() {
    for sequence in [[0x0f, 0x01, 0xef], [0x0f, 0xae, 0x6c]] {
        for at in 0..=4093 {
            let mut page = vec![0x90u8; 4096];
            page[at..at + 3].copy_from_slice(&sequence);
            assert_eq!(find(&page, 0), Some(at));
            assert_eq!(find(&page, at), Some(at));
            assert_eq!(find(&page, at + 1), None);
        }
    }
}

#[test]
fn across_a_border() {
    for sequence in [[0x0f, 0x01, 0xef], [0x0f, 0xae, 0x28]] {
        for cut in 1..=2 {
            let (mut left, mut right) = (vec![0x90u8; 4096], vec![0x90u8; 4096]);
            left[4096 - cut..].copy_from_slice(&sequence[..cut]);
            right[..3 - cut].copy_from_slice(&sequence[cut..]);
            assert!(straddles(&left, &right));
            assert!(!straddles(&right, &left));
            assert_eq!(find(&left, 0), None);
        }
    }
}

proptest! {
    #[test]
    fn finds_what_the_definition_finds(
        mut bytes in proptest::collection::vec(any::<u8>(), 3..600),
        seeds in proptest::collection::vec((any::<prop::sample::Index>(), 0..3u8, any::<u8>()), 0..12),
        from in 0..4usize,
    ) {
        for (at, kind, modrm) in seeds {
            let at = at.index(bytes.len() - 2);
            let tail = [[0x01, 0xef], [0xae, modrm], [0x01, modrm]][usize::from(kind)];
            bytes[at] = 0x0f;
            bytes[at + 1..at + 3].copy_from_slice(&tail);
        }
        let from = from.min(bytes.len());
        prop_assert_eq!(find(&bytes, from), first(&bytes, from));
    }
}

/// In code as compilers make it the instruction that holds the bytes is found.
#[test]
fn the_instruction_around() {
    // push rbp; mov rbp, rsp; sub rsp, 0x20; mov [rbp-8], rdi; add eax, 5; jne; call; ret
    let filler: &[&[u8]] = &[
        &[0x55],
        &[0x48, 0x89, 0xe5],
        &[0x48, 0x83, 0xec, 0x20],
        &[0x48, 0x89, 0x7d, 0xf8],
        &[0x83, 0xc0, 0x05],
        &[0x75, 0x10],
        &[0xe8, 0x10, 0x20, 0x00, 0x00],
        &[0xc3],
    ];
    let holders: &[(&[u8], usize)] = &[
        (&[0x0f, 0xae, 0x6c, 0x24, 0x40], 0), // xrstor [rsp+0x40]
        (&[0x48, 0x0f, 0xae, 0x2f], 1),       // xrstor64 [rdi]
        (&[0x0f, 0x01, 0xef], 0),             // wrpkru
        (&[0xb8, 0x0f, 0xae, 0x28, 0x00], 1), // mov eax, 0x28ae0f
        (&[0x48, 0xb8, 1, 2, 3, 0x0f, 0x01, 0xef, 4, 5], 5), // mov rax, imm64
        (&[0x8b, 0x80, 0x0f, 0xae, 0x2c, 0x01], 2), // mov eax, [rax+disp32]
    ];
    for (holder, inside) in holders {
        for turn in 0..filler.len() {
            let mut page = Vec::new();
            let mut i = turn;
            while page.len() < 200 {
                page.extend_from_slice(filler[i % filler.len()]);
                i += 1;
            }
            let start = page.len();
            page.extend_from_slice(holder);
            page.resize(4096, 0x90);
            assert_eq!(find(&page, 0), Some(start + inside));
            assert_eq!(instruction_at(&page, start + inside), Some(start));
        }
    }
    // The instruction goes on in the next page.
    let mut page = vec![0x90; 4096];
    page[4092..].copy_from_slice(&[0xb8, 0x0f, 0x01, 0xef]);
    assert_eq!(find(&page, 0), Some(4093));
    assert_eq!(instruction_at(&page, 4093), None);
    // Too near to the page's start to be told.
    assert_eq!(instruction_at(&[0x0f; 4096], 10), None);
}
