//! How fast the network backend is: `cargo bench -p devices --bench net` (as root, with `passt`).
//!
//! A frontend without a kernel sends TCP in packets of 60 KB to a listener on this host, over a tap
//! and over `passt`, and to a socket that somebody reads. It stands for a guest that costs nothing.

#[path = "../tests/netfront/mod.rs"]
mod netfront;
#[path = "../tests/netfront/packets.rs"]
mod packets;
#[path = "../tests/netfront/process.rs"]
mod process;
#[path = "../tests/netfront/space.rs"]
mod space;

use config::Vif;
use devices::net::setup::{Interface, Owner};
use devices::wire::{DeviceConfig, NetLink, Order, Report};
use netfront::{ENTRIES, Memory, Queue, Slot, extra, flag, readable, socket_pair};
use packets::{frame, ipv4, tcp};
use process::Backend;
use rustix::net::SocketType;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const MAC: [u8; 6] = [0, 0x16, 0x3e, 1, 2, 3];
/// Payload of a packet: with its header in a page of its own, 16 slots.
const PAYLOAD: usize = 14 * 4096;
const TIME: Duration = Duration::from_secs(3);

fn main() {
    if !space::enter() {
        return;
    }
    space::ip("link add up0 type veth peer name far0");
    space::ip("link set far0 up");
    space::ip("link set up0 up");
    space::ip("addr add 198.51.100.2/24 dev up0");
    space::ip("route add default via 198.51.100.1");
    space::ip("link add br7 type bridge");
    space::ip("addr add 10.7.0.1/24 dev br7");
    space::ip("link set br7 up");
    socket();
    over("tap", Some("br7"), [10, 7, 0, 2], [10, 7, 0, 1], "10.7.0.1:99");
    over("passt", None, [198, 51, 100, 2], [198, 51, 100, 1], "127.0.0.1:99");
    ping();
}

/// Packets into a socket.
fn socket() {
    let memory = Memory::new();
    let mut queue = Queue::new(&memory, 0);
    let backend = Backend::start(&memory);
    let (near, far) = socket_pair(SocketType::STREAM);
    backend.orders.attach(NetLink::Stream, None, far);
    backend.orders.connect(&queue.nodes());
    let mut near = UnixStream::from(near);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while near.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let mut sender = Sender::new(&mut queue, MAC, [10, 7, 0, 2], [10, 7, 0, 1]);
    let (start, used, mut count) = (Instant::now(), backend.cpu_time(), 0);
    while start.elapsed() < TIME {
        if sender.has_slots() {
            sender.data();
            count += PAYLOAD;
        }
    }
    show("socket, checksums computed", count, start.elapsed(), backend.cpu_time() - used);
    drop(backend);
    reader.join().unwrap();
}

fn show(what: &str, bytes: usize, time: Duration, used: Duration) {
    let speed = bytes as f64 * 8.0 / time.as_secs_f64() / 1e9;
    let share = used.as_secs_f64() / time.as_secs_f64() * 100.0;
    println!("{what}: {speed:.2} Gbit/s, the backend used {share:.0} % of a processor");
}

/// TCP to a listener on this host.
fn over(what: &str, bridge: Option<&str>, from: [u8; 4], to: [u8; 4], at: &str) {
    let runtime = tempfile::tempdir().unwrap();
    let owner = Owner { name: "lab", uuid: "1", domid: 7, runtime: runtime.path() };
    let vif =
        Vif { mac: Some(config::Mac(MAC)), bridge: bridge.map(str::to_owned), ..Vif::default() };
    let (interface, fd) = Interface::set_up(owner, 0, &vif).unwrap();
    if bridge.is_some() {
        space::ip("neigh add 10.7.0.2 lladdr 00:16:3e:01:02:03 dev br7");
    }
    let memory = Memory::new();
    let mut queue = Queue::new(&memory, 0);
    let backend = Backend::start(&memory);
    let config = DeviceConfig::Net(interface.config.clone());
    backend.orders.send(&Order::Attach { device: 0, config }, &[fd.as_fd()]);
    drop(fd);
    assert!(matches!(backend.orders.report(), Report::Attached { .. }));
    assert!(matches!(backend.orders.connect(&queue.nodes()), Report::Connected { .. }));
    queue.offer(ENTRIES);
    let listener = TcpListener::bind(at).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 20];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let host = bridge.map_or([2, 0, 0, 0, 0, 1], mac_of);
    let mut sender = Sender::new(&mut queue, host, from, to);
    sender.open();
    let (start, used) = (Instant::now(), backend.cpu_time());
    while start.elapsed() < TIME {
        sender.look();
        if sender.has_slots() && sender.has_window() {
            sender.data();
        }
    }
    let (time, used) = (start.elapsed(), backend.cpu_time() - used);
    let count = sender.arrived;
    sender.segment(0x14);
    // The interface goes, and the connection with it.
    drop((backend, interface));
    show(&format!("TCP, guest to host, {what}"), count, time, used);
    drop(reader);
}

fn mac_of(device: &str) -> [u8; 6] {
    let shown = space::ip(&format!("-o link show dev {device}"));
    let text = shown.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// One who sends, as the window allows.
struct Sender<'a, 'b> {
    queue: &'a mut Queue<'b>,
    host: [u8; 6],
    from: [u8; 4],
    to: [u8; 4],
    sent: u32,
    acknowledged: u32,
    received: u32,
    window: u32,
    scale: u8,
    /// Bytes acknowledged, and when that last grew.
    arrived: usize,
    grew: Instant,
}

impl<'a, 'b> Sender<'a, 'b> {
    fn new(queue: &'a mut Queue<'b>, host: [u8; 6], from: [u8; 4], to: [u8; 4]) -> Self {
        Self {
            queue,
            host,
            from,
            to,
            sent: 1,
            acknowledged: 1,
            received: 0,
            window: 0,
            scale: 0,
            arrived: 0,
            grew: Instant::now(),
        }
    }

    fn has_slots(&mut self) -> bool {
        let _answers = self.queue.memory.word(self.queue.tx_ring(), 8);
        self.queue.tx_seen = _answers;
        self.queue.tx_prod.wrapping_sub(_answers) <= ENTRIES - 16
    }

    fn has_window(&self) -> bool {
        self.sent.wrapping_sub(self.acknowledged) + PAYLOAD as u32 <= self.window
    }

    /// A segment without data.
    fn segment(&mut self, flags: u8) {
        let mut segment = tcp((4242, 99), (self.sent, self.received), flags, b"");
        if flags & 2 != 0 {
            // Largest segment and window scale.
            segment.extend_from_slice(&[2, 4, 0xff, 0x00, 1, 3, 3, 7]);
            segment[12] = 0x70;
        }
        let packet = ipv4(self.from, self.to, 6, &segment);
        self.queue.send(&frame(self.host, MAC, 0x0800, &packet), 4000, true, None);
        self.queue.tx_seen = self.queue.tx_prod;
    }

    fn open(&mut self) {
        self.segment(2);
        let answer = loop {
            let came = self.queue.wait();
            if came.bytes.get(23) == Some(&6) && came.bytes.get(12..14) == Some(&[8, 0]) {
                break came.bytes;
            }
        };
        let end = 34 + usize::from(answer[46] >> 4) * 4;
        let scale = answer[54..end].windows(3).find(|option| option[..2] == [3, 3]);
        self.scale = scale.map_or(0, |option| option[2]);
        self.received = u32::from_be_bytes(answer[38..42].try_into().unwrap()) + 1;
        (self.sent, self.acknowledged) = (2, 2);
        self.window = 64000;
        self.segment(0x10);
    }

    /// Takes acknowledgements.
    fn look(&mut self) {
        let mut some = false;
        while let Some(came) = self.queue.take() {
            some = true;
            let bytes = &came.bytes;
            if bytes.len() >= 54 && bytes[23] == 6 && bytes[12..14] == [8, 0] {
                let number = u32::from_be_bytes(bytes[42..46].try_into().unwrap());
                let more = number.wrapping_sub(self.acknowledged);
                if more < 1 << 31 {
                    if more > 0 {
                        (self.arrived, self.grew) = (self.arrived + more as usize, Instant::now());
                    }
                    self.acknowledged = number;
                    let window = u32::from(u16::from_be_bytes([bytes[48], bytes[49]]));
                    self.window = window << self.scale;
                }
            }
        }
        if some {
            self.queue.offer(ENTRIES);
        }
        // Something was lost: once more from there.
        if self.sent != self.acknowledged && self.grew.elapsed() > Duration::from_millis(20) {
            (self.sent, self.grew) = (self.acknowledged, Instant::now());
        }
    }

    /// A large packet: its header in one page, data in others.
    fn data(&mut self) {
        let segment = tcp((4242, 99), (self.sent, self.received), 0x18, &[]);
        let mut header = frame(self.host, MAC, 0x0800, &ipv4(self.from, self.to, 6, &segment));
        let total = (40 + PAYLOAD) as u16;
        header[16..18].copy_from_slice(&total.to_be_bytes());
        header[24..26].fill(0);
        let sum = packets::checksum(&[&header[14..34]]);
        header[24..26].copy_from_slice(&sum.to_be_bytes());
        let first = self.queue.tx_prod;
        let page = self.queue.tx_page(first);
        self.queue.memory.write(page, 0, &header);
        let size = (54 + PAYLOAD) as u16;
        let flags = flag::TX_BLANK | flag::MORE | flag::EXTRA;
        self.queue.put(Slot { gref: page, offset: 0, flags, id: 1, size }.bytes());
        self.queue.put(extra(1, 0, 1448, 1));
        for part in 0..14 {
            let flags = if part < 13 { flag::MORE } else { 0 };
            let gref = self.queue.tx_page(first + 1 + part);
            self.queue.put(Slot { gref, offset: 0, flags, id: 1, size: 4096 }.bytes());
        }
        self.sent = self.sent.wrapping_add(PAYLOAD as u32);
        self.queue.push_quietly(first);
    }
}

/// How long a small packet takes to the host and back.
fn ping() {
    let memory = Memory::new();
    let mut queue = Queue::new(&memory, 0);
    let backend = Backend::start(&memory);
    let (near, far) = socket_pair(SocketType::STREAM);
    backend.orders.attach(NetLink::Stream, None, far);
    backend.orders.connect(&queue.nodes());
    queue.offer(ENTRIES);
    let mut near = UnixStream::from(near);
    let packet = packets::plain(98);
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        queue.send(&packet, 4000, false, None);
        let mut bytes = [0; 102];
        assert!(readable(&near, Duration::from_secs(1)));
        near.read_exact(&mut bytes).unwrap();
        std::io::Write::write_all(&mut near, &bytes).unwrap();
        while queue.take().is_none() {
            std::hint::spin_loop();
        }
        times.push(start.elapsed());
        queue.tx_seen = queue.tx_prod;
        queue.offer(ENTRIES);
    }
    times.sort();
    println!("a small packet through the backend and back: median {:?}", times[times.len() / 2]);
}
