//! Interfaces on the host, with the backend process and real engines: a tap on a bridge, `passt`.

mod netfront;
#[path = "netfront/packets.rs"]
mod packets;
#[path = "netfront/process.rs"]
mod process;
#[path = "netfront/space.rs"]
mod space;

use config::{PortForward, Protocol, Vif};
use devices::net::setup::{Interface, Owner, SetupError};
use devices::wire::{DeviceConfig, Order, Report};
use netfront::{Came, ENTRIES, Memory, Queue, flag};
use packets::{frame, ipv4, is_right, tcp, udp};
use process::Backend;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

fn owner(runtime: &Path) -> Owner<'_> {
    Owner { name: "lab", uuid: "00000000-1111-2222-3333-444444444444", domid: 7, runtime }
}

fn vif() -> Vif {
    Vif { mac: Some(config::Mac([0, 0x16, 0x3e, 1, 2, 3])), ..Vif::default() }
}

fn attach(backend: &Backend, interface: &Interface, fd: OwnedFd, queue: &Queue<'_>) {
    let config = DeviceConfig::Net(interface.config.clone());
    backend.orders.send(&Order::Attach { device: 0, config }, &[fd.as_fd()]);
    drop(fd);
    assert!(matches!(backend.orders.report(), Report::Attached { .. }));
    let report = backend.orders.connect(&queue.nodes());
    assert!(matches!(report, Report::Connected { .. }), "{report:?}");
}

/// Waits for a packet of a kind.
fn wait(queue: &mut Queue<'_>, wanted: impl Fn(&Came) -> bool) -> Came {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let came = queue.wait();
        queue.offer(ENTRIES);
        if wanted(&came) {
            return came;
        }
        assert!(Instant::now() < end, "not the packet that is waited for");
    }
}

fn is_tcp(came: &Came) -> bool {
    came.bytes.get(12..14) == Some(&[8, 0]) && came.bytes.get(23) == Some(&6)
}

/// The smallest TCP: opens a connection, sends and receives in order.
struct Tcp<'a, 'b> {
    queue: &'a mut Queue<'b>,
    macs: ([u8; 6], [u8; 6]),
    addresses: ([u8; 4], [u8; 4]),
    ports: (u16, u16),
    sent: u32,
    received: u32,
}

impl<'a, 'b> Tcp<'a, 'b> {
    fn open(
        queue: &'a mut Queue<'b>,
        macs: ([u8; 6], [u8; 6]),
        addresses: ([u8; 4], [u8; 4]),
        port: u16,
    ) -> Self {
        let mut tcp = Self { queue, macs, addresses, ports: (4242, port), sent: 1000, received: 0 };
        tcp.segment(2, b"");
        let answer = wait(tcp.queue, is_tcp);
        assert_eq!(answer.bytes[47], 0x12, "a connection is accepted");
        tcp.sent += 1;
        tcp.received = u32::from_be_bytes(answer.bytes[38..42].try_into().unwrap()) + 1;
        tcp.segment(0x10, b"");
        tcp
    }

    /// Sends a segment with a blank checksum, to be cut if it is large.
    fn segment(&mut self, flags: u8, payload: &[u8]) {
        let segment = tcp(self.ports, (self.sent, self.received), flags, payload);
        let packet = ipv4(self.addresses.0, self.addresses.1, 6, &segment);
        let frame = frame(self.macs.1, self.macs.0, 0x0800, &packet);
        let gso = (payload.len() > 1448).then_some((1, 1448));
        self.queue.send(&frame, 54, true, gso);
        assert!(self.queue.answers().iter().all(|(_, status)| *status >= 0));
    }

    /// Receives until `count` bytes came; the largest packet among them, and their sum.
    fn receive(&mut self, count: usize) -> (Vec<u8>, usize) {
        let (mut data, mut largest) = (Vec::new(), 0);
        while data.len() < count {
            let came = wait(self.queue, is_tcp);
            let end = 14 + usize::from(u16::from_be_bytes([came.bytes[16], came.bytes[17]]));
            let payload = &came.bytes[34 + usize::from(came.bytes[46] >> 4) * 4..end];
            let number = u32::from_be_bytes(came.bytes[38..42].try_into().unwrap());
            let blank = came.flags & flag::RX_BLANK != 0;
            assert!(blank || is_right(&came.bytes));
            if number != self.received {
                continue;
            }
            largest = largest.max(came.bytes.len());
            self.received += payload.len() as u32;
            data.extend_from_slice(payload);
            if !payload.is_empty() {
                self.segment(0x10, b"");
            }
        }
        (data, largest)
    }
}

#[test]
fn a_tap_carries_large_packets_both_ways() {
    if !space::enter() {
        return;
    }
    space::ip("link add br7 type bridge");
    space::ip("addr add 10.7.0.1/24 dev br7");
    space::ip("link set br7 up");
    let runtime = tempfile::tempdir().unwrap();
    let vif = Vif { bridge: Some("br7".into()), ..vif() };
    let (interface, fd) = Interface::set_up(owner(runtime.path()), 0, &vif).unwrap();
    let shown = space::ip("-o link show dev vif7.0");
    assert!(shown.contains("master br7") && shown.contains("fe:ff:ff:ff:ff:ff"), "{shown}");
    let taken = Interface::set_up(owner(runtime.path()), 1, &vif).unwrap_err();
    assert!(matches!(&taken, SetupError::MacInUse { user, .. } if user == "lab"), "{taken}");

    let memory = Memory::new();
    let mut queue = Queue::new(&memory, 0);
    let mut backend = Backend::start(&memory);
    attach(&backend, &interface, fd, &queue);
    queue.offer(ENTRIES);
    let (guest, address) = ([0, 0x16, 0x3e, 1, 2, 3], [10, 7, 0, 2]);
    let bridge = mac_of("br7");
    space::ip("neigh add 10.7.0.2 lladdr 00:16:3e:01:02:03 dev br7");
    let listener = TcpListener::bind("10.7.0.1:99").unwrap();
    let mut tcp = Tcp::open(&mut queue, (guest, bridge), (address, [10, 7, 0, 1]), 99);
    let (mut stream, _) = listener.accept().unwrap();
    let data: Vec<u8> = (0..50_000u32).map(|i| (i * 13) as u8).collect();
    tcp.segment(0x18, &data);
    let mut got = vec![0; data.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == data, "a packet to be cut arrives whole");
    stream.write_all(&data).unwrap();
    tcp.sent += data.len() as u32;
    tcp.segment(0x10, b"");
    let (got, largest) = tcp.receive(data.len());
    assert!(got == data);
    assert!(largest > 1514, "large packets come uncut, {largest}");

    // Datagrams, padded ones with a blank checksum among them.
    let socket = UdpSocket::bind("10.7.0.1:99").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for (size, padding) in [(0, 0), (1, 17), (1, 0), (2, 16), (1400, 0), (1472, 0)] {
        let payload = vec![0xa5; size];
        let packet = ipv4(address, [10, 7, 0, 1], 17, &udp((7, 99), &payload));
        let mut bytes = frame(bridge, guest, 0x0800, &packet);
        bytes.resize(bytes.len() + padding, 0xcc);
        queue.send(&bytes, 4000, true, None);
        let mut got = [0; 2000];
        let count = socket.recv(&mut got).unwrap();
        assert_eq!(got[..count], payload);
    }

    // A tap that is removed is reported.
    space::ip("link del vif7.0");
    assert!(matches!(backend.orders.report(), Report::Unlinked { .. }));
    assert!(backend.end().success());
}

fn mac_of(device: &str) -> [u8; 6] {
    let shown = space::ip(&format!("-o link show dev {device}"));
    let text = shown.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// What is there as soon as descriptors that were dropped are closed: a program that another test starts has
/// them too for a moment, between fork and exec.
fn soon<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "it is still not there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_tap_goes_with_its_backend_and_is_refused_by_name() {
    if !space::enter() {
        return;
    }
    let runtime = tempfile::tempdir().unwrap();
    let set_up = |vif: &Vif| Interface::set_up(owner(runtime.path()), 3, vif);
    let on = |bridge: &str| Vif { bridge: Some(bridge.into()), ..vif() };
    let none = set_up(&on("br7")).unwrap_err();
    assert!(none.to_string().contains("none at all"), "{none}");
    space::ip("link add br7 type bridge");
    space::ip("link add br8 type bridge");
    let other = set_up(&on("br9")).unwrap_err();
    assert!(other.to_string().contains("there are: br7, br8"), "{other}");
    assert!(other.help().unwrap().contains("network-bridge"));
    assert!(matches!(set_up(&on("lo")), Err(SetupError::NotABridge { .. })));
    let script = Vif { script: Some("/nowhere/at-all".into()), ..on("br7") };
    assert!(matches!(set_up(&script), Err(SetupError::Script { .. })));
    let ports = PortForward { address: None, host: 1, guest: 1, protocol: Protocol::Tcp };
    let both = Vif { ports: vec![ports], ..on("br7") };
    assert!(matches!(set_up(&both), Err(SetupError::PortsWithBridge)));
    let long = Vif { vifname: Some("a-name-that-is-too-long".into()), ..on("br7") };
    assert!(matches!(set_up(&long), Err(SetupError::Name { .. })));
    // Nothing was left behind by all these.
    let (interface, fd) = set_up(&on("br7")).unwrap();
    assert!(space::ip("-o link").contains("vif7.3"));
    let same = Vif { mac: None, ..on("br7") };
    assert!(matches!(set_up(&same), Err(SetupError::NameInUse { .. })));
    drop((interface, fd));
    soon(|| (!space::ip("-o link").contains("vif7.3")).then_some(()));
}

#[test]
fn a_script_joins_the_tap() {
    if !space::enter() {
        return;
    }
    let runtime = tempfile::tempdir().unwrap();
    let script = runtime.path().join("script");
    let log = runtime.path().join("log");
    let text = format!(
        "#!/bin/sh\necho \"$1 $2 $vif $bridge $mac $domid\" >>{}\nip link show $vif",
        log.display()
    );
    std::fs::write(&script, text).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).unwrap();
    let script = format!("{} word", script.display());
    let vif = Vif { bridge: Some("any".into()), script: Some(script), ..vif() };
    drop(Interface::set_up(owner(runtime.path()), 0, &vif).unwrap());
    let log = std::fs::read_to_string(log).unwrap();
    let line = "word vif7.0 any 00:16:3e:01:02:03 7";
    assert_eq!(log, format!("online {line}\noffline {line}\n"));
}

/// A host with an uplink of its own, so that addresses are known.
fn uplink() {
    space::ip("link add up0 type veth peer name far0");
    space::ip("link set far0 up");
    space::ip("link set up0 up");
    space::ip("addr add 198.51.100.2/24 dev up0");
    space::ip("route add default via 198.51.100.1");
}

fn has_passt() -> bool {
    let there = std::process::Command::new("passt").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: `passt` is not installed");
    }
    there
}

/// An answer of the DHCP server: the guest's address, and the option of this number.
fn dhcp(queue: &mut Queue<'_>, mac: [u8; 6]) -> ([u8; 4], Vec<u8>) {
    let mut request = vec![0u8; 240];
    (request[0], request[1], request[2]) = (1, 1, 6);
    request[4..8].copy_from_slice(b"test");
    request[28..34].copy_from_slice(&mac);
    request[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    request.extend_from_slice(&[53, 1, 1, 55, 3, 3, 6, 26, 255]);
    request.resize(300, 0);
    let packet = ipv4([0; 4], [255; 4], 17, &udp((68, 67), &request));
    queue.send(&frame([0xff; 6], mac, 0x0800, &packet), 4000, true, None);
    let answer = wait(queue, |came| came.bytes.get(34..38) == Some(&[0, 67, 0, 68]));
    // UDP may do without a checksum.
    assert!(answer.bytes[40..42] == [0, 0] || is_right(&answer.bytes));
    (answer.bytes[58..62].try_into().unwrap(), answer.bytes[282..].to_vec())
}

#[test]
fn passt_serves_guests_and_large_packets() {
    if !has_passt() || !space::enter() {
        return;
    }
    uplink();
    let runtime = tempfile::tempdir().unwrap();
    let published = PortForward { address: None, host: 2222, guest: 4242, protocol: Protocol::Tcp };
    let vif = Vif { ports: vec![published], ..vif() };
    let (mut interface, fd) = Interface::set_up(owner(runtime.path()), 0, &vif).unwrap();
    let memory = Memory::new();
    let mut queue = Queue::new(&memory, 0);
    let mut backend = Backend::start(&memory);
    attach(&backend, &interface, fd, &queue);
    queue.offer(ENTRIES);

    let guest = interface.config.mac;
    let (address, options) = dhcp(&mut queue, guest);
    assert_eq!(address, [198, 51, 100, 2]);
    let mtu = [&[26, 2][..], &65520u16.to_be_bytes()].concat();
    assert!(options.windows(4).any(|window| window == mtu), "{options:?}");

    // The gateway's address is the host itself.
    let gateway = [198, 51, 100, 1];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 99)).unwrap();
    let macs = (guest, [0x02, 0, 0, 0, 0, 1]);
    let mut tcp = Tcp::open(&mut queue, macs, (address, gateway), 99);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let data: Vec<u8> = (0..60_000u32).map(|i| (i * 13) as u8).collect();
    // A packet to be cut, which is not.
    tcp.segment(0x18, &data);
    let mut got = vec![0; data.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == data);
    tcp.sent += data.len() as u32;
    stream.write_all(&data).unwrap();
    assert!(tcp.receive(data.len()).0 == data);

    // The published port leads to the guest.
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 2222));
    assert!(stream.is_ok());
    wait(&mut queue, |came| {
        is_tcp(came) && came.bytes[36..38] == 4242u16.to_be_bytes() && came.bytes[47] == 2
    });

    // It is killed: the next one serves the same guest.
    let engine = interface.engine().unwrap().cast_signed();
    let engine = rustix::process::Pid::from_raw(engine).unwrap();
    rustix::process::kill_process(engine, rustix::process::Signal::KILL).unwrap();
    assert!(matches!(backend.orders.report(), Report::Unlinked { .. }));
    let fd = interface.renew().unwrap().unwrap();
    backend.orders.send(&Order::Relink { device: 0 }, &[fd.as_fd()]);
    drop(fd);
    backend.orders.counter("tx-packets");
    assert_eq!(dhcp(&mut queue, guest).0, address);
    backend.end();
}

#[test]
fn ports_that_cannot_be_had_are_named() {
    if !has_passt() || !space::enter() {
        return;
    }
    uplink();
    let runtime = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:2222").unwrap();
    let port = |address, host, protocol| PortForward { address, host, guest: 22, protocol };
    let says = |port| {
        let vif = Vif { ports: vec![port], ..vif() };
        let error = Interface::set_up(owner(runtime.path()), 0, &vif).unwrap_err();
        format!("{error}; {}", error.help().unwrap_or_default())
    };
    let text = says(port(None, 2222, Protocol::Tcp));
    assert!(text.contains("ports=2222:22") && text.contains("another program"), "{text}");
    let elsewhere = says(port(Some(Ipv4Addr::new(192, 0, 2, 9)), 2223, Protocol::Udp));
    assert!(elsewhere.contains("192.0.2.9:2223:22/udp"), "{elsewhere}");
    drop(taken);
    // The address is free again: nothing was left half done.
    let vif = Vif { ports: vec![port(None, 2222, Protocol::Tcp)], ..vif() };
    drop(soon(|| Interface::set_up(owner(runtime.path()), 0, &vif).ok()));
}
