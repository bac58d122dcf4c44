//! The store's process is killed again and again, at any moment, under load. No guest notices:
//! every change is made once, none is lost, and no event is.
//!
//! `XENOLITH_TEST_KILLS` says how often (default: 120).

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use control::xenstore::StoreClient;
use store::wire::MessageType::{Read, Rm, TransactionEnd, TransactionStart, Watch, Write};
use support::{Guest, Place, finds_xenstored};

/// A guest that counts in transactions, writes, and removes; gives the number of its commits.
fn work(mut guest: Guest, is_over: &AtomicBool) -> (u64, u64) {
    let (mut commits, mut rounds) = (0, 0);
    let own = format!("/shared/of{}", guest.domid);
    while !is_over.load(Ordering::SeqCst) || rounds < 20 {
        rounds += 1;
        let id = guest.ask(TransactionStart, 0, b"\0").unwrap();
        let id = String::from_utf8(id).unwrap().trim_end_matches('\0').parse().unwrap();
        let value = guest.ask(Read, id, b"/shared/counter\0").unwrap();
        let value: u64 = String::from_utf8(value).unwrap().parse().unwrap();
        let write = format!("/shared/counter\0{}", value + 1);
        guest.ask(Write, id, write.as_bytes()).unwrap();
        match guest.ask(TransactionEnd, id, b"T\0") {
            Ok(_) => commits += 1,
            Err(error) => assert_eq!(error, "EAGAIN"),
        }
        guest.text(Write, &format!("{own}\0{rounds}")).unwrap();
        assert_eq!(guest.text(Read, &format!("{own}\0")).unwrap(), rounds.to_string());
        let passing = format!("/shared/passing{}", rounds % 7);
        guest.text(Write, &format!("{passing}-{}\0x", guest.domid)).unwrap();
        guest.text(Rm, &format!("{passing}-{}\0", guest.domid)).unwrap();
    }
    (commits, rounds)
}

/// A guest that hears of what the host writes; each must come before the next is written.
fn listen(mut guest: Guest, place: &Place, is_over: &AtomicBool) -> u64 {
    guest.text(Watch, "/shared/told\0token\0").unwrap();
    let mut told = 0;
    while !is_over.load(Ordering::SeqCst) {
        told += 1;
        let path = format!("/shared/told/{}", told % 50);
        guest.events.clear();
        StoreClient::order(&place.dirs, |client| client.direct().write(&path, told.to_string()))
            .unwrap();
        guest.until(|guest| guest.events.iter().any(|(heard, _)| *heard == path));
        assert!(guest.events.iter().all(|(_, token)| token == "token"));
        assert_eq!(guest.text(Read, &format!("{path}\0")).unwrap(), told.to_string());
    }
    told
}

#[test]
fn guests_do_not_notice() {
    if !finds_xenstored("guests_do_not_notice") {
        return;
    }
    let kills = std::env::var("XENOLITH_TEST_KILLS").ok().and_then(|text| text.parse().ok());
    let kills: u32 = kills.unwrap_or(120);
    let place = Place::new();
    StoreClient::at_once(&place.dirs, |to| {
        to.write("/shared/counter", "0")?;
        to.write("/shared/told", "")?;
        ["/shared", "/shared/counter", "/shared/told"]
            .iter()
            .try_for_each(|path| to.permit(path, &["b0"]))
    })
    .unwrap();
    let registrations = ["one", "two", "three"].map(|name| place.register(name));
    let [one, two, three] = registrations.each_ref().map(|r| Guest::new(&place, r));
    let is_over = AtomicBool::new(false);
    let (commits, killed) = thread::scope(|scope| {
        let workers = [one, two].map(|guest| scope.spawn(|| work(guest, &is_over)));
        let listener = scope.spawn(|| listen(three, &place, &is_over));
        let mut killed = 0;
        let mut seed = 0x9e37_79b9_u64;
        let mut tries = 0;
        while killed < kills && !listener.is_finished() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(Duration::from_micros(seed >> 50 & 0x3fff));
            killed += u32::from(place.kill_server());
            tries += 1;
            assert!(tries < 100 * kills, "the store is not started again: {}", place.log());
        }
        is_over.store(true, Ordering::SeqCst);
        let done = workers.map(|worker| worker.join().unwrap());
        let told = listener.join().unwrap();
        println!("{killed} kills; {done:?} commits and rounds; {told} changes told");
        (done.iter().map(|(commits, _)| commits).sum::<u64>(), killed)
    });
    assert_eq!(killed, kills);
    let counter = StoreClient::order(&place.dirs, |c| c.direct().read("/shared/counter")).unwrap();
    assert_eq!(String::from_utf8(counter.unwrap()).unwrap(), commits.to_string());
    assert!(commits > 20, "only {commits} commits");
}
