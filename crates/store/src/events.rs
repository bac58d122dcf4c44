//! The queue of events that a client has not taken yet.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::watch::{Watch, WatchEvent};
use crate::wire::MAX_PAYLOAD;

/// Bytes of paths and tokens that may wait for one client before its watches report only
/// themselves.
const MOST_BYTES: usize = 4 << 20;

struct Pending {
    watch: u64,
    /// Number of the change that caused it.
    change: u64,
    event: WatchEvent,
}

/// Events of one client, in order, each at most once while it waits.
#[derive(Default)]
pub(crate) struct EventQueue {
    pending: VecDeque<Pending>,
    known: HashSet<(u64, Arc<str>)>,
    bytes: usize,
}

impl EventQueue {
    /// Adds an event of change number `change`. An event that still waits is not added again: it
    /// says the same.
    ///
    /// When `limit` events wait, or too many bytes, or the event would not fit a message, the watch
    /// reports its own path instead, which is again added only once. So no more than `limit` events
    /// plus one for each watch ever wait, and every watcher still learns that something changed.
    pub(crate) fn push(&mut self, watch: &Watch, path: &Arc<str>, limit: usize, change: u64) {
        let mut shown = watch.target.shown(path);
        let length = shown.len() + watch.token.len() + 2;
        let is_full = self.pending.len() >= limit || self.bytes >= MOST_BYTES;
        if is_full || length > MAX_PAYLOAD {
            shown = watch.target.as_given();
        }
        if self.known.insert((watch.id, Arc::clone(&shown))) {
            let event = watch.event(shown);
            self.bytes += size(&event);
            self.pending.push_back(Pending { watch: watch.id, change, event });
        }
    }

    pub(crate) fn pop(&mut self) -> Option<WatchEvent> {
        let Pending { watch, event, .. } = self.pending.pop_front()?;
        self.known.remove(&(watch, Arc::clone(&event.path)));
        self.bytes = self.bytes.saturating_sub(size(&event));
        Some(event)
    }

    /// Number of the change that the oldest waiting event belongs to.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.pending.front().map(|pending| pending.change)
    }

    /// Drops what waits for a watch that is gone.
    pub(crate) fn forget(&mut self, watch: &Watch) {
        self.pending.retain(|pending| pending.watch != watch.id);
        self.known.retain(|(id, _)| *id != watch.id);
        self.bytes = self.pending.iter().map(|pending| size(&pending.event)).sum();
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}

fn size(event: &WatchEvent) -> usize {
    event.path.len() + event.token.len()
}
