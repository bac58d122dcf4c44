//! Hypercalls with any arguments, on a guest's memory of any content: the monitor's own handlers in
//! this process (`fuzz/monitor`). Nothing panics, faults or leaves the guest's frames; answers are in
//! range; the host is asked for nothing that the jail would refuse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use space::harness;

fuzz_target!(init: harness::init(), |data: &[u8]| harness::run(data, harness::HYPERCALLS));
