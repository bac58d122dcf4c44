//! The content of a note segment.
#![no_main]

use kernel::{XenNotes, parse_notes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut notes = XenNotes::default();
    let _ = parse_notes(data, &mut notes);
    // Each note takes at least a header and its name.
    assert!(notes.count * 16 <= data.len());
    assert_eq!(notes.features.required & !notes.features.supported, 0);
});
