//! A disk: its image, and the queues through which the guest uses it.

use super::buffers::Buffers;
use super::engine::{Done, Engine, Job};
use super::image::{Geometry, Image, Operation, is_full};
use super::in_flight::{InFlight, Left, Slot};
use super::nodes::{self, Frontend};
use super::protocol::{ENTRY, Request, Status, Tag};
use super::queue::{Queue, QueueError};
use super::strikes::Strikes;
use super::task::{Limits, Task};
use super::tasks::Tasks;
use crate::guest::Guest;
use crate::wire::{BlockConfig, Nodes, Report};
use config::LogLevel;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a disk did.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    reads: u64,
    writes: u64,
    flushes: u64,
    discards: u64,
    sectors_read: u64,
    sectors_written: u64,
    errors: u64,
}

impl Counters {
    fn sectors(&self) -> u64 {
        self.sectors_read + self.sectors_written
    }
}

/// What becomes of a disk's queues.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// There are none.
    Idle,
    /// They are served.
    Serving,
    /// They are forgotten once nothing is under way; then this is reported.
    Ending(Vec<Report>),
}

/// A disk.
#[derive(Debug)]
pub struct Device {
    number: u32,
    guest: Arc<Guest>,
    config: BlockConfig,
    image: Image,
    in_flight: Arc<InFlight>,
    strikes: Strikes,
    /// Requests that a process before this one left, and that are not done yet.
    again: BTreeSet<(usize, Slot)>,
    queues: Vec<Queue>,
    state: State,
    tasks: Tasks,
    /// Tasks that wait for room on the host.
    parked: Vec<u32>,
    /// The barrier that waits for all other tasks, or is under way.
    barrier: Option<u32>,
    /// Its image is being made longer.
    is_growing: bool,
    counters: Counters,
    last_line: Option<Instant>,
}

/// What stands for the growth of the image where tasks have their keys, of which there are fewer.
const GROWTH: u32 = u32::MAX;

/// Sectors after which the guest sees what was done of many requests: it goes on with that while the
/// rest is copied. An interrupt costs it some microseconds, copying 256 KiB thirty to sixty.
const ANSWERED_TOGETHER: u64 = 512;

/// Least time between lines for the log: a guest may read the same bad sector again and again.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

impl Device {
    /// Takes over a disk with its files: the image, its backing files, and that of requests.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn attach(
        number: u32,
        guest: &Arc<Guest>,
        config: BlockConfig,
        mut files: Vec<OwnedFd>,
    ) -> Result<Self, String> {
        let requests = files.pop().ok_or("no files came with the disk")?;
        let in_flight = InFlight::open(requests)
            .map_err(|error| format!("the file of requests cannot be used: {error}"))?;
        let strikes = Strikes::open(&in_flight);
        let image = Image::open(&config, files, strikes.clone())?;
        Ok(Self {
            number,
            guest: guest.clone(),
            config,
            image,
            in_flight,
            strikes,
            again: BTreeSet::new(),
            queues: Vec::new(),
            state: State::Idle,
            tasks: Tasks::default(),
            parked: Vec::new(),
            barrier: None,
            is_growing: false,
            counters: Counters::default(),
            last_line: None,
        })
    }

    /// What it offers.
    pub fn features(&self) -> Nodes {
        nodes::features(&self.config, &self.image.geometry())
    }

    /// Begins to serve a frontend, or goes on where a process before this one stopped.
    ///
    /// # Errors
    /// A sentence on what is wrong with the frontend; nothing is served then.
    pub fn connect(&mut self, frontend: &Nodes, engine: &mut Engine) -> Result<Nodes, String> {
        if self.state != State::Idle {
            return Err("the disk still serves a frontend".into());
        }
        let frontend = Frontend::parse(frontend)?;
        let persistent = frontend.persistent && self.config.persistent;
        let mut queues = Vec::new();
        let mut left = Vec::new();
        for (index, ring) in frontend.rings.iter().enumerate() {
            let place = (&self.in_flight, index);
            let (queue, requests) = Queue::open(&self.guest, ring, place, persistent)
                .map_err(|error| format!("queue {index}: {error}"))?;
            left.extend(requests.into_iter().map(|request| (index, request)));
            queues.push(queue);
        }
        self.queues = queues;
        self.state = State::Serving;
        self.again = left.iter().map(|(queue, (slot, _))| (*queue, *slot)).collect();
        for (queue, request) in left {
            self.begin(queue, request, engine);
        }
        self.forgive();
        self.queues.iter().for_each(Queue::notify);
        Ok(nodes::properties(&self.config, &self.image.geometry()))
    }

    /// Forgets the rings; `report` follows when that is done.
    pub fn end(&mut self, report: Report) {
        if let State::Ending(reports) = &mut self.state {
            reports.push(report);
        } else {
            self.state = State::Ending(vec![report]);
        }
        self.in_flight.forget();
        self.again.clear();
        // What waits for room waits in vain.
        for key in std::mem::take(&mut self.parked) {
            self.tasks.remove(key);
        }
        // A barrier that has not begun holds nothing up any more.
        if let Some(key) = self.barrier.take()
            && self.tasks.release(key)
        {
            self.tasks.remove(key);
        }
    }

    /// Reports of an end that has come: the rings are forgotten.
    pub fn ended(&mut self) -> Vec<Report> {
        let is_busy = self.is_growing || !self.tasks.is_empty();
        if !matches!(self.state, State::Ending(_)) || is_busy {
            return Vec::new();
        }
        self.queues.clear();
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Ending(reports) => reports,
            State::Idle | State::Serving => Vec::new(),
        }
    }

    /// Looks at the image's size again; the nodes that changed.
    ///
    /// # Errors
    /// When the host does not tell it.
    pub fn refresh(&mut self) -> io::Result<Option<Nodes>> {
        let before = self.image.geometry();
        self.image.refresh()?;
        let now = self.image.geometry();
        Ok((now.bytes != before.bytes).then(|| nodes::size(&now)))
    }

    /// Makes the image longer; the report comes at once or with [`Self::complete`].
    pub fn grow(&mut self, bytes: u64, engine: &mut Engine) -> Option<Report> {
        if self.is_growing {
            return Some(self.resized(Err("it is being made longer already".into())));
        }
        if !self.config.writable || self.config.shared {
            return Some(self.resized(Err("it is not the guest's alone".into())));
        }
        self.is_growing = true;
        engine.push(Job {
            key: self.job_key(GROWTH),
            image: self.image.clone(),
            operation: Operation::Grow { bytes },
            offset: 0,
            buffers: Buffers::default(),
            done: 0,
        });
        None
    }

    fn resized(&self, result: Result<Nodes, String>) -> Report {
        Report::Resized { device: self.number, result }
    }

    /// The image is longer now, or not.
    fn grown(&mut self, result: io::Result<()>) -> Report {
        self.is_growing = false;
        let size = result.map(|()| nodes::size(&self.image.geometry()));
        self.resized(size.map_err(|error| error.to_string()))
    }

    fn job_key(&self, task: u32) -> u64 {
        u64::from(self.number) << 32 | u64::from(task)
    }

    /// True if the guest's requests are to be taken now.
    fn takes(&self) -> bool {
        self.state == State::Serving && self.barrier.is_none()
    }

    /// Takes requests that wait, and begins them: all, or as many as are answered together. Says
    /// whether there were any.
    ///
    /// # Errors
    /// When the frontend broke a rule.
    pub fn take(&mut self, engine: &mut Engine) -> Result<bool, QueueError> {
        let mut any = false;
        let before = self.counters.sectors();
        for index in 0..self.queues.len() {
            // A ring full at most: the guest may refill it as fast as we empty it.
            while self.takes() {
                let Some(queue) = self.queues.get_mut(index) else { break };
                let Some(request) = queue.take()? else { break };
                any = true;
                self.begin(index, request, engine);
                if self.counters.sectors() - before >= ANSWERED_TOGETHER {
                    return Ok(true);
                }
            }
        }
        Ok(any)
    }

    /// True if a request waits that can be taken.
    ///
    /// # Errors
    /// When the frontend broke a rule.
    pub fn has_work(&self) -> Result<bool, QueueError> {
        let mut any = false;
        for queue in self.queues.iter().filter(|_| self.takes()) {
            any |= queue.has_work()?;
        }
        Ok(any)
    }

    /// Asks the guest to notify us of requests; true if one came meanwhile.
    ///
    /// # Errors
    /// When the frontend broke a rule.
    pub fn rest(&mut self) -> Result<bool, QueueError> {
        let mut any = false;
        if self.takes() {
            for queue in &mut self.queues {
                any |= queue.rest()?;
            }
        }
        Ok(any)
    }

    /// Shows the guest what was answered.
    pub fn publish(&mut self) {
        if self.state == State::Serving {
            self.queues.iter_mut().for_each(Queue::publish);
        }
    }

    fn limits(&self) -> Limits {
        let BlockConfig { writable, discard, .. } = self.config;
        Limits { geometry: self.geometry(), writable, discard }
    }

    fn geometry(&self) -> Geometry {
        self.image.geometry()
    }

    fn begin(&mut self, index: usize, (slot, entry): Left, engine: &mut Engine) {
        let limits = self.limits();
        let Some(queue) = self.queues.get_mut(index) else { return };
        let tag = Tag::parse(&entry);
        match prepare(&self.guest, (index, queue), slot, (tag, &entry), &limits) {
            Ok(task) => {
                let is_barrier = task.is_barrier;
                let key = self.tasks.insert(task);
                if is_barrier && self.barrier.is_none() {
                    self.barrier = Some(key);
                }
                // A second barrier can only be one that a process before this one left: it goes the
                // way of a write between flushes, as nothing behind it was begun.
                if self.barrier == Some(key) && self.tasks.len() > 1 {
                    self.tasks.hold(key);
                } else {
                    self.advance(key, engine);
                }
            }
            Err(status) => {
                self.counters.errors += 1;
                self.respond(index, slot, tag, status);
            }
        }
    }

    /// Once all is done that a process before this one left, nothing of it was its end.
    fn forgive(&mut self) {
        if self.again.is_empty() {
            self.strikes.forgive();
        }
    }

    /// The image made backends die, and is not touched any more.
    pub fn is_condemned(&self) -> bool {
        matches!(self.image, Image::Condemned(_))
    }

    fn respond(&mut self, queue: usize, slot: Slot, tag: Tag, status: Status) {
        if self.again.remove(&(queue, slot)) {
            self.forgive();
        }
        if self.state == State::Serving
            && let Some(queue) = self.queues.get_mut(queue)
        {
            queue.respond(slot, tag, status);
        }
    }

    /// Does the steps of a task that can be done now, and has the engine do the next.
    fn advance(&mut self, key: u32, engine: &mut Engine) {
        while let Some(task) = self.tasks.get(key) {
            let Some(operation) = task.operation() else {
                self.finish(key, Status::Okay);
                return;
            };
            let done = match &self.image {
                Image::Raw(image) => image.try_now(operation, task.offset(), task.buffers()),
                Image::Qcow2(_) | Image::Condemned(_) => 0,
            };
            let moves = matches!(operation, Operation::Read | Operation::Write);
            if moves && done == task.buffers().len() {
                self.count(operation, task_bytes(self.tasks.get(key)));
                if let Some(task) = self.tasks.get_mut(key) {
                    task.stepped();
                }
                continue;
            }
            let job_key = self.job_key(key);
            let Some(task) = self.tasks.get_mut(key) else { return };
            let job = Job {
                key: job_key,
                image: self.image.clone(),
                operation,
                offset: task.offset(),
                buffers: task.lend(),
                done,
            };
            engine.push(job);
            return;
        }
    }

    fn count(&mut self, operation: Operation, bytes: u64) {
        let counters = &mut self.counters;
        let sectors = bytes / super::protocol::SECTOR;
        match operation {
            Operation::Read => {
                counters.reads += 1;
                counters.sectors_read += sectors;
            }
            Operation::Write => {
                counters.writes += 1;
                counters.sectors_written += sectors;
            }
            Operation::Flush => counters.flushes += 1,
            Operation::Discard { .. } => counters.discards += 1,
            Operation::Grow { .. } => {}
        }
    }

    /// The engine has done a job. A report follows when the host has become full by it.
    pub fn complete(&mut self, done: Done, engine: &mut Engine) -> Option<Report> {
        let key = done.key as u32;
        if key == GROWTH {
            return Some(self.grown(done.result));
        }
        let task = self.tasks.get_mut(key)?;
        task.give_back(done.buffers);
        let (operation, bytes) = (task.operation()?, task.bytes());
        match done.result {
            Ok(()) => {
                self.count(operation, bytes);
                self.tasks.get_mut(key)?.stepped();
                self.advance(key, engine);
                None
            }
            Err(error) if is_full(&error) && self.state == State::Serving => {
                let is_first = self.parked.is_empty();
                self.parked.push(key);
                let why = format!("a write to the disk's image failed: {error}");
                is_first.then_some(Report::Full { device: self.number, why })
            }
            Err(error) => {
                let is_discard = matches!(operation, Operation::Discard { .. });
                let is_unknown = error.raw_os_error() == Some(libc::EOPNOTSUPP)
                    || error.kind() == io::ErrorKind::Unsupported;
                let status =
                    if is_discard && is_unknown { Status::Unsupported } else { Status::Error };
                self.counters.errors += 1;
                self.finish(key, status);
                self.line(&format!("{operation:?} failed: {error}"))
            }
        }
    }

    /// A line for the log, unless there was one just now.
    fn line(&mut self, what: &str) -> Option<Report> {
        let now = Instant::now();
        if self.last_line.is_some_and(|last| now - last < BETWEEN_LINES) {
            return None;
        }
        self.last_line = Some(now);
        Some(Report::Log {
            level: LogLevel::Warning,
            line: format!("disk {}: {what}", self.number),
        })
    }

    fn finish(&mut self, key: u32, status: Status) {
        let Some(task) = self.tasks.remove(key) else { return };
        if self.barrier == Some(key) {
            self.barrier = None;
        }
        let (queue, slot, tag) = (task.queue, task.slot, task.tag);
        // Grants are given up before the guest hears of it.
        drop(task);
        self.respond(queue, slot, tag, status);
    }

    /// Begins the barrier that waited for all other tasks, if it can.
    pub fn begin_barrier(&mut self, engine: &mut Engine) {
        if let Some(key) = self.barrier
            && self.tasks.len() == 1
            && self.tasks.release(key)
        {
            self.advance(key, engine);
        }
    }

    /// Tries again what failed for want of room.
    pub fn retry(&mut self, engine: &mut Engine) {
        for key in std::mem::take(&mut self.parked) {
            self.advance(key, engine);
        }
    }

    /// Its counters.
    pub fn statistics(&self) -> BTreeMap<String, u64> {
        let Counters { reads, writes, flushes, discards, sectors_read, sectors_written, errors } =
            self.counters;
        let list = [
            ("reads", reads),
            ("writes", writes),
            ("flushes", flushes),
            ("discards", discards),
            ("sectors-read", sectors_read),
            ("sectors-written", sectors_written),
            ("errors", errors),
            ("open", self.tasks.len() as u64),
        ];
        list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn task_bytes(task: Option<&Task>) -> u64 {
    task.map_or(0, Task::bytes)
}

fn prepare(
    guest: &Arc<Guest>,
    queue: (usize, &mut Queue),
    slot: Slot,
    (tag, entry): (Tag, &[u8; ENTRY]),
    limits: &Limits,
) -> Result<Task, Status> {
    let request = Request::parse(entry)?;
    Task::new(guest, queue, slot, (tag, request), limits)
}
