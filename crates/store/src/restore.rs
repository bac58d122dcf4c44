//! Going on in the place of a store that is gone, from its journal.

use std::sync::Arc;

use crate::codec::{Reader, split_record};
use crate::domains::{FIRST_RESERVED_DOMID, IntroducedDomain};
use crate::path::Path;
use crate::permissions::{Caller, Domid, Permissions};
use crate::quota::Quota;
use crate::recent::Fired;
use crate::record::{Mark, tag, what};
use crate::store::Store;
use crate::tree::Change;
use crate::watch::{INTRODUCE_DOMAIN, RELEASE_DOMAIN};

/// Bits of a generation that count changes; those above count the stores that went on.
const CLOCK_BITS: u32 = 40;
/// Stores that may go on in each other's place, and changes that they may count; no store lives to
/// see so many.
const MOST_EPOCHS: u64 = 1 << (63 - CLOCK_BITS);
const MOST_CHANGES: u64 = 1 << 60;

/// A store made from a journal.
pub struct Restored {
    /// The store; it keeps a journal.
    pub store: Store,
    /// Bytes at the end that are no whole records: cut off while they were written.
    pub lost: usize,
}

impl Store {
    /// Makes a store from its journal: a picture and the changes since, up to the first record
    /// that is not whole.
    ///
    /// `None` if the picture itself is not whole; that journal is of no use.
    pub fn restore(bytes: &[u8]) -> Option<Restored> {
        let mut store = Self::default();
        store.keep_journal();
        let mut rest = bytes;
        let mut is_complete = false;
        while let Some((body, tail)) = split_record(rest) {
            match store.replay(body, is_complete) {
                Some(Step::Goes) => {}
                Some(Step::Completes) => is_complete = true,
                None => break,
            }
            rest = tail;
        }
        store.journal.set_mark(None);
        let epoch = store.journal.epoch() + 1;
        store.journal.go_on(store.journal.change(), epoch);
        store.clock = epoch.wrapping_shl(CLOCK_BITS);
        store.restamp();
        store.take_journal();
        is_complete.then_some(Restored { store, lost: rest.len() })
    }

    /// Carries one record out: wholly, or, if it makes no sense, not at all.
    fn replay(&mut self, body: &[u8], is_complete: bool) -> Option<Step> {
        let mut from = Reader(body);
        let tag = from.byte()?;
        match (tag, is_complete) {
            (tag::START, false) => {
                let epoch = from.long().filter(|epoch| *epoch < MOST_EPOCHS)?;
                let change = from.long().filter(|change| *change < MOST_CHANGES)?;
                let after = from.long()?;
                from.end()?;
                self.journal.go_on(change, epoch);
                self.recent.after = after;
            }
            (tag::NODE, false) => self.replay_node(&mut from)?,
            (tag::RECENT, false) => {
                let fired = take_recent(&mut from)?;
                from.end()?;
                self.recent.push(fired);
            }
            (tag::MARK, false) => {
                let mark = take_mark(&mut from)?;
                from.end()?;
                self.journal.put_mark(mark);
            }
            (tag::COMPLETE, false) => return from.end().map(|()| Step::Completes),
            (tag::SPECIAL | tag::DOMAIN | tag::QUOTA | tag::CHANGES, _) => {
                self.replay_change(tag, &mut from, is_complete)?;
            }
            _ => return None,
        }
        Some(Step::Goes)
    }

    fn replay_node(&mut self, from: &mut Reader<'_>) -> Option<()> {
        let path = take_path(from)?;
        let value = Arc::from(from.bytes()?);
        let permissions = Arc::new(take_permissions(from)?);
        from.end()?;
        let write = Change::Write { path: path.clone(), value };
        for change in [write, Change::SetPermissions { path, permissions }] {
            let stamp = self.tick();
            self.tree.apply(Caller::HOST, &change, &Quota::NONE, stamp).ok()?;
        }
        Some(())
    }

    fn replay_change(&mut self, tag: u8, from: &mut Reader<'_>, is_complete: bool) -> Option<()> {
        let change = from.long()?;
        let mark = match from.byte()? {
            0 => None,
            _ => Some(take_mark(from)?),
        };
        let (before, epoch) = (self.journal.change(), self.journal.epoch());
        if is_complete {
            // Noting it counts on; what is noted is thrown away at the end.
            if change != before + 1 {
                return None;
            }
            self.journal.set_mark(mark);
        }
        match tag {
            tag::SPECIAL => {
                let name = special(from.text()?)?;
                let permissions = Arc::new(take_permissions(from)?);
                from.end()?;
                self.special.insert(name, Arc::clone(&permissions));
                if is_complete {
                    self.note_special(name, &permissions);
                }
            }
            tag::DOMAIN => self.replay_domain(from, is_complete)?,
            tag::QUOTA => {
                let domid = take_option(from)?;
                let is_set = from.byte()? != 0;
                let mut quota = Quota::NONE;
                for field in quota.fields() {
                    *field = from.size()?;
                }
                from.end()?;
                self.replay_quota(domid, is_set.then_some(quota));
            }
            _ => self.replay_changes(from)?,
        }
        self.journal.set_mark(None);
        if !is_complete {
            self.journal.go_on(before, epoch);
        }
        Some(())
    }

    fn replay_quota(&mut self, domid: Option<Domid>, quota: Option<Quota>) {
        match (domid, quota) {
            (Some(domid), quota) => self.set_quota(domid, quota),
            (None, Some(quota)) => self.set_default_quota(quota),
            (None, None) => {}
        }
    }

    fn replay_domain(&mut self, from: &mut Reader<'_>, is_complete: bool) -> Option<()> {
        let domid = take_domid(from)?;
        let fires = match from.text()? {
            "" => None,
            name => Some(special(name)?),
        };
        if from.byte()? == 0 {
            from.end()?;
            self.forget(domid);
        } else {
            let gfn = from.long()?.cast_signed();
            let port = u32::try_from(from.long()?).ok()?;
            let target = take_option(from)?;
            let has_shut_down = from.byte()? != 0;
            from.end()?;
            self.domains.insert(domid, IntroducedDomain { gfn, port, target, has_shut_down });
        }
        if is_complete {
            self.note_domain(domid, fires);
            if let Some(name) = fires {
                self.fire_special(name, domid);
            }
        }
        Some(())
    }

    fn replay_changes(&mut self, from: &mut Reader<'_>) -> Option<()> {
        let caller = Caller { domid: take_domid(from)?, target: take_option(from)? };
        let count = from.size()?;
        let mut changes = Vec::new();
        for _ in 0..count {
            changes.push(take_change(from)?);
        }
        from.end()?;
        let mut next = self.tree.clone();
        let mut effects = Vec::new();
        for change in &changes {
            let stamp = self.tick();
            effects.extend(next.apply(caller, change, &Quota::NONE, stamp).ok()?);
        }
        self.tree = next;
        self.note_changes(caller, &changes);
        for effect in effects {
            self.fire(&effect);
        }
        Some(())
    }

    /// Gives all nodes stamps that no store before this one gave.
    fn restamp(&mut self) {
        let stamp = self.tick();
        self.tree.restamp(stamp);
    }
}

enum Step {
    Goes,
    Completes,
}

fn special(name: &str) -> Option<&'static str> {
    [INTRODUCE_DOMAIN, RELEASE_DOMAIN].into_iter().find(|known| *known == name)
}

fn take_path(from: &mut Reader<'_>) -> Option<Path> {
    Path::resolve(from.bytes()?, 0).ok()
}

fn take_permissions(from: &mut Reader<'_>) -> Option<Permissions> {
    from.text()?.parse().ok()
}

/// Permissions name ordinary domains alone, so nobody else may own a node.
fn take_domid(from: &mut Reader<'_>) -> Option<Domid> {
    from.short().filter(|domid| *domid < FIRST_RESERVED_DOMID)
}

fn take_option(from: &mut Reader<'_>) -> Option<Option<Domid>> {
    let is_some = from.byte()? != 0;
    let domid = take_domid(from)?;
    Some(is_some.then_some(domid))
}

fn take_mark(from: &mut Reader<'_>) -> Option<Mark> {
    Some(Mark { domid: take_domid(from)?, incarnation: from.long()?, number: from.long()? })
}

fn take_change(from: &mut Reader<'_>) -> Option<Change> {
    let what = from.byte()?;
    let path = take_path(from)?;
    Some(match what {
        what::WRITE => Change::Write { path, value: Arc::from(from.bytes()?) },
        what::MKDIR => Change::Mkdir { path },
        what::REMOVE => Change::Remove { path },
        what::PERMISSIONS => {
            Change::SetPermissions { path, permissions: Arc::new(take_permissions(from)?) }
        }
        _ => return None,
    })
}

fn take_recent(from: &mut Reader<'_>) -> Option<Fired> {
    let change = from.long()?;
    let path = Arc::from(from.text()?);
    let is_removal = from.byte()? != 0;
    let count = from.size()?;
    let mut audience = Vec::new();
    for _ in 0..count {
        audience.push(Arc::new(take_permissions(from)?));
    }
    Some(Fired { change, path, audience, is_removal })
}
