//! The running part of a domain: memory, spaces, rings.

use crate::isolation::Isolation;
use crate::space::{
    CpuTime, Death, DomainMemory, DomainPageView, Doorbell, Group, Ring, RingReader,
};
use crate::xenstore::GuestStore;
use boundary::{inbox, vcpu_state};
use std::sync::Arc;

/// Longest part of a line that the monitor's log may leave unfinished, in bytes.
const LONGEST_LINE: usize = 1024;

/// The running part of a domain. Dropping it kills its spaces and frees its memory.
pub struct Guest {
    /// The spaces; the first to be dropped.
    pub group: Group,
    /// Wakes the main loop.
    pub doorbell: Doorbell,
    /// What is shared with the spaces.
    pub memory: Arc<DomainMemory>,
    /// The guest's xenstore.
    pub store: GuestStore,
    /// CPU time.
    pub time: CpuTime,
    rings: Rings,
}

struct Rings {
    emergency: RingReader,
    log: RingReader,
    unfinished: Vec<u8>,
}

impl Guest {
    /// Puts the parts of a started guest together.
    pub fn new(
        group: Group,
        doorbell: Doorbell,
        memory: Arc<DomainMemory>,
        store: GuestStore,
        time: CpuTime,
    ) -> Self {
        let rings = Rings {
            emergency: RingReader::new(Ring::Emergency),
            log: RingReader::new(Ring::Log),
            unfinished: Vec::new(),
        };
        Self { group, doorbell, memory, store, time, rings }
    }

    /// The domain page.
    pub fn page(&self) -> DomainPageView<'_> {
        DomainPageView::new(&self.memory.arena)
    }

    /// Raises the guest's event channels.
    pub fn notify(&mut self, console: bool, store: bool) {
        let mut bits = 0;
        if console {
            bits |= inbox::CONSOLE;
        }
        if store {
            bits |= inbox::STORE;
        }
        if bits != 0 {
            self.post(bits);
        }
    }

    /// Has the monitor look at the backends' channels. One that ended after it had noted that there is
    /// something, and before it woke anybody, would keep the others from doing so for ever.
    pub fn notify_channels(&mut self) {
        self.post(inbox::CHANNELS);
    }

    fn post(&mut self, bits: u32) {
        let page = DomainPageView::new(&self.memory.arena);
        page.post(bits);
        self.interrupt();
    }

    /// Has the spaces look at their inbox, if the guest runs.
    pub fn interrupt(&mut self) {
        let page = DomainPageView::new(&self.memory.arena);
        if page.vcpu_state() == vcpu_state::RUNNING {
            self.group.interrupt(page.active_pid());
            if self.has_runners() {
                // Either the runner runs the guest, or the first space does.
                self.group.interrupt_leader();
            }
        }
    }

    /// Reaps dead spaces; says what is wrong if one did not end as it should or
    /// none is left. A space that ends itself with status 0 was recycled. A dead runner
    /// is its program's loss alone.
    pub fn reap(&mut self) -> Option<String> {
        let (mut wrong, mut runners) = (None, false);
        while let Some((pid, death)) = self.group.reap() {
            if self.has_runners() && pid != self.group.leader() && self.has_nursery() {
                runners = true;
            } else if death != Death::Exit(0) {
                wrong = wrong.or(Some(death.to_string()));
            }
        }
        if runners {
            let page = DomainPageView::new(&self.memory.arena);
            self.tell_if_gone(page.active_pid());
        }
        wrong.or_else(|| self.group.is_empty().then(|| "all spaces are gone".to_owned()))
    }

    /// Whether programs run in processes of their own.
    fn has_runners(&self) -> bool {
        self.memory.isolation != Isolation::Keys
    }

    fn has_nursery(&mut self) -> bool {
        let page = DomainPageView::new(&self.memory.arena);
        self.group.has_child(page.nursery())
    }

    /// The first space waits for a runner in vain: interrupts it, or kills it.
    pub fn attend_runner(&mut self, kill: bool) {
        if !self.has_runners() {
            return;
        }
        let claimed = DomainPageView::new(&self.memory.arena).runner();
        let _told_below = if kill {
            self.group.kill_runner(claimed)
        } else {
            self.group.interrupt_runner(claimed)
        };
        self.tell_if_gone(claimed);
    }

    /// Tells the first space if a runner is no more.
    fn tell_if_gone(&mut self, claimed: i32) {
        if !self.group.has_child(claimed) {
            DomainPageView::new(&self.memory.arena).runner_is_gone(claimed);
            self.group.interrupt_leader();
        }
    }

    /// What was printed on the emergency console.
    pub fn take_emergency(&mut self) -> Vec<u8> {
        self.rings.emergency.take(DomainPageView::new(&self.memory.arena))
    }

    /// Whole lines of the monitor's log.
    pub fn take_log(&mut self) -> Vec<String> {
        let rings = &mut self.rings;
        rings.unfinished.extend(rings.log.take(DomainPageView::new(&self.memory.arena)));
        let mut lines: Vec<String> = Vec::new();
        while let Some(end) = rings.unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rings.unfinished.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if rings.unfinished.len() > LONGEST_LINE {
            let line = std::mem::take(&mut rings.unfinished);
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        lines
    }

    /// Memory that the guest has, in pages, by its own account.
    pub fn pages(&self) -> u64 {
        let setup = &self.memory.setup;
        setup.max_pages.saturating_sub(self.page().ballooned())
    }
}
