//! Threads that do jobs one by one.

use super::{Done, Job};
use crate::guest::event_counter;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, PoisonError};

/// How many. They wait for disks rather than compute.
const THREADS: usize = 4;
/// Bytes of a thread's stack: qcow2 images are looked through recursively.
const STACK: usize = 1 << 20;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    done: Vec<Done>,
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            let Job { key, image, operation, offset, buffers, .. } = job;
            // From its beginning: what was moved already is moved again.
            let result = image.run(operation, offset, &buffers);
            // The image may have been detached meanwhile: it is closed before anybody is told.
            drop(image);
            // The bell is rung and cleared under the lock: else it could ring for what was taken.
            let mut state = self.lock();
            state.done.push(Done { key, buffers, result });
            if state.done.len() == 1 {
                let _full_is_enough = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
            }
        }
    }
}

/// The threads.
#[derive(Debug)]
pub struct Workers(Arc<Shared>);

impl Workers {
    pub fn new() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            bell: event_counter()?,
        });
        let workers = Self(shared);
        // A thread makes system calls as it starts that the jail has no place for.
        let started = Arc::new(Barrier::new(THREADS + 1));
        for _ in 0..THREADS {
            let (shared, started) = (workers.0.clone(), started.clone());
            let thread = std::thread::Builder::new().name("disk".into()).stack_size(STACK);
            thread.spawn(move || {
                started.wait();
                shared.work();
            })?;
        }
        started.wait();
        Ok(workers)
    }

    pub fn push(&mut self, job: Job) {
        self.0.lock().jobs.push_back(job);
        self.0.work.notify_one();
    }

    pub fn take_done(&mut self, done: &mut Vec<Done>) {
        let mut state = self.0.lock();
        if !state.done.is_empty() {
            done.append(&mut state.done);
            let mut count = [0; 8];
            let _was_clear = rustix::io::read(&self.0.bell, &mut count);
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.work.notify_all();
    }
}
