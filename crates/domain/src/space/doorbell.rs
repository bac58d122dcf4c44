//! The thread that waits for spaces to ring and wakes the main loop.

use super::memory::DomainMemory;
use super::page::DomainPageView;
use rustix::event::EventfdFlags;
use rustix::thread::futex;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Turns rings of the domain page's bell into a readable descriptor.
#[derive(Debug)]
pub struct Doorbell {
    event: Arc<OwnedFd>,
    memory: Arc<DomainMemory>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Doorbell {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the host has no descriptor or thread left.
    pub fn new(memory: &Arc<DomainMemory>) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = Arc::new(rustix::event::eventfd(0, flags)?);
        let end = Arc::new(AtomicBool::new(false));
        let thread = {
            let (event, memory, end) = (event.clone(), memory.clone(), end.clone());
            std::thread::Builder::new()
                .name("doorbell".into())
                .spawn(move || listen(&memory, &event, &end))?
        };
        Ok(Self { event, memory: memory.clone(), end, thread: Some(thread) })
    }

    /// Forgets the rings so far; the descriptor is not readable until the next one.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _was_clear = rustix::io::read(&*self.event, &mut count);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.event).as_fd()
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let doorbell = DomainPageView::new(&self.memory.arena).doorbell();
        doorbell.fetch_add(1, Ordering::SeqCst);
        let _woken = futex::wake(doorbell, futex::Flags::empty(), u32::MAX >> 1);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn listen(memory: &DomainMemory, event: &OwnedFd, end: &AtomicBool) {
    let doorbell = DomainPageView::new(&memory.arena).doorbell();
    let mut seen = 0;
    while !end.load(Ordering::SeqCst) {
        let now = doorbell.load(Ordering::SeqCst);
        if now == seen {
            // Returns at once if the word changed; a signal or a hostile wake-up only costs a look.
            let _why = futex::wait(doorbell, futex::Flags::empty(), seen, None);
            continue;
        }
        seen = now;
        let _full_is_enough = rustix::io::write(event, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{Built, TimeScale};
    use crate::sys::memory::PrivateMemory;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn rings_arrive_and_the_thread_ends() {
        let ram = PrivateMemory::new(c"ram", 4096, 4096).unwrap().share();
        let built = Built { ram, setup: boundary::Setup::default() };
        let memory = Arc::new(DomainMemory::new(built, TimeScale { mul: 1, shift: 0 }, 0).unwrap());
        let bell = Doorbell::new(&memory).unwrap();
        let rung = |wait| {
            let time = rustix::time::Timespec { tv_sec: wait, tv_nsec: 20_000_000 };
            poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&time)).unwrap() == 1
        };
        assert!(!rung(0));
        let doorbell = DomainPageView::new(&memory.arena).doorbell();
        doorbell.fetch_add(1, Ordering::SeqCst);
        futex::wake(doorbell, futex::Flags::empty(), 1).unwrap();
        assert!(rung(5));
        bell.clear();
        assert!(!rung(0));
    }
}
