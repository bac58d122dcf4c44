//! Tests of what a guest shares with its backends.

use super::{Access, GrantError};
pub use crate::testing::{FRAMES, TestGuest};
use boundary::Backend;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// A monitor that takes note of nothing (its domain stands still) costs its patience once, not for
/// each frame; one that answers again is waited for again.
#[test]
fn frames_share_the_patience_with_a_monitor() {
    let test = TestGuest::new(Backend::Block);
    let written = || &test.guest.memory().channels().written;
    // No flags of frames: all count as watched.
    let at = std::mem::offset_of!(boundary::DomainPage, frame_flags) as u64;
    rustix::io::pwrite(&test.fds().arena, &[0; 8], at).unwrap();
    let start = Instant::now();
    for frame in 0..200 {
        test.guest.memory().wrote([frame], || {});
    }
    let took = start.elapsed();
    assert!((1900..4000).contains(&took.as_millis()), "{took:?}");
    // It has looked at what there was, and looks from now on.
    written().iter().for_each(|slot| slot.store(0, Ordering::Release));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(30));
                written().iter().for_each(|slot| slot.store(0, Ordering::Release));
            }
        });
        for frame in 0..20 {
            test.guest.memory().wrote([frame], || {});
            assert!(written().iter().all(|slot| slot.load(Ordering::Acquire) == 0), "{frame}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
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

/// A guest that runs has a while to look by itself; one that looked is left alone.
#[test]
fn a_running_guest_is_interrupted_late_or_not_at_all() {
    let test = TestGuest::new(Backend::Block);
    test.be(boundary::vcpu_state::RUNNING);
    let port = test.guest.bind(9).unwrap();
    let long = Duration::from_secs(60);
    port.notify();
    test.guest.pay(long);
    assert!(!test.is_kicked());
    test.guest.pay(Duration::ZERO);
    assert!(test.is_kicked());
    test.guest.pay(Duration::ZERO);
    assert!(!test.is_kicked(), "once is enough");
    assert_eq!(test.raised(), [9]);

    port.notify();
    assert_eq!(test.raised(), [9]);
    test.guest.pay(Duration::ZERO);
    assert!(!test.is_kicked(), "it has looked");

    port.notify();
    std::thread::sleep(Duration::from_millis(2));
    test.guest.pay(Duration::from_millis(1));
    assert!(test.is_kicked(), "its time is over");
    assert_eq!(test.raised(), [9]);

    test.be(boundary::vcpu_state::BLOCKED);
    port.notify();
    test.guest.pay(Duration::ZERO);
    assert!(!test.is_kicked(), "one that sleeps is woken instead");
}

/// The monitor is waited for, so it must be told although an interruption is owed.
#[test]
fn frames_do_not_wait_for_what_is_owed() {
    let test = TestGuest::new(Backend::Block);
    let at = std::mem::offset_of!(boundary::DomainPage, frame_flags) as u64;
    rustix::io::pwrite(&test.fds().arena, &[0; 8], at).unwrap();
    test.be(boundary::vcpu_state::RUNNING);
    test.guest.bind(9).unwrap().notify();
    assert!(!test.is_kicked());
    std::thread::scope(|scope| {
        scope.spawn(|| test.guest.wrote([3]));
        let end = Instant::now() + Duration::from_secs(1);
        while !test.is_kicked() {
            assert!(Instant::now() < end, "nobody tells the monitor");
            std::thread::sleep(Duration::from_millis(1));
        }
        let written = &test.guest.memory().channels().written;
        written.iter().for_each(|slot| slot.store(0, Ordering::Release));
    });
}

/// What is written to by its address is not executed directly meanwhile: the monitor has forgotten it
/// before the request begins, and sees for how long it lasts.
#[test]
fn a_frame_is_held_while_it_is_written() {
    let test = TestGuest::new(Backend::Block);
    test.grant(8, 3, false);
    let held = || test.guest.memory().holds_of(3).unwrap().load(Ordering::SeqCst);
    drop(test.guest.map(8, Access::Read).unwrap());
    let reader = test.guest.map(8, Access::Read).unwrap();
    assert_eq!(held(), 0, "reading changes nothing");
    drop(reader);
    let first = test.guest.map(8, Access::Write).unwrap();
    let second = test.guest.map(8, Access::Write).unwrap();
    assert_eq!(held(), 2);
    drop(first);
    assert_eq!(held(), 1);

    // A program executes it: the monitor comes first.
    let flags = boundary::DOMAIN_PAGE_SIZE + 3;
    rustix::io::pwrite(&test.fds().arena, &[boundary::frame_flag::EXECUTED], flags).unwrap();
    let written = &test.guest.memory().channels().written;
    let is_told = || written.iter().any(|slot| slot.load(Ordering::Acquire) == 4);
    std::thread::scope(|scope| {
        let third = scope.spawn(|| test.guest.map(8, Access::Write).unwrap());
        let end = Instant::now() + Duration::from_secs(1);
        while !is_told() {
            assert!(Instant::now() < end, "nobody tells the monitor");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!third.is_finished(), "it does not wait for the monitor");
        assert_eq!(held(), 2, "a program could come in between");
        rustix::io::pwrite(&test.fds().arena, &[0], flags).unwrap();
        written.iter().for_each(|slot| slot.store(0, Ordering::Release));
        drop(third.join().unwrap());
    });
    drop(second);
    assert_eq!(held(), 0);
}

#[test]
fn more_writers_than_can_be_counted_are_refused() {
    let test = TestGuest::new(Backend::Block);
    test.grant(8, 3, false);
    let writers: Vec<_> = (0..255).map(|_| test.guest.map(8, Access::Write).unwrap()).collect();
    let busy = GrantError::Busy { reference: 8, frame: 3 };
    assert_eq!(test.guest.map(8, Access::Write).unwrap_err(), busy);
    drop(writers);
    assert_eq!(test.guest.memory().holds_of(3).unwrap().load(Ordering::SeqCst), 0);
    assert!(test.revoke(8), "a refused grant is left in use");
}

#[test]
fn a_request_gets_all_its_grants_or_none() {
    let test = TestGuest::new(Backend::Block);
    test.grant(8, 3, false);
    test.grant(9, 4, false);
    let map = |references: &[u32]| test.guest.map_all(references.iter().copied(), Access::Write);
    let held = |frame| test.guest.memory().holds_of(frame).unwrap().load(Ordering::SeqCst);
    let grants = map(&[8, 9, 8]).unwrap();
    assert_eq!([held(3), held(4)], [2, 1]);
    assert!(!test.revoke(8) && !test.revoke(9));
    assert!(grants.at(2, 0, 4096).is_some() && grants.at(0, 0, 4096) == grants.at(2, 0, 4096));
    assert!(grants.at(0, 1, 4096).is_none() && grants.at(3, 0, 1).is_none());
    drop(grants);

    let writers: Vec<_> = (0..255).map(|_| test.guest.map(9, Access::Write).unwrap()).collect();
    let busy = GrantError::Busy { reference: 9, frame: 4 };
    assert_eq!(map(&[8, 9]).unwrap_err(), busy);
    assert_eq!([held(3), held(4)], [0, 255], "what was held before is given back");
    drop(writers);
    assert_eq!(map(&[8, 9, 10]).unwrap_err(), GrantError::NotGranted(10));
    assert_eq!(map(&[8, 9, 16384]).unwrap_err(), GrantError::Range(16384));
    assert_eq!([held(3), held(4)], [0, 0]);
    assert!(test.revoke(8) && test.revoke(9), "a refused request leaves grants in use");
}
