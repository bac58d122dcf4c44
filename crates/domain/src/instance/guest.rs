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
        if bits == 0 {
            return;
        }
        let page = DomainPageView::new(&self.memory.arena);
        page.post(bits);
        self.interrupt();
    }

    /// Has the spaces look at their inbox, if the guest runs.
    pub fn interrupt(&mut self) {
        let page = DomainPageView::new(&self.memory.arena);
        if page.vcpu_state() == vcpu_state::RUNNING {
            self.group.interrupt(page.active_pid());
            if self.memory.isolation != Isolation::Keys {
                // Either the runner runs the guest, or the first space does.
                self.group.interrupt_leader();
            }
        }
    }

    /// Reaps dead spaces; says what is wrong if one did not end as it should or
    /// none is left. A space that ends itself with status 0 was recycled.
    pub fn reap(&mut self) -> Option<String> {
        let mut wrong = None;
        while let Some(death) = self.group.reap() {
            if death != Death::Exit(0) {
                wrong = wrong.or(Some(death.to_string()));
            }
        }
        wrong.or_else(|| self.group.is_empty().then(|| "all spaces are gone".to_owned()))
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
