//! The rings and nodes of a hostile network frontend, and frames of its network. The backend must
//! serve or close the interface, in bounded time.
#![no_main]

#[allow(unused, reason = "the tests use it all")]
#[path = "../../crates/devices/tests/netfront/mod.rs"]
mod netfront;

use boundary::Backend;
use devices::guest::Guest;
use devices::net::Server;
use devices::wire::{NetLink, Order};
use libfuzzer_sys::fuzz_target;
use netfront::{LAYOUT, Memory, Orders, Queue, socket_pair};
use rustix::net::{RecvFlags, SendFlags, SocketType};
use std::cell::RefCell;

thread_local! {
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    MEMORY.with_borrow_mut(|memory| run(memory.get_or_insert_with(Memory::new), data));
});

fn run(memory: &Memory, data: &[u8]) {
    let guest = Guest::new(LAYOUT, Backend::Net, memory.fds()).expect("memory");
    let (orders, theirs) = socket_pair(SocketType::SEQPACKET);
    let mut server = Server::new(theirs, guest);
    let orders = Orders(orders);
    let (near, far) = socket_pair(SocketType::STREAM);
    let mut queue = Queue::new(memory, 0);
    // The answers to these are read at the end.
    let config = devices::wire::NetConfig {
        mac: [2; 6],
        link: NetLink::Stream,
        mtu: 1500,
        rate: None,
        antispoof: None,
    };
    let config = devices::wire::DeviceConfig::Net(config);
    orders.send(&Order::Attach { device: 0, config }, &[std::os::fd::AsFd::as_fd(&far)]);
    drop(far);
    let mut nodes = queue.nodes();
    let mut input = data;
    if let Some((&[first, second], rest)) = input.split_first_chunk()
        && first == 0
    {
        // Nodes with one character changed, or one missing.
        input = rest;
        let name = nodes.keys().nth(usize::from(second) % nodes.len()).cloned().unwrap_or_default();
        let value = String::from_utf8_lossy(rest.get(..4).unwrap_or_default()).into_owned();
        nodes.insert(name, value);
    }
    orders.send(&Order::Connect { device: 0, frontend: nodes }, &[]);
    server.turn().expect("orders");
    server.turn().expect("orders");
    while let Some((&[what, a, b, c], rest)) = input.split_first_chunk() {
        input = rest;
        let number = u16::from_le_bytes([b, c]);
        match what % 8 {
            // A slot as it comes.
            0..=2 => {
                let Some((slot, rest)) = input.split_first_chunk::<12>() else { break };
                input = rest;
                let mut slot = *slot;
                if a & 1 == 0 {
                    // A page that is granted.
                    slot[..4].copy_from_slice(&queue.tx_page(number.into()).to_ne_bytes());
                }
                queue.put(slot);
            }
            // Bytes in a page.
            3 => {
                let length = usize::from(a).min(input.len());
                let page = queue.tx_page(u32::from(number) % 8);
                memory.write(page, 0, &input[..length]);
                input = &input[length..];
            }
            4 => queue.push(),
            5 => queue.offer(a.into()),
            // A word of a ring or of the grant table.
            6 => {
                let table = u32::try_from(LAYOUT.grant_mfn).expect("small");
                let frame = [queue.tx_ring(), queue.rx_ring(), table][usize::from(a) % 3];
                memory.set_word(
                    frame,
                    u64::from(number) % 1024 * 4,
                    u32::from(a) << 8 | u32::from(b),
                );
            }
            _ => {
                let length = usize::from(number).min(input.len());
                let _full = rustix::net::send(
                    &near,
                    &input[..length],
                    SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                );
                input = &input[length..];
            }
        }
        if what & 0x80 != 0 {
            server.turn().expect("orders");
        }
    }
    memory.ring_bell();
    for _ in 0..4 {
        server.turn().expect("orders");
    }
    let mut buffer = [0; 4096];
    while rustix::net::recv(&near, &mut buffer, RecvFlags::DONTWAIT).is_ok_and(|(_, n)| n > 0) {}
    drop(server);
}
