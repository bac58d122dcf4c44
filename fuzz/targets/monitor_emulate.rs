//! Instructions that the monitor emulates, exceptions and events that it gives to the guest's kernel,
//! and what the program in a runner may report, with any registers and memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use space::harness;

fuzz_target!(init: harness::init(), |data: &[u8]| harness::run(data, harness::EMULATE));
