//! A bridge over an uplink, in a network namespace: made, removed, and broken off at every step.

#[path = "netfront/space.rs"]
mod space;

use devices::net::setup::bridge::{BridgeError, Bridges, State};
use space::{enter, ip};

/// All that is to be as before.
fn snapshot(device: &str) -> String {
    let lines = |text: String| {
        let mut lines: Vec<String> = text
            .lines()
            // What comes with time: the IPv6 address of the link, and what follows from addresses.
            .filter(|line| !line.contains("fe80::") && !line.contains("table local"))
            .map(|line| {
                line.replace("linkdown", "").split_whitespace().collect::<Vec<_>>().join(" ")
            })
            .collect();
        lines.sort();
        lines.join("\n")
    };
    let addresses = lines(ip(&format!("-o addr show dev {device}")).replace("nodad", ""));
    let addresses: Vec<&str> =
        addresses.lines().map(|line| line.split('\\').next().unwrap()).collect();
    let routes = lines(ip("route show table all")) + "\n" + &lines(ip("-6 route show table all"));
    let routes: Vec<&str> = routes.lines().filter(|line| line.contains(device)).collect();
    let master = ip(&format!("-o link show dev {device}")).contains("master");
    format!("{}\n{}\nport: {master}", addresses.join("\n"), routes.join("\n"))
}

/// An uplink with addresses and routes of all kinds.
fn uplink() {
    ip("link add up0 type veth peer name far0");
    ip("link set far0 up");
    ip("link set up0 mtu 1400 up");
    ip("addr add 198.51.100.2/24 brd + dev up0");
    ip("addr add 203.0.113.9/32 dev up0");
    ip("addr add 2001:db8::2/64 dev up0 nodad");
    ip("route add default via 198.51.100.1 metric 100");
    ip("route add 192.0.2.0/24 via 198.51.100.7 mtu 1300");
    ip("route add 192.0.2.128/25 dev up0 src 203.0.113.9 table 77");
    ip("-6 route add default via 2001:db8::1");
    ip("-6 route add 2001:db8:7::/64 via 2001:db8::9 metric 5");
}

#[test]
fn a_bridge_takes_over_and_gives_back() {
    if !enter() {
        return;
    }
    uplink();
    let records = tempfile::tempdir().unwrap();
    let before = snapshot("up0");
    let mut bridges = Bridges::open(records.path()).unwrap();
    // Nothing happens on paper.
    let (_, steps) = bridges.plan("xenbr0", None, true).unwrap();
    assert!(steps.len() > 10, "{steps:?}");
    assert_eq!(snapshot("up0"), before);

    bridges.start("xenbr0", None).unwrap();
    let text = snapshot("xenbr0");
    for part in [
        "198.51.100.2/24 brd 198.51.100.255",
        "203.0.113.9/32",
        "2001:db8::2/64",
        "default via 198.51.100.1 dev xenbr0 metric 100",
        "192.0.2.0/24 via 198.51.100.7 dev xenbr0 mtu 1300",
        "192.0.2.128/25 dev xenbr0 table 77 scope link src 203.0.113.9",
        "default via 2001:db8::1 dev xenbr0",
        "2001:db8:7::/64 via 2001:db8::9 dev xenbr0 metric 5",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert_eq!(snapshot("up0"), "\n\nport: true", "nothing stays on the uplink");
    let mac = |device: &str| std::fs::read_to_string(format!("/sys/class/net/{device}/address"));
    // The file system shows devices of the namespace it was mounted in.
    if let (Ok(bridge), Ok(uplink)) = (mac("xenbr0"), mac("up0")) {
        assert_eq!(bridge, uplink);
    }
    assert!(ip("-o link show dev xenbr0").contains("mtu 1400"));
    assert!(matches!(bridges.start("xenbr0", None), Err(BridgeError::Started { .. })));

    // Guests hold it.
    ip("tuntap add vif1.0 mode tap");
    ip("link set vif1.0 master xenbr0");
    let in_use = bridges.stop("xenbr0").unwrap_err().to_string();
    assert!(in_use.contains("vif1.0"), "{in_use}");
    ip("link del vif1.0");
    // A lease is renewed meanwhile.
    ip("addr add 198.51.100.77/24 dev xenbr0");
    bridges.stop("xenbr0").unwrap();
    ip("addr del 198.51.100.77/24 dev up0");
    assert_eq!(snapshot("up0"), before);
    assert!(std::fs::read_dir(records.path()).unwrap().next().is_none());
    assert!(matches!(bridges.stop("xenbr0"), Err(BridgeError::NotStarted(_))));
}

#[test]
fn a_start_that_was_broken_off_is_undone() {
    if !enter() {
        return;
    }
    uplink();
    let records = tempfile::tempdir().unwrap();
    let before = snapshot("up0");
    let count = Bridges::open(records.path()).unwrap().plan("xenbr0", None, true).unwrap().1.len();
    for broken in 1..=count {
        // Whoever did these steps was killed then.
        let mut bridges = Bridges::open(records.path()).unwrap();
        let (state, steps) = bridges.plan("xenbr0", Some("up0"), false).unwrap();
        for step in &steps[..broken] {
            bridges.run(&state, step).unwrap();
        }
        drop(bridges);
        let mut bridges = Bridges::open(records.path()).unwrap();
        if broken % 2 == 0 && broken < count {
            // A new start puts it right too.
            bridges.start("xenbr0", Some("up0")).unwrap();
        }
        bridges.stop("xenbr0").unwrap();
        assert_eq!(snapshot("up0"), before, "broken off after {broken} steps");
    }
}

#[test]
fn a_stop_that_was_broken_off_is_finished() {
    if !enter() {
        return;
    }
    uplink();
    let records = tempfile::tempdir().unwrap();
    let before = snapshot("up0");
    let mut bridges = Bridges::open(records.path()).unwrap();
    bridges.start("xenbr0", None).unwrap();
    let record = records.path().join("bridge-xenbr0.json");
    let running = std::fs::read(&record).unwrap();
    bridges.stop("xenbr0").unwrap();
    // As if it had been killed before it removed the record; some of it is not yet put back.
    let mut state: serde_json::Value = serde_json::from_slice(&running).unwrap();
    state["phase"] = "stopping".into();
    std::fs::write(&record, state.to_string()).unwrap();
    ip("route del default via 198.51.100.1");
    ip("addr del 203.0.113.9/32 dev up0");
    let parsed: State = serde_json::from_value(state).unwrap();
    assert_eq!(parsed.uplink, "up0");
    bridges.stop("xenbr0").unwrap();
    assert_eq!(snapshot("up0"), before);
}

#[test]
fn what_cannot_be_put_back_is_not_touched() {
    if !enter() {
        return;
    }
    let records = tempfile::tempdir().unwrap();
    let mut bridges = Bridges::open(records.path()).unwrap();
    let says = |bridges: &mut Bridges<'_>, bridge: &str, uplink| {
        bridges.start(bridge, uplink).unwrap_err().to_string()
    };
    assert!(says(&mut bridges, "xenbr0", None).contains("no default route"));
    uplink();
    assert!(says(&mut bridges, "xenbr0", Some("eth9")).contains("no network device `eth9`"));
    assert!(says(&mut bridges, "xenbr0", Some("lo")).contains("no Ethernet address"));
    assert!(says(&mut bridges, "far0", None).contains("already"));
    let before = snapshot("up0");
    // The kernel does not like the name: the first step that fails undoes all.
    assert!(says(&mut bridges, "a-name-that-is-too-long", None).contains("make the bridge"));
    assert_eq!(snapshot("up0"), before);
    ip("link add up1 type veth peer name far1");
    ip("link set up1 up");
    ip("addr add 192.168.7.1/24 dev up1");
    ip("route add 10.0.0.0/8 nexthop via 198.51.100.3 nexthop via 192.168.7.3");
    assert!(says(&mut bridges, "xenbr0", None).contains("shared with other devices"));
    assert!(std::fs::read_dir(records.path()).unwrap().next().is_none());
}
