//! Specifications of devices: what is accepted reads back as itself, what is not is pointed at, however
//! it is broken.

use config::{Channel, Disk, SpecError, Vif};
use proptest::prelude::*;
use std::fmt::{Debug, Display};

fn check<T: Debug + Display + PartialEq>(
    text: &str,
    parse: fn(&str) -> Result<T, SpecError>,
) -> Result<(), TestCaseError> {
    match parse(text) {
        Ok(device) => {
            let shown = device.to_string();
            let again = parse(&shown);
            prop_assert_eq!(again.as_ref(), Ok(&device), "{:?} as {:?}", text, shown);
        }
        Err(error) => {
            prop_assert!(text.get(error.start..error.end).is_some(), "{:?}: {:?}", text, error);
        }
    }
    Ok(())
}

/// Pieces of specifications, in any order, and other characters.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "phy:",
        "file:",
        "tap:",
        "aio:",
        "qcow2:",
        "/srv/a b",
        "xvda",
        "sda1",
        "hdc",
        ":cdrom",
        "0x801",
        "w!",
        "r",
        "rw",
        "format=",
        "vdev=",
        "target=",
        "access=",
        "backing=",
        "raw",
        "empty",
        "discard",
        "devtype=",
        "backendtype=",
        "script=",
        "mac=",
        "00:16:3e:01:02:03",
        "bridge=",
        "xenbr0",
        "ip=",
        "10.0.0.2",
        "/24",
        "::1",
        "rate=",
        "1MB/s",
        "@20ms",
        "ports=",
        "8080:80",
        "/udp",
        "mtu=",
        "9000",
        "antispoof=",
        "yes",
        "0",
        "untrusted",
        "vifname=",
        "type=",
        "vif",
        "ioemu",
        "devid=",
        "vlan=",
        "name=",
        "connection=",
        "socket",
        "pty",
        "path=",
        "backend=",
    ];
    let word = proptest::sample::select(words.to_vec()).prop_map(str::to_owned);
    let piece = prop_oneof![6 => word, 4 => "[,=: ]{1}", 1 => "\\PC{0,3}", 1 => "[\\x00-\\x7f]"];
    proptest::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn disks_read_back(text in pieces()) {
        check(&text, Disk::parse)?;
    }

    #[test]
    fn channels_read_back(text in pieces()) {
        check(&text, Channel::parse)?;
    }

    #[test]
    fn vifs_read_back(text in pieces()) {
        check(&text, Vif::parse)?;
    }
}
