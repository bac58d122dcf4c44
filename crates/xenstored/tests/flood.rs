//! A domain that asks without end takes at most its share of the store's time from the others.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use control::xenstore::StoreClient;
use store::wire::MessageType::{Read, SetPerms, TransactionEnd, TransactionStart, Watch, Write};
use support::{Guest, Place, finds_xenstored};

/// CPU time that a process has used, in seconds (proc(5): in ticks of 1/100 s).
fn cpu_seconds(pid: rustix::process::Pid) -> f64 {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Asks for all kinds of things, dear ones too, as long as it may.
fn flood(guest: &mut Guest, is_over: &AtomicBool, done: &AtomicU64) {
    let mut round = 0_u64;
    while !is_over.load(Ordering::SeqCst) {
        round += 1;
        let result = match round % 6 {
            0 => guest.text(Write, &format!("data/n{}\0v", round % 900)),
            1 => guest.text(Watch, &format!("data/w{}\0t\0", round % 200)),
            2 => guest.text(Read, "data\0"),
            3 => guest.text(SetPerms, &format!("data\0n{}\0", guest.domid)),
            4 => guest.text(Write, &format!("data\0{}", "x".repeat(2000))),
            _ => guest.text(TransactionStart, "\0").and_then(|id| {
                let id = id.trim_end_matches('\0').parse().unwrap();
                guest.ask(Write, id, b"data/t\0v").ok();
                guest.ask(TransactionEnd, id, b"T\0").map(|_| String::new())
            }),
        };
        drop(result);
        guest.events.clear();
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Requests of another domain that are served in `time`.
fn serve_other(other: &mut Guest, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut served = 0;
    while Instant::now() < end {
        assert_eq!(other.text(Read, "data\0").unwrap(), "v");
        served += 1;
        // As much as it may without being held back itself.
        thread::sleep(Duration::from_millis(1));
    }
    served
}

#[test]
fn others_are_at_most_a_tenth_slower() {
    if !finds_xenstored("others_are_at_most_a_tenth_slower") {
        return;
    }
    let place = Place::new();
    let registrations = ["flood", "other"].map(|name| place.register(name));
    let [mut hostile, mut other] = registrations.each_ref().map(|r| Guest::new(&place, r));
    StoreClient::at_once(&place.dirs, |to| {
        [hostile.domid, other.domid].iter().try_for_each(|domid| {
            let path = format!("/local/domain/{domid}/data");
            to.write(&path, "v")?;
            to.permit(&path, &[&format!("n{domid}")])
        })
    })
    .unwrap();
    let server = place.server().unwrap();
    let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut host = StoreClient::connect(&place.dirs).unwrap();
    thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&mut hostile, &is_over, &asked));
        // It uses up what it may use at once.
        thread::sleep(Duration::from_millis(500));

        // Alone it is held to its share: there is a tenth of a CPU at most that others miss.
        let (start, before, first) =
            (Instant::now(), cpu_seconds(server), asked.load(Ordering::SeqCst));
        thread::sleep(Duration::from_secs(4));
        let share = (cpu_seconds(server) - before) / start.elapsed().as_secs_f64();
        let rate = (asked.load(Ordering::SeqCst) - first) as f64 / start.elapsed().as_secs_f64();
        println!("the flood takes {:.1} % of a CPU, {rate:.0} requests a second", 100.0 * share);
        assert!(share <= 0.10, "the flood takes {share:.3} of a CPU");
        assert!(rate > 50.0, "the flood is served too");

        // For each request of another domain, it is served a few at most.
        let first = asked.load(Ordering::SeqCst);
        let served = serve_other(&mut other, Duration::from_secs(2));
        let meanwhile = asked.load(Ordering::SeqCst) - first;
        println!("{served} requests of another domain were served, and {meanwhile} of the flood");
        assert!(served > 0);

        // The host is not held back.
        let start = Instant::now();
        for _ in 0..500 {
            host.direct().read("/tool").unwrap();
        }
        println!("a request of the host takes {:?} during the flood", start.elapsed() / 500);
        is_over.store(true, Ordering::SeqCst);
        flooding.join().unwrap();
    });
    let usage = host.call(store::wire::MessageType::Control, 0, b"check\0").unwrap();
    assert_eq!(usage.unwrap(), b"OK\0");
}

/// Time of round trips, and how much slower they are during a flood.
/// Run with `cargo test --release -p xenstored --test flood -- --ignored --nocapture`.
#[test]
#[ignore = "measures time"]
fn speed() {
    if !finds_xenstored("speed") {
        return;
    }
    let place = Place::new();
    let registrations = ["flood", "other"].map(|name| place.register(name));
    let [mut hostile, mut other] = registrations.each_ref().map(|r| Guest::new(&place, r));
    StoreClient::at_once(&place.dirs, |to| {
        [hostile.domid, other.domid].iter().try_for_each(|domid| {
            let path = format!("/local/domain/{domid}/data");
            to.write(&path, "v")?;
            to.permit(&path, &[&format!("n{domid}")])
        })
    })
    .unwrap();
    let mut host = StoreClient::connect(&place.dirs).unwrap();
    let time = |host: &mut StoreClient, name: &str, write: bool| {
        let start = Instant::now();
        for _ in 0..20_000 {
            if write {
                host.direct().write("/tool/speed", "v").unwrap();
            } else {
                host.direct().read("/tool/xenstored").unwrap();
            }
        }
        let each = start.elapsed() / 20_000;
        println!("{name}: {each:?}, {:.0} a second", 1.0 / each.as_secs_f64());
    };
    time(&mut host, "read over the socket", false);
    time(&mut host, "write over the socket", true);
    let start = Instant::now();
    for _ in 0..500 {
        other.text(Read, "data\0").unwrap();
    }
    println!("read of a domain: {:?}", start.elapsed() / 500);
    // In turns with and without the flood, so that other load meets both alike.
    let (is_on, is_over, asked) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let off = AtomicBool::new(false);
                if is_on.load(Ordering::SeqCst) {
                    thread::scope(|inner| {
                        inner.spawn(|| {
                            while is_on.load(Ordering::SeqCst) {
                                thread::sleep(Duration::from_millis(1));
                            }
                            off.store(true, Ordering::SeqCst);
                        });
                        flood(&mut hostile, &off, &asked);
                    });
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut totals = [0_u64; 2];
        for round in 0..24 {
            is_on.store(round % 2 == 1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(100));
            let end = Instant::now() + Duration::from_millis(600);
            while Instant::now() < end {
                host.direct().read("/tool/xenstored").unwrap();
                totals[round % 2] += 1;
            }
        }
        is_on.store(false, Ordering::SeqCst);
        is_over.store(true, Ordering::SeqCst);
        let slower = 100.0 * (1.0 - totals[1] as f64 / totals[0] as f64);
        println!("requests served without and with a flood: {totals:?}, {slower:.1} % fewer");
    });
}
