//! Time per operation. Run with `cargo test --release -p store --test speed -- --ignored --nocapture`.

mod support;

use std::time::{Duration, Instant};

use store::wire::MessageType;
use store::{Store, wire::Header};
use support::Client;

const ROUNDS: u32 = 200_000;

fn populated() -> Store {
    let mut store = Store::default();
    for domid in 1..=100 {
        for node in 0..50 {
            store.write(&format!("/local/domain/{domid}/device/vif/0/n{node}"), "v").unwrap();
        }
        store.watch(&format!("/local/domain/{domid}/device"), "w").unwrap();
    }
    while store.next_event().is_some() {}
    store
}

fn measure(name: &str, mut operation: impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..ROUNDS).for_each(|_| operation());
    let each = start.elapsed() / ROUNDS;
    println!("{name}: {each:?}");
    each
}

#[test]
#[ignore = "measures time"]
fn operations_take_microseconds() {
    let mut store = populated();
    let path = "/local/domain/50/device/vif/0/n7";
    let limit = Duration::from_micros(5);
    assert!(measure("host read", || assert_eq!(store.read(path).unwrap(), b"v")) < limit);
    let write = measure("host write with one watch", || {
        store.write(path, "v").unwrap();
        store.next_event().unwrap();
    });
    assert!(write < limit);

    let mut client = Client::open(&mut store, 0);
    for (name, kind, payload) in [
        ("wire read", MessageType::Read, format!("{path}\0")),
        ("wire write", MessageType::Write, format!("{path}\0v")),
    ] {
        let header = Header { kind: kind as u32, request: 1, transaction: 0, length: 0 };
        let request = header.encode(payload.as_bytes());
        let each = measure(name, || {
            client.connection.input(&mut store, &request).unwrap();
            let count = client.connection.output(&mut store).len();
            client.connection.consume(count);
        });
        assert!(each < limit);
    }
    let each = measure("transaction of start, read, write, end", || {
        let t = client.start(&mut store);
        client.call_in(&mut store, MessageType::Read, t, format!("{path}\0").as_bytes()).unwrap();
        client.call_in(&mut store, MessageType::Write, t, format!("{path}\0v").as_bytes()).unwrap();
        client.end(&mut store, t, "T").unwrap();
    });
    assert!(each < 10 * limit);
}
