//! Quotas of unprivileged domains, and bounds on what a hostile client can make the store keep.

mod support;

use store::wire::MessageType::*;
use store::{Permissions, Quota, Store};
use support::{Client, Random, encode};

fn small() -> Quota {
    Quota {
        nodes: 10,
        value_bytes: 16,
        bytes: 1000,
        permissions: 2,
        watches: 3,
        transactions: 2,
        transaction_nodes: 8,
        outstanding: 4,
        events: 5,
    }
}

fn guest() -> (Store, Client, Client) {
    let mut store = Store::new(small());
    store.mkdir("/local/domain/5").unwrap();
    store.set_permissions("/local/domain/5", Permissions::owned_by(5)).unwrap();
    let host = Client::open(&mut store, 0);
    let five = Client::open(&mut store, 5);
    (store, host, five)
}

fn error(name: &str) -> Result<String, String> {
    Err(name.to_owned())
}

#[test]
fn nodes_and_their_size() {
    let (mut s, mut host, mut five) = guest();
    for i in 0..9 {
        assert!(five.ask(&mut s, Mkdir, &format!("n{i}\0")).is_ok());
    }
    assert_eq!(five.ask(&mut s, Mkdir, "n9\0"), error("ENOSPC"));
    assert!(five.ask(&mut s, Rm, "n0\0").is_ok());
    assert_eq!(five.ask(&mut s, Write, "a/b\0v"), error("ENOSPC"), "two nodes for one place");
    assert!(!s.exists("/local/domain/5/a"), "all or nothing");
    assert!(five.ask(&mut s, Write, "a\0 sixteen bytes! ").is_ok());
    assert_eq!(five.ask(&mut s, Write, "a\0 seventeen bytes!"), error("ENOSPC"));
    assert!(five.ask(&mut s, SetPerms, "a\0n5\0r1\0").is_ok());
    assert_eq!(five.ask(&mut s, SetPerms, "a\0n5\0r1\0r2\0"), error("ENOSPC"));
    assert!(host.ask(&mut s, Write, "/local/domain/5/host/is/not/limited\0by the quota").is_ok());
    s.set_quota(5, Some(Quota { nodes: 100, ..small() }));
    assert!(five.ask(&mut s, Mkdir, "more\0").is_ok());
    s.set_quota(5, None);
    assert_eq!(five.ask(&mut s, Mkdir, "even-more\0"), error("ENOSPC"));
    assert!(s.is_consistent());
}

#[test]
fn watches_and_transactions() {
    let (mut s, _, mut five) = guest();
    let mut second = Client::open(&mut s, 5);
    for token in ["1", "2"] {
        assert!(five.ask(&mut s, Watch, &format!("a\0{token}\0")).is_ok());
    }
    assert!(second.ask(&mut s, Watch, "a\x003\0").is_ok());
    assert_eq!(five.ask(&mut s, Watch, "a\x004\0"), error("E2BIG"), "counted per domain");
    assert!(second.ask(&mut s, Unwatch, "a\x003\0").is_ok());
    assert!(five.ask(&mut s, Watch, "a\x004\0").is_ok());

    let t = five.start(&mut s);
    second.start(&mut s);
    assert_eq!(five.ask(&mut s, TransactionStart, "\0"), error("ENOSPC"));
    five.end(&mut s, t, "F").unwrap();
    let t = five.start(&mut s);
    let results: Vec<_> = (0..100).map(|_| five.call_in(&mut s, Write, t, b"same\0v")).collect();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 8, "changes are counted");
    five.end(&mut s, t, "T").unwrap();
    let t = five.start(&mut s);
    let reads = (0..100).map(|i| five.call_in(&mut s, Read, t, format!("x{i}\0").as_bytes()));
    assert_eq!(reads.filter(|r| *r == Err("ENOSPC".into())).count(), 93, "reads are counted");
}

#[test]
fn a_commit_beyond_the_quota_changes_nothing() {
    let (mut s, _, mut five) = guest();
    let mut other = Client::open(&mut s, 5);
    let t = five.start(&mut s);
    for name in ["a", "b", "c"] {
        five.call_in(&mut s, Mkdir, t, format!("dir/{name}\0").as_bytes()).unwrap();
    }
    for i in 0..7 {
        other.ask(&mut s, Mkdir, &format!("n{i}\0")).unwrap();
    }
    assert_eq!(five.end(&mut s, t, "T"), Err("ENOSPC".into()));
    assert!(!s.exists("/local/domain/5/dir"));
    assert!(s.is_consistent());
}

#[test]
fn waiting_events_are_bounded_and_none_is_lost_silently() {
    let (mut s, _, mut five) = guest();
    assert!(five.ask(&mut s, Watch, "w\0t\0").is_ok());
    five.take_events(&mut s);
    for i in 0..1000 {
        s.write(&format!("/local/domain/5/w/{i}"), "").unwrap();
    }
    let paths = five.event_paths(&mut s);
    assert_eq!(paths, ["w/0", "w/1", "w/2", "w/3", "w/4", "w"]);
    s.write("/local/domain/5/w/1", "").unwrap();
    assert_eq!(five.event_paths(&mut s), ["w/1"], "and it goes on");
}

#[test]
fn events_that_fit_no_message_report_the_watched_path() {
    let mut s = Store::default();
    let mut host = Client::open(&mut s, 0);
    let token = "t".repeat(3000);
    host.ask(&mut s, Watch, &format!("/w\0{token}\0")).unwrap();
    host.take_events(&mut s);
    s.write(&format!("/w/{}", "x".repeat(2000)), "").unwrap();
    assert_eq!(host.take_events(&mut s), [("/w".to_owned(), token)]);
}

#[test]
fn the_deepest_paths_are_harmless() {
    let mut s = Store::new(Quota { nodes: 1_000_000, ..Quota::default() });
    s.set_permissions("/", "b0".parse().unwrap()).unwrap();
    let mut five = Client::open(&mut s, 5);
    let deepest = "/a".repeat(1536);
    let request = format!("{deepest}\0");
    // A small stack, as a daemon's thread may have.
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            five.ask(&mut s, Mkdir, &request).unwrap();
            five.ask(&mut s, Watch, &format!("{}\0t\0", "/a".repeat(1000))).unwrap();
            let t = five.start(&mut s);
            five.call_in(&mut s, Write, t, request.as_bytes()).unwrap();
            assert_eq!(s.dump("/").unwrap().len(), 1537);
            assert!(s.is_consistent());
            five.ask(&mut s, Rm, "/a\0").unwrap();
            assert_eq!(five.event_paths(&mut s).last().unwrap(), &"/a".repeat(1000));
            assert_eq!(five.end(&mut s, t, "T"), Err("EAGAIN".into()));
            assert_eq!(s.nodes_owned_by(5), 0);
            drop(s);
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn random_requests_never_break_the_store() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut s, mut host, mut five) = guest();
    let words =
        ["a", "/", "b", "\0", "a\0", "/local/domain/5/", "T\0", "1\0", "n5\0", "@", "-", "é"];
    for round in 0..60_000 {
        let mut payload = Vec::new();
        for _ in 0..random.below(6) {
            if random.below(8) == 0 {
                payload.extend((0..random.below(40)).map(|_| random.below(256) as u8));
            } else {
                let word = words[random.below(words.len() as u64) as usize];
                payload.extend_from_slice(word.as_bytes());
            }
        }
        let kind = random.below(26) as u32;
        let transaction = random.below(4).saturating_sub(1) as u32;
        // What domain 0 does is not limited, even where it creates nodes that domain 5 owns.
        let is_guest = random.below(4) > 0;
        let client = if is_guest { &mut five } else { &mut host };
        let before = s.nodes_owned_by(5);
        client.call_number(&mut s, kind, transaction, &payload).ok();
        client.events.clear();
        let after = s.nodes_owned_by(5);
        assert!(!is_guest || after <= before.max(small().nodes), "{before} to {after} nodes");
        if round % 1000 == 0 {
            assert!(s.is_consistent());
        }
    }
}

#[test]
fn random_bytes_end_in_replies_or_a_closed_connection() {
    let mut random = Random(42);
    let mut s = Store::default();
    for _ in 0..2000 {
        let mut client = Client::open(&mut s, 5);
        for _ in 0..20 {
            let mut bytes: Vec<_> =
                (0..random.below(64)).map(|_| random.below(256) as u8).collect();
            if random.below(2) == 0 {
                bytes = encode(random.below(30) as u32, 0, 0, &bytes);
            }
            if client.connection.input(&mut s, &bytes).is_err() {
                break;
            }
            client.take_output(&mut s);
        }
        client.connection.close(&mut s);
    }
    assert!(s.is_consistent());
}
