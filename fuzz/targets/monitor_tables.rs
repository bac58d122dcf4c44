//! Page tables of any content: touches, flushes, changes of address space, translations and patched
//! sites in any order. A page is mapped only as the tables allow (an independent walker says what
//! they do), after a flush as they allow now; frames with translations are writable nowhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use space::harness;

fuzz_target!(init: harness::init(), |data: &[u8]| harness::run(data, harness::TABLES));
