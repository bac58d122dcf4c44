//! An lzop file, with its magic number given and its checksums made right, so that the fuzzer
//! reaches the decoder behind them.
#![no_main]

use kernel::{Compression, Limits, decompress};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_output: 2 << 20 };
/// Magic number and header of a file without block checksums and name.
const HEADER: [u8; 38] = [
    0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a, // magic number
    0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, // versions
    3, 9, // method, level
    0, 0, 0, 0, // flags: no checksums
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // mode, time
    0, // length of the name
    0x1e, 0xe1, 0x01, 0x66, // Adler-32 of the fields
];

fuzz_target!(|data: &[u8]| {
    // One block: two bytes for its decompressed length, the rest its data.
    let Some((length, block)) = data.split_first_chunk() else { return };
    let length = u32::from(u16::from_le_bytes(*length)).max(block.len() as u32 + 1);
    let mut file = HEADER.to_vec();
    file.extend(length.to_be_bytes());
    file.extend((block.len() as u32).to_be_bytes());
    file.extend(block);
    file.extend([0; 4]);
    let result = decompress(Compression::Lzo, &file, None, &LIMITS);
    if let Err(error) = &result {
        assert!(!error.to_string().contains("header"), "{error}");
    }
    // And as a whole file.
    let _ = decompress(Compression::Lzo, data, None, &LIMITS);
});
