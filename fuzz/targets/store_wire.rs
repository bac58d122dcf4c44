//! Bytes of two clients of a store, a guest and domain 0, in pieces that the input chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::{Connection, Quota, Store};

const LIMITS: Quota = Quota {
    nodes: 20,
    value_bytes: 64,
    bytes: 400,
    permissions: 3,
    watches: 4,
    transactions: 2,
    transaction_nodes: 16,
    outstanding: 4,
    events: 8,
};

fuzz_target!(|data: &[u8]| {
    let mut store = Store::new(LIMITS);
    store.set_permissions("/", "b0".parse().expect("a list")).expect("the root");
    let mut clients = [5, 0].map(|domid| Connection::open(&mut store, domid));
    // Each piece: one byte that names the client in its top bit and the length in the others.
    let mut rest = data;
    while let Some((&head, tail)) = rest.split_first() {
        let (piece, tail) = tail.split_at(usize::from(head & 0x7f).min(tail.len()));
        rest = tail;
        let [guest, host] = &mut clients;
        let client = if head < 0x80 { guest } else { host };
        let before = store.nodes_owned_by(5);
        let result = client.input(&mut store, piece);
        assert!(result.is_err() || result.is_ok_and(|taken| taken <= piece.len()));
        if head < 0x80 {
            assert!(store.nodes_owned_by(5) <= before.max(LIMITS.nodes));
        }
        loop {
            let count = client.output(&mut store).len();
            if count == 0 {
                break;
            }
            assert!(count <= 16 + 4096);
            client.consume(count);
        }
    }
    assert!(store.is_consistent());
    for client in clients {
        client.close(&mut store);
    }
});
