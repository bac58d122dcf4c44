//! Tests of what a guest shares with its backends.

use super::{Access, GrantError};
pub use crate::testing::{FRAMES, TestGuest};
use boundary::Backend;
use std::sync::atomic::Ordering;

#[test]
fn grants_are_checked_and_counted() {
    let test = TestGuest::new(Backend::Block);
    test.grant(8, 5, false);
    test.grant(9, 6, true);
    test.grant(10, FRAMES as u32, false);
    let map = |reference, access| test.guest.map(reference, access);
    let first = map(8, Access::Write).unwrap();
    let second = map(8, Access::Read).unwrap();
    assert!(!test.revoke(8));
    drop(first);
    assert!(!test.revoke(8), "the reader still uses it");
    drop(second);
    assert!(test.revoke(8));
    assert_eq!(map(8, Access::Read).unwrap_err(), GrantError::NotGranted(8));
    assert_eq!(map(9, Access::Write).unwrap_err(), GrantError::ReadOnly(9));
    assert!(map(9, Access::Read).unwrap().write(0, b"x").is_none());
    let frame = GrantError::Frame { reference: 10, frame: FRAMES };
    assert_eq!(map(10, Access::Read).unwrap_err(), frame);
    assert!(test.revoke(10), "a refused grant is not left in use");
    assert_eq!(map(16384, Access::Read).unwrap_err(), GrantError::Range(16384));
}

#[test]
fn ports_are_bound_and_raised() {
    let test = TestGuest::new(Backend::Net);
    assert!(test.guest.bind(0).is_none());
    assert!(test.guest.bind(4096).is_none());
    let port = test.guest.bind(77).unwrap();
    let bound =
        || test.guest.memory().channels().bound[Backend::Net as usize][1].load(Ordering::Relaxed);
    assert_eq!(bound(), 1 << 13);
    port.notify();
    port.notify();
    assert_eq!(test.raised(), [77]);
    drop(port);
    assert_eq!(bound(), 0);
}
