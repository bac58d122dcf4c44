//! The console backend: drains the guest's output always, whether anybody looks
//! or not, and passes on what the writing client types.

mod history;
mod ring;

pub use history::History;
pub use ring::{ConsoleRing, Output};

use crate::sys::memory::SharedMemory;
use std::collections::VecDeque;

/// Input that waits for room in the ring, in bytes; then the writer has to wait.
const MOST_INPUT: usize = 4096;

/// The console of a domain.
#[derive(Debug)]
pub struct Console {
    ring: ConsoleRing,
    history: History,
    input: VecDeque<u8>,
}

impl Console {
    /// The console whose ring is frame `mfn`.
    pub fn new(mfn: u64) -> Self {
        Self { ring: ConsoleRing::new(mfn), history: History::default(), input: VecDeque::new() }
    }

    /// What was printed.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Adds output that came another way (the emergency console).
    pub fn print(&mut self, bytes: &[u8]) {
        self.history.push(bytes);
    }

    /// Room for input in bytes.
    pub fn room(&self) -> usize {
        MOST_INPUT.saturating_sub(self.input.len())
    }

    /// Takes input; what goes beyond [`Console::room`] is dropped.
    pub fn type_in(&mut self, bytes: &[u8]) {
        self.input.extend(bytes.iter().take(self.room()));
    }

    /// Moves what can be moved; returns whether the guest is to be notified.
    pub fn pump(&mut self, ram: &SharedMemory) -> bool {
        let Output { bytes, mut notify } = self.ring.take_output(ram);
        self.history.push(&bytes);
        if !self.input.is_empty() {
            let count = self.ring.put_input(ram, self.input.make_contiguous());
            self.input.drain(..count.min(self.input.len()));
            notify |= count > 0;
        }
        notify
    }
}
