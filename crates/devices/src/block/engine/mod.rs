//! Who does the waiting: io_uring where the host lets us have it, threads for the rest.

mod uring;
mod workers;

use super::buffers::Buffers;
use super::image::{Image, Operation};
use std::io;
use std::os::fd::BorrowedFd;
use uring::Uring;
use workers::Workers;

/// Something to be done.
#[derive(Debug)]
pub struct Job {
    /// Whose it is.
    pub key: u64,
    /// On which image.
    pub image: Image,
    /// What.
    pub operation: Operation,
    /// Where, in bytes.
    pub offset: u64,
    /// With which memory.
    pub buffers: Buffers,
    /// Bytes that were moved already.
    pub done: usize,
}

/// Something that was done.
#[derive(Debug)]
pub struct Done {
    /// Whose it is.
    pub key: u64,
    /// The memory, back.
    pub buffers: Buffers,
    /// How it went.
    pub result: io::Result<()>,
}

/// Does jobs, in any order.
#[derive(Debug)]
pub struct Engine {
    uring: Option<Uring>,
    workers: Workers,
}

/// Which means may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// io_uring if the host has it.
    Best,
    /// Threads alone.
    Threads,
}

impl Engine {
    /// Starts what does the work: before the process gives up its rights.
    ///
    /// # Errors
    /// When the host gives not even threads.
    pub fn new(means: Means) -> io::Result<Self> {
        let uring = match means {
            // Without it (kernel.io_uring_disabled, a container's filter, an old kernel) all goes on,
            // with more waking of threads.
            Means::Best => Uring::new().ok(),
            Means::Threads => None,
        };
        Ok(Self { uring, workers: Workers::new()? })
    }

    /// Its means, for the log.
    pub fn name(&self) -> &'static str {
        if self.uring.is_some() { "io_uring" } else { "threads" }
    }

    /// Hands in a job. It may begin only at [`Self::submit`].
    pub fn push(&mut self, job: Job) {
        match &mut self.uring {
            Some(uring) if Uring::can_do(&job) => uring.push(job),
            _ => self.workers.push(job),
        }
    }

    /// Begins what was handed in.
    pub fn submit(&mut self) {
        if let Some(uring) = &mut self.uring {
            uring.submit();
        }
    }

    /// True if not all of it has begun: then it is to be handed in again.
    pub fn has_unsubmitted(&self) -> bool {
        self.uring.as_ref().is_some_and(Uring::has_unsubmitted)
    }

    /// What is done by now.
    pub fn take_done(&mut self, done: &mut Vec<Done>) {
        if let Some(uring) = &mut self.uring {
            uring.take_done(done);
        }
        self.workers.take_done(done);
    }

    /// Descriptors that can be read when something is done.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let uring = self.uring.as_ref().map(Uring::fd);
        uring.into_iter().chain([self.workers.fd()])
    }
}
