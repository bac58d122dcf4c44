//! Which runner holds which address space.

use core::sync::atomic::Ordering;

use super::{
    gone::is_born,
    mailbox::{self, Event, request},
    process::NURSERY,
    reach::{Noted, Windows},
    turn::{Turns, ticks},
};
use crate::{
    direct,
    space::{FREE, MOST, Space},
    state::{Monitor, page},
};

/// So many runners are made before those of dead programs are used again at once.
const FEW: usize = 6;

/// The runners of a domain. `Spaces::all` holds what each has mapped, by its
/// number; number 0 there is the space itself, and here the nursery.
pub struct Pool {
    /// The one whose address space the guest uses or used last; 0 = none yet.
    pub loaded: usize,
    /// The one in whose registers the guest's vector state is.
    pub has_state: Option<usize>,
    /// Pairs of frames shown side by side.
    pub windows: Windows,
    /// What is in the tables of user memory.
    pub noted: Noted,
    /// Process id of the nursery.
    pub nursery: u32,
    /// The one that had the last turn.
    pub last: usize,
    /// The host refused a mapping since a program ran last.
    pub refused: bool,
    /// How long the space's turns take.
    pub ours: Turns,
    /// How long the runners' turns take.
    pub theirs: Turns,
    /// TSC at which the space's turn began.
    pub since: u64,
    /// Counts loads, for the choice of the least recently used.
    pub loads: u64,
}

impl Pool {
    /// No runner yet.
    pub fn new() -> Pool {
        Pool {
            loaded: 0,
            has_state: None,
            nursery: 0,
            last: NURSERY,
            windows: Windows::default(),
            noted: Noted::default(),
            refused: false,
            ours: Turns::new(),
            theirs: Turns::new(),
            since: 0,
            loads: 0,
        }
    }
}

impl Monitor {
    /// Loads the runner for the guest's current base pointer, making one if need be.
    pub fn load_runner(&mut self) {
        let wanted = self.vcpu.kernel_root;
        let clean = |s: &Space| s.root == FREE && !s.stale;
        let target = self
            .runner_with(|s| s.root == wanted)
            .or_else(|| self.runner_with(clean))
            .or_else(|| self.more_runners())
            .or_else(|| self.runner_with(|s| s.root == FREE))
            .unwrap_or_else(|| self.new_runner());
        if self.ended {
            return;
        }
        let space = self.spaces.of_mut(target);
        if space.root != wanted {
            space.stale |= space.root != FREE;
            space.lost = false;
            // Number 0 is what it is made with.
            space.used_before = space.used != 0;
            space.root = wanted;
        }
        self.runners.loads += 1;
        space.used = self.runners.loads;
        if self.runners.loaded != target {
            self.stats.switches += 1;
            self.runners.loaded = target;
            self.announce_runner();
        }
        self.catch_up_user();
    }

    fn runner_with(&self, is: impl Fn(&Space) -> bool) -> Option<usize> {
        self.spaces.all.iter().skip(1).position(is).map(|i| i + 1)
    }

    /// Another runner, while there are few: a new one is ready sooner than one
    /// that has to unmap all of a dead program.
    fn more_runners(&mut self) -> Option<usize> {
        let number = self.spaces.all.len();
        (number <= FEW && self.bear(number)).then_some(number)
    }

    /// The guest idles: time for runners of dead programs to unmap them.
    pub fn clean_runners(&mut self) {
        while let Some(runner) = self.runner_with(|s| s.root == FREE && s.stale) {
            self.clean_runner(runner);
        }
    }

    /// A new runner's number, or the least recently used one's.
    fn new_runner(&mut self) -> usize {
        let number = self.spaces.all.len();
        if number <= MOST && self.bear(number) {
            return number;
        }
        let oldest = self.spaces.all.iter().enumerate().skip(1).min_by_key(|(_, s)| s.used);
        match oldest {
            Some((i, _)) => i,
            None => {
                crate::crash::end(self, "the host gave no process to run guest programs in");
                0
            }
        }
    }

    /// Has the nursery make runner `number`.
    fn bear(&mut self, number: usize) -> bool {
        if number == self.spaces.all.len() {
            self.spaces.all.push(Space::new(FREE));
        }
        let born = self.start_runner(number);
        if born {
            page().spaces.store(self.spaces.all.len() as u32 + 1, Ordering::Relaxed);
        } else {
            self.spaces.all.truncate(number);
        }
        born
    }

    /// Has the nursery make the process of runner `number`.
    pub(super) fn start_runner(&mut self, number: usize) -> bool {
        mailbox::orders_of(NURSERY).argument = number as u32;
        direct::Tables::of_runner(number).init(self.sites.count());
        let Some(answer) = self.try_turn(NURSERY, request::BEAR, ticks()) else {
            crate::crash::end(self, "the process that makes runners is gone");
            return false;
        };
        if answer != Event::Done {
            return false;
        }
        self.stats.clones += 1;
        // Its first turn shows that it is there, with its process id; no program ran in it yet.
        if self.try_turn(number, request::MAP, ticks()).is_none() {
            crate::crash::end(self, "a new process to run guest programs in does not answer");
            return false;
        }
        let pid = mailbox::of(number).pid.load(Ordering::Acquire).max(0) as u32;
        is_born(pid);
        self.spaces.of_mut(number).pid = pid;
        true
    }
}
