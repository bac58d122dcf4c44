//! Specifications of disks, network interfaces and channels, as they stand in a configuration's lists and in the
//! words of `block-attach` and `network-attach`.
#![no_main]

use std::fmt::{Debug, Display};

use config::{Channel, Disk, SpecError, Vif};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match kind % 3 {
        0 => check(&text, Disk::parse),
        1 => check(&text, Vif::parse),
        _ => check(&text, Channel::parse),
    }
});

/// What is accepted reads back as itself; what is not is pointed at.
fn check<T: Debug + Display + PartialEq>(text: &str, parse: fn(&str) -> Result<T, SpecError>) {
    match parse(text) {
        Ok(device) => {
            let shown = device.to_string();
            let again = parse(&shown);
            assert_eq!(again.as_ref(), Ok(&device), "{text:?} is shown as {shown:?}");
        }
        Err(error) => {
            assert!(text.get(error.start..error.end).is_some(), "{text:?}: {error:?}");
            assert!(!error.message.is_empty());
        }
    }
}
