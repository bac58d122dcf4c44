//! A journal as a file that anybody may have damaged: behind a good picture, bytes with good
//! checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::Store;

fuzz_target!(|data: &[u8]| {
    let mut store = Store::default();
    store.keep_journal();
    store.write("/a/b", "value").expect("a good path");
    let mut disk = store.picture();
    // Records of the fuzzer's choice: one byte says how long the next is.
    let mut rest = data;
    while let Some((&length, tail)) = rest.split_first() {
        let (body, tail) = tail.split_at(usize::from(length).min(tail.len()));
        rest = tail;
        disk.extend_from_slice(&(body.len() as u32).to_le_bytes());
        disk.extend_from_slice(&crc(body).to_le_bytes());
        disk.extend_from_slice(body);
    }
    for journal in [&disk[..], data] {
        if let Some(mut restored) = Store::restore(journal) {
            assert!(restored.store.is_consistent());
            let picture = restored.store.picture();
            let again = Store::restore(&picture).expect("a whole picture");
            assert_eq!(again.store.dump("/"), restored.store.dump("/"));
        }
    }
});

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}
