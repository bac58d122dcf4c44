//! The backend with a socket as its network.
#![allow(dead_code, reason = "each test uses a part")]

use crate::netfront::{Memory, Orders, Queue, socket_pair};
use crate::packets::is_question;
use crate::process::Backend;
use devices::wire::{NetLink, Report};
use rustix::net::SocketType;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A backend with an interface at a socket.
pub struct Net {
    pub backend: Backend,
    pub wire: UnixStream,
}

impl Net {
    pub fn new(memory: &Memory) -> Self {
        Self::limited(memory, None)
    }

    pub fn limited(memory: &Memory, rate: Option<(u64, u64)>) -> Self {
        Self::of(Backend::start(memory), rate)
    }

    pub fn of(backend: Backend, rate: Option<(u64, u64)>) -> Self {
        let (wire, far) = socket_pair(SocketType::STREAM);
        backend.orders.attach(NetLink::Stream, rate, far);
        let wire = UnixStream::from(wire);
        wire.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { backend, wire }
    }

    pub fn orders(&self) -> &Orders {
        &self.backend.orders
    }

    /// The next frame of the guest's.
    pub fn read_frame(&mut self) -> Vec<u8> {
        loop {
            let frame = self.read_any();
            if !is_question(&frame) {
                return frame;
            }
        }
    }

    pub fn read_any(&mut self) -> Vec<u8> {
        let mut prefix = [0; 4];
        self.wire.read_exact(&mut prefix).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
        self.wire.read_exact(&mut frame).unwrap();
        frame
    }

    pub fn write_frame(&mut self, frame: &[u8]) {
        let bytes = [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
        self.wire.write_all(&bytes).unwrap();
    }
}

pub fn connect(net: &Net, queue: &Queue<'_>) {
    let report = net.orders().connect(&queue.nodes());
    assert!(matches!(report, Report::Connected { device: 0, .. }), "{report:?}");
}
