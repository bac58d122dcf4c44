//! A backend process, and a frontend that drives it as blkfront would, or worse.
#![allow(dead_code)]

use devices::testing::TestGuest;
use devices::wire::{BlockConfig, BlockFormat, DeviceConfig, Nodes, Order, Report, receive, send};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Number of the disk in these tests.
pub const DEVICE: u32 = 51712;
/// Frames of the guest; frame `n` is granted by reference `n`.
pub const FRAMES: u64 = 2048;
/// First frame of the first ring; 16 for each queue.
pub const RINGS: u32 = 16;
/// First frame for data.
pub const DATA: u32 = 256;
pub const PAGE: usize = 4096;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub const READ: u8 = 0;
pub const WRITE: u8 = 1;
pub const BARRIER: u8 = 2;
pub const FLUSH: u8 = 3;
pub const DISCARD: u8 = 5;
pub const INDIRECT: u8 = 6;

/// A backend process.
pub struct Process {
    child: Child,
    pub orders: OwnedFd,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    pub fn start(guest: &TestGuest, with_uring: bool) -> Self {
        Self::start_with(guest, |command| {
            if !with_uring {
                command.env("XENOLITH_NO_IO_URING", "1");
            }
        })
    }

    /// With what `prepare` does to the command.
    pub fn start_with(guest: &TestGuest, prepare: impl FnOnce(&mut Command)) -> Self {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let fds = guest.fds();
        let list = [theirs, fds.ram, fds.arena, fds.bell, fds.kick];
        // Out of the way of the numbers that they get.
        let high: Vec<OwnedFd> =
            list.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 100).unwrap()).collect();
        let numbers: Vec<RawFd> = high.iter().map(AsRawFd::as_raw_fd).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xenblock"));
        prepare(&mut command);
        // SAFETY: dup2 is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                for (to, from) in (3..).zip(&numbers) {
                    if libc::dup2(*from, to) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(list);
        let process = Self { child, orders: ours };
        process.order(&Order::Guest(guest.layout()), &[]);
        process
    }

    pub fn order(&self, order: &Order, files: &[&OwnedFd]) {
        let files: Vec<_> = files.iter().map(|fd| fd.as_fd()).collect();
        send(&self.orders, order, &files).unwrap();
    }

    /// The next report that is no line for the log.
    pub fn report(&self) -> Report {
        loop {
            match self.any_report(PATIENCE).expect("a report in time") {
                Report::Log { line, .. } => eprintln!("xenblock: {line}"),
                report => return report,
            }
        }
    }

    pub fn any_report(&self, wait: Duration) -> Option<Report> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.orders, PollFlags::IN)];
        let wait = Timespec::try_from(wait).unwrap();
        if poll(&mut fds, Some(&wait)).unwrap() == 0 {
            return None;
        }
        receive(&self.orders).unwrap().map(|(report, _)| report)
    }

    pub fn attach(&self, config: BlockConfig, files: &[&OwnedFd]) -> Report {
        self.order(&Order::Attach { device: DEVICE, config: DeviceConfig::Block(config) }, files);
        self.report()
    }

    pub fn connect(&self, frontend: Nodes) -> Report {
        self.order(&Order::Connect { device: DEVICE, frontend }, &[]);
        self.report()
    }

    pub fn kill(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn statistics(&self) -> std::collections::BTreeMap<String, u64> {
        self.order(&Order::Statistics, &[]);
        match self.report() {
            Report::Statistics { mut devices } => devices.remove(&DEVICE).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

pub fn raw() -> BlockConfig {
    BlockConfig {
        format: BlockFormat::Raw,
        writable: true,
        shared: false,
        cdrom: false,
        discard: true,
        persistent: true,
        backing: Vec::new(),
    }
}

/// A new image file of random bytes that nobody else has a name for.
pub fn image(bytes: u64) -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    file.into()
}

/// Fills a piece of an image.
pub fn fill(image: &OwnedFd, offset: u64, bytes: &[u8]) {
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::pwrite(image, &bytes[done..], offset + done as u64).unwrap();
    }
}

pub fn content(image: &OwnedFd, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let got = rustix::io::pread(image, &mut bytes[..], offset).unwrap();
    assert_eq!(got, length);
    bytes
}

/// Bytes that differ from sector to sector, by a seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_ne_bytes()
        })
        .take(length)
        .collect()
}

/// A segment.
#[derive(Clone, Copy, Debug)]
pub struct Seg(pub u32, pub u8, pub u8);

/// A request as it lies in the ring.
pub fn request(operation: u8, id: u64, sector: u64, segments: &[Seg]) -> [u8; 112] {
    let mut entry = [0; 112];
    entry[0] = operation;
    entry[1] = segments.len() as u8;
    entry[8..16].copy_from_slice(&id.to_ne_bytes());
    entry[16..24].copy_from_slice(&sector.to_ne_bytes());
    for (i, Seg(reference, first, last)) in segments.iter().enumerate().take(11) {
        let at = 24 + 8 * i;
        entry[at..at + 4].copy_from_slice(&reference.to_ne_bytes());
        (entry[at + 4], entry[at + 5]) = (*first, *last);
    }
    entry
}

pub fn discard(id: u64, sector: u64, count: u64, flag: u8) -> [u8; 112] {
    let mut entry = request(DISCARD, id, sector, &[]);
    entry[1] = flag;
    entry[24..32].copy_from_slice(&count.to_ne_bytes());
    entry
}

/// An indirect request whose segments are described in the frame `page`.
pub fn indirect(operation: u8, id: u64, sector: u64, count: u16, page: u32) -> [u8; 112] {
    let mut entry = [0; 112];
    (entry[0], entry[1]) = (INDIRECT, operation);
    entry[2..4].copy_from_slice(&count.to_ne_bytes());
    entry[8..16].copy_from_slice(&id.to_ne_bytes());
    entry[16..24].copy_from_slice(&sector.to_ne_bytes());
    entry[28..32].copy_from_slice(&page.to_ne_bytes());
    entry
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub id: u64,
    pub operation: u8,
    pub status: i16,
}

/// A ring of the guest's.
pub struct Ring {
    first: u32,
    pub order: u32,
    pub port: u32,
    pub produced: u32,
    pub consumed: u32,
}

impl Ring {
    pub fn count(&self) -> u32 {
        let room = ((PAGE << self.order) - 64) / 112;
        1 << room.ilog2()
    }

    fn at(&self, index: u32, offset: usize) -> (u64, usize) {
        let at = 64 + (index % self.count()) as usize * 112 + offset;
        (u64::from(self.first) + (at / PAGE) as u64, at % PAGE)
    }

    pub fn index<'a>(&self, guest: &'a TestGuest, at: usize) -> &'a std::sync::atomic::AtomicU32 {
        guest.word(u64::from(self.first), at)
    }

    pub fn open(&self) -> u32 {
        self.produced.wrapping_sub(self.consumed)
    }

    /// Puts a request into the ring, not yet shown.
    pub fn put(&mut self, guest: &TestGuest, entry: &[u8; 112]) {
        for i in (0..112).step_by(16) {
            // Entries begin at multiples of 16, so that no such piece crosses a page.
            let (frame, offset) = self.at(self.produced, i);
            guest.guest.memory().write(frame, offset, &entry[i..i + 16]).unwrap();
        }
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows them to the backend, and notifies it if it asked for that.
    pub fn push(&self, guest: &TestGuest) {
        let old = self.index(guest, 0).swap(self.produced, Ordering::AcqRel);
        std::sync::atomic::fence(Ordering::SeqCst);
        let event = self.index(guest, 4).load(Ordering::Acquire);
        if self.produced.wrapping_sub(event) < self.produced.wrapping_sub(old) {
            guest.ring_bell();
        }
    }

    /// The next response.
    pub fn poll(&mut self, guest: &TestGuest) -> Option<Response> {
        if self.index(guest, 8).load(Ordering::Acquire) == self.consumed {
            return None;
        }
        let mut bytes = [0; 16];
        let (frame, offset) = self.at(self.consumed, 0);
        guest.guest.memory().read(frame, offset, &mut bytes).unwrap();
        self.consumed = self.consumed.wrapping_add(1);
        self.index(guest, 12).store(self.consumed.wrapping_add(1), Ordering::Release);
        Some(Response {
            id: u64::from_ne_bytes(bytes[..8].try_into().unwrap()),
            operation: bytes[8],
            status: i16::from_ne_bytes([bytes[10], bytes[11]]),
        })
    }
}

/// A guest with rings.
pub struct Front {
    pub guest: TestGuest,
    pub rings: Vec<Ring>,
    pub persistent: bool,
}

impl Front {
    pub fn new(queues: u32, order: u32) -> Self {
        let guest = TestGuest::with_frames(boundary::Backend::Block, FRAMES);
        for frame in RINGS..FRAMES as u32 {
            guest.grant(frame, frame, false);
        }
        let rings = (0..queues)
            .map(|i| {
                let first = RINGS + 16 * i;
                let ring = Ring { first, order, port: 20 + i, produced: 0, consumed: 0 };
                ring.index(&guest, 4).store(1, Ordering::Relaxed);
                ring.index(&guest, 12).store(1, Ordering::Relaxed);
                ring
            })
            .collect();
        Self { guest, rings, persistent: false }
    }

    pub fn nodes(&self) -> Nodes {
        let mut nodes = Nodes::from([("protocol".into(), "x86_64-abi".into())]);
        let mut put = |name: String, value: u32| nodes.insert(name, value.to_string());
        put("feature-persistent".into(), self.persistent.into());
        if self.rings.len() > 1 {
            put("multi-queue-num-queues".into(), self.rings.len() as u32);
        }
        for (i, ring) in self.rings.iter().enumerate() {
            let prefix = if self.rings.len() > 1 { format!("queue-{i}/") } else { String::new() };
            put(format!("{prefix}event-channel"), ring.port);
            if ring.order == 0 {
                put(format!("{prefix}ring-ref"), ring.first);
            } else {
                put("ring-page-order".into(), ring.order);
                for page in 0..1 << ring.order {
                    put(format!("{prefix}ring-ref{page}"), ring.first + page);
                }
            }
        }
        nodes
    }

    /// A response of a queue, waited for.
    pub fn wait(&mut self, queue: usize) -> Response {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(response) = self.rings[queue].poll(&self.guest) {
                return response;
            }
            assert!(Instant::now() < end, "no response in time");
            std::thread::yield_now();
        }
    }

    /// Does one request; its status.
    pub fn run(&mut self, entry: [u8; 112]) -> i16 {
        self.rings[0].put(&self.guest, &entry);
        self.rings[0].push(&self.guest);
        let response = self.wait(0);
        assert_eq!(response.id, u64::from_ne_bytes(entry[8..16].try_into().unwrap()));
        let operation = if entry[0] == INDIRECT { entry[1] } else { entry[0] };
        assert_eq!(response.operation, operation);
        response.status
    }

    pub fn set(&self, frame: u32, offset: usize, bytes: &[u8]) {
        self.guest.guest.memory().write(frame.into(), offset, bytes).unwrap();
    }

    pub fn get(&self, frame: u32, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.guest.guest.memory().read(frame.into(), offset, &mut bytes).unwrap();
        bytes
    }

    /// Describes segments in a frame, for an indirect request.
    pub fn list(&self, page: u32, segments: &[Seg]) {
        for (i, Seg(reference, first, last)) in segments.iter().enumerate() {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&reference.to_ne_bytes());
            (bytes[4], bytes[5]) = (*first, *last);
            self.set(page, i * 8, &bytes);
        }
    }
}

/// A frontend connected to a disk.
pub struct Setup {
    pub front: Front,
    pub process: Process,
    pub image: OwnedFd,
    pub requests: OwnedFd,
    pub config: BlockConfig,
    pub properties: Nodes,
    pub features: Nodes,
}

impl Setup {
    pub fn new(front: Front, config: BlockConfig, image: OwnedFd, with_uring: bool) -> Self {
        let process = Process::start(&front.guest, with_uring);
        Self::of(front, config, image, process)
    }

    pub fn of(front: Front, config: BlockConfig, image: OwnedFd, process: Process) -> Self {
        let requests = devices::block::in_flight_file().unwrap();
        let mut setup = Self {
            front,
            process,
            image,
            requests,
            config,
            properties: Nodes::new(),
            features: Nodes::new(),
        };
        setup.join();
        setup
    }

    fn join(&mut self) {
        match self.process.attach(self.config.clone(), &[&self.image, &self.requests]) {
            Report::Attached { device: DEVICE, nodes } => self.features = nodes,
            other => panic!("{other:?}"),
        }
        match self.process.connect(self.front.nodes()) {
            Report::Connected { device: DEVICE, nodes } => self.properties = nodes,
            other => panic!("{other:?}"),
        }
    }

    /// A process in the place of the one before.
    pub fn restart(&mut self, with_uring: bool) {
        self.process.kill();
        self.process = Process::start(&self.front.guest, with_uring);
        self.join();
    }
}

/// Anonymous file of that content.
pub fn file_of(bytes: &[u8]) -> OwnedFd {
    let file: File = tempfile::tempfile().unwrap();
    let fd = file.into();
    fill(&fd, 0, bytes);
    fd
}

/// The tool to make and check qcow2 images, if the host has it.
pub fn qemu_img() -> Option<std::path::PathBuf> {
    let name = std::env::var_os("QEMU_IMG").unwrap_or_else(|| "qemu-img".into());
    let works = Command::new(&name).arg("--version").output().is_ok_and(|out| out.status.success());
    works.then(|| name.into())
}
