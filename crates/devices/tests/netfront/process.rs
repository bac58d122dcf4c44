//! The backend process, started as the domain process does.
#![allow(dead_code, reason = "each test uses a part")]

use crate::netfront::{LAYOUT, Memory, Orders, socket_pair};
use devices::wire::Order;
use rustix::net::SocketType;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

pub struct Backend {
    pub orders: Orders,
    child: Child,
}

impl Backend {
    pub fn start(memory: &Memory) -> Self {
        Self::start_with(memory, |_| {})
    }

    /// With what `prepare` does to the command.
    pub fn start_with(memory: &Memory, prepare: impl FnOnce(&mut Command)) -> Self {
        let (orders, theirs) = socket_pair(SocketType::SEQPACKET);
        let fds = memory.fds();
        let fds = [theirs, fds.ram, fds.arena, fds.bell, fds.kick];
        // Out of the way of the numbers that they get.
        let high = fds.map(|fd| rustix::io::fcntl_dupfd_cloexec(&fd, 100).unwrap());
        let numbers = high.each_ref().map(AsRawFd::as_raw_fd);
        let mut command = Command::new(env!("CARGO_BIN_EXE_xennet"));
        prepare(&mut command);
        // SAFETY: dup2 is all that the child does.
        unsafe {
            command.pre_exec(move || {
                for (number, fd) in (3..).zip(numbers) {
                    let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                    let mut place = std::os::fd::FromRawFd::from_raw_fd(number);
                    rustix::io::dup2(fd, &mut place)?;
                    let _stays_open = std::os::fd::OwnedFd::into_raw_fd(place);
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let orders = Orders(orders);
        orders.send(&Order::Guest(LAYOUT), &[]);
        Self { orders, child }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Hangs up, and waits for the end.
    pub fn end(&mut self) -> ExitStatus {
        let (other, _) = socket_pair(SocketType::SEQPACKET);
        self.orders = Orders(other);
        self.child.wait().unwrap()
    }

    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }
}
