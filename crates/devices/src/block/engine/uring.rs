//! Jobs on raw images by io_uring(7).
//!
//! The kernel does what is handed in under no seccomp filter of ours, so the ring itself is told
//! which operations it may do, before it does any.

use super::{Done, Job};
use crate::block::image::{Image, Operation};
use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Jobs that the kernel has at a time; more wait here.
const DEPTH: u32 = 256;
/// `FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE`.
const PUNCH_HOLE: i32 = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;

pub struct Uring {
    ring: IoUring,
    slots: Vec<Slot>,
    free: Vec<usize>,
    waiting: VecDeque<Job>,
    unsubmitted: usize,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Uring({} free, {} waiting)", self.free.len(), self.waiting.len())
    }
}

/// A job that the kernel has, with the addresses that it reads.
#[derive(Default)]
struct Slot {
    job: Option<Job>,
    pieces: Vec<libc::iovec>,
}

// SAFETY: the pieces are those of the job's buffers, of which the same holds.
unsafe impl Send for Slot {}

impl Uring {
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder().dontfork().setup_r_disabled().build(DEPTH)?;
        let allowed = [
            opcode::Readv::CODE,
            opcode::Writev::CODE,
            opcode::Fsync::CODE,
            opcode::Fallocate::CODE,
        ];
        let mut rules = allowed.map(Restriction::sqe_op);
        ring.submitter().register_restrictions(&mut rules)?;
        ring.submitter().register_enable_rings()?;
        let slots = (0..DEPTH).map(|_| Slot::default()).collect();
        let free = (0..DEPTH as usize).collect();
        Ok(Self { ring, slots, free, waiting: VecDeque::new(), unsubmitted: 0 })
    }

    pub fn can_do(job: &Job) -> bool {
        match &job.image {
            // Devices are discarded by another call than files.
            Image::Raw(image) => match job.operation {
                Operation::Read | Operation::Write | Operation::Flush => true,
                Operation::Discard { .. } => !image.is_device(),
                Operation::Grow { .. } => false,
            },
            Image::Qcow2(_) | Image::Condemned(_) => false,
        }
    }

    pub fn push(&mut self, job: Job) {
        match self.free.pop() {
            Some(slot) => self.start(slot, job),
            None => self.waiting.push_back(job),
        }
    }

    fn start(&mut self, index: usize, job: Job) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.pieces = job.buffers.rest(job.done);
        let Image::Raw(image) = &job.image else { return };
        let fd = types::Fd(image.raw_fd());
        let (pieces, count) = (slot.pieces.as_ptr(), slot.pieces.len() as u32);
        let offset = job.offset.saturating_add(job.done as u64);
        let entry = match job.operation {
            Operation::Read => opcode::Readv::new(fd, pieces, count).offset(offset).build(),
            Operation::Write => opcode::Writev::new(fd, pieces, count).offset(offset).build(),
            Operation::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            Operation::Discard { bytes } => {
                opcode::Fallocate::new(fd, bytes).offset(offset).mode(PUNCH_HOLE).build()
            }
            // For others: see `can_do`.
            Operation::Grow { .. } => return,
        };
        slot.job = Some(job);
        self.enter(&entry.user_data(index as u64));
    }

    fn enter(&mut self, entry: &squeue::Entry) {
        // SAFETY: what the entry points to stays in its slot until the kernel is done with it: the
        // pieces, the memory that they name (kept by the job's buffers) and the descriptor (kept by
        // its image).
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit();
        }
        self.unsubmitted += 1;
    }

    pub fn submit(&mut self) {
        if self.unsubmitted == 0 {
            return;
        }
        // An interrupted or busy kernel takes them at the next call.
        if self.ring.submit().is_ok() {
            self.unsubmitted = self.ring.submission().len();
        }
    }

    /// True if the kernel has not taken all that it was given: it had no memory, say.
    pub fn has_unsubmitted(&self) -> bool {
        self.unsubmitted > 0
    }

    pub fn take_done(&mut self, done: &mut Vec<Done>) {
        loop {
            let Some(entry) = self.ring.completion().next() else { break };
            let index = entry.user_data() as usize;
            let Some(job) = self.slots.get_mut(index).and_then(|slot| slot.job.take()) else {
                continue;
            };
            match outcome(&job, entry.result()) {
                Outcome::Again(moved) => {
                    let again = Job { done: job.done + moved, ..job };
                    self.start(index, again);
                }
                Outcome::Over(result) => {
                    done.push(Done { key: job.key, buffers: job.buffers, result });
                    self.free.push(index);
                }
            }
        }
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop() else { break };
            if let Some(job) = self.waiting.pop_front() {
                self.start(index, job);
            }
        }
        self.submit();
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

enum Outcome {
    /// So many bytes were moved, and there are more.
    Again(usize),
    Over(io::Result<()>),
}

fn outcome(job: &Job, result: i32) -> Outcome {
    let Ok(moved) = usize::try_from(result) else {
        let error = io::Error::from_raw_os_error(-result);
        return match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Outcome::Again(0),
            _ => Outcome::Over(Err(error)),
        };
    };
    let moves = matches!(job.operation, Operation::Read | Operation::Write);
    if !moves || job.done + moved >= job.buffers.len() {
        Outcome::Over(Ok(()))
    } else if moved == 0 {
        Outcome::Over(Err(io::ErrorKind::UnexpectedEof.into()))
    } else {
        Outcome::Again(moved)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may still write to the buffers: they are given back only when it is done.
        while self.slots.iter().any(|slot| slot.job.is_some()) {
            if self.ring.submit_and_wait(1).is_err() {
                std::thread::yield_now();
            }
            let mut done = Vec::new();
            self.waiting.clear();
            self.take_done(&mut done);
        }
    }
}
