//! Both ends of the connection between a domain's process and the store's: what a hostile guest's
//! ring brings through a relay and a link, while the store is replaced from its journal; and
//! arbitrary bytes at either end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::ring::Channel;
use store::{Link, Peer, Relay, Store};

fuzz_target!(|data: &[u8]| {
    let Some((&mode, mut rest)) = data.split_first() else { return };
    let mut store = Store::default();
    store.keep_journal();
    store.write("/local/domain/5/data", "").expect("a good path");
    store.set_permissions("/local/domain/5/data", "n5".parse().expect("a list")).expect("a node");
    if mode & 3 == 1 {
        let mut link = Link::new();
        while !rest.is_empty() {
            let Ok(taken) = link.input(&mut store, rest) else { break };
            rest = &rest[taken..];
            if link.waits_for_welcome() && link.welcome(&mut store).is_err() {
                break;
            }
            let count = link.output(&mut store).len();
            link.consume(count);
            if taken == 0 && count == 0 {
                break;
            }
        }
        link.close(&mut store);
        assert!(store.is_consistent());
        return;
    }
    let mut relay = Relay::new(Peer { domid: 5, incarnation: 1, gfn: 1, port: 1 });
    relay.connected();
    if mode & 3 == 2 {
        let _refused_or_not = relay.store_input(rest);
        let _too_long_or_not = relay.input(rest);
        return;
    }
    let mut disk = store.picture();
    let mut link = Link::new();
    // Each piece: one byte that says what happens, and how much of it.
    while let Some((&head, tail)) = rest.split_first() {
        let (piece, tail) = tail.split_at(usize::from(head & 0x3f).min(tail.len()));
        rest = tail;
        if head >> 6 == 3 {
            let last = store.take_journal();
            disk.extend_from_slice(&last[..last.len().min(piece.len())]);
            store = Store::restore(&disk).expect("a whole picture").store;
            disk = store.picture();
            link = Link::new();
            relay.connected();
        } else if relay.input(piece).is_err() {
            relay.reset();
        }
        for _ in 0..8 {
            let bytes = relay.store_output().to_vec();
            let taken = link.input(&mut store, &bytes).expect("a relay's frames");
            relay.store_consume(taken);
            if link.waits_for_welcome() {
                link.welcome(&mut store).expect("a domain");
            }
            disk.extend(store.take_journal());
            let bytes = link.output(&mut store).to_vec();
            link.consume(bytes.len());
            relay.store_input(&bytes).expect("a link's frames");
            let count = relay.output().len();
            relay.consume(count);
        }
    }
    assert!(store.is_consistent());
});
