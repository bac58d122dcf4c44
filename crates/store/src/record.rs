//! The journal: what a store writes down, so that another one can go on in its place.
//!
//! It is a row of records (see `codec`): first a picture of the whole store, then every change
//! since. Where it is kept is the business of whoever embeds the store; see
//! [`Store::take_journal`](crate::Store::take_journal).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::{Writer, record};
use crate::permissions::{Caller, Domid, Permissions};
use crate::quota::Quota;
use crate::recent::Fired;
use crate::store::Store;
use crate::tree::Change;

/// First byte of a record's body.
pub(crate) mod tag {
    /// Epoch, number of the last change, and the one after which all are in `RECENT` records.
    pub(crate) const START: u8 = 1;
    /// A node: path, value, permissions.
    pub(crate) const NODE: u8 = 2;
    /// One of the last changes.
    pub(crate) const RECENT: u8 = 3;
    /// The last request of a domain that changed something.
    pub(crate) const MARK: u8 = 4;
    /// The picture is complete.
    pub(crate) const COMPLETE: u8 = 5;
    /// Permissions of a special name.
    pub(crate) const SPECIAL: u8 = 6;
    /// What is known of a domain, or that it is gone; and which special name fired.
    pub(crate) const DOMAIN: u8 = 7;
    /// The quota of a domain, or the default.
    pub(crate) const QUOTA: u8 = 8;
    /// Changes of nodes, all or none.
    pub(crate) const CHANGES: u8 = 9;
}

/// First byte of a change.
pub(crate) mod what {
    pub(crate) const WRITE: u8 = 1;
    pub(crate) const MKDIR: u8 = 2;
    pub(crate) const REMOVE: u8 = 3;
    pub(crate) const PERMISSIONS: u8 = 4;
}

/// A request of a domain, so that it is not carried out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) domid: Domid,
    /// Tells one life of a connection's other end from the next.
    pub(crate) incarnation: u64,
    /// Number of the request in that life.
    pub(crate) number: u64,
}

/// What is written down and not taken yet.
#[derive(Default)]
pub(crate) struct Journal {
    is_kept: bool,
    /// Number of the last change.
    change: u64,
    /// How often a store went on in this one's place.
    epoch: u64,
    pending: Vec<u8>,
    /// The request that is being carried out.
    mark: Option<Mark>,
    /// The last request of each domain that changed something.
    marks: BTreeMap<Domid, Mark>,
}

impl Journal {
    pub(crate) const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Number of the last change.
    pub(crate) const fn change(&self) -> u64 {
        self.change
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Goes on after change number `change` in epoch `epoch`.
    pub(crate) const fn go_on(&mut self, change: u64, epoch: u64) {
        self.change = change;
        self.epoch = epoch;
    }

    pub(crate) const fn set_mark(&mut self, mark: Option<Mark>) {
        self.mark = mark;
    }

    pub(crate) fn mark_of(&self, domid: Domid) -> Option<Mark> {
        self.marks.get(&domid).copied()
    }

    pub(crate) fn put_mark(&mut self, mark: Mark) {
        self.marks.insert(mark.domid, mark);
    }

    pub(crate) fn drop_mark(&mut self, domid: Domid) {
        self.marks.remove(&domid);
    }

    /// Numbers a change and writes it down.
    fn note(&mut self, tag: u8, fill: impl FnOnce(&mut Writer<'_>)) {
        self.change += 1;
        if let Some(mark) = self.mark {
            self.marks.insert(mark.domid, mark);
        }
        if !self.is_kept {
            return;
        }
        let (change, mark) = (self.change, self.mark);
        record(&mut self.pending, |to| {
            to.byte(tag);
            to.long(change);
            to.byte(u8::from(mark.is_some()));
            if let Some(mark) = mark {
                put_mark(to, mark);
            }
            fill(to);
        });
    }
}

impl Store {
    /// From now on everything is written down that a store needs to go on in this one's place.
    pub fn keep_journal(&mut self) {
        self.journal.is_kept = true;
        self.recent.after = self.recent.after.max(self.journal.change);
    }

    /// Takes what was written down since the last call, to be added to what was taken before.
    /// A reply must not leave before that is done.
    pub fn take_journal(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.journal.pending)
    }

    /// Length in bytes of what [`Store::take_journal`] would give.
    pub const fn journal_length(&self) -> usize {
        self.journal.pending.len()
    }

    /// A picture of the whole store, with which a new journal begins. Nothing that was not taken
    /// yet is needed after it.
    pub fn picture(&mut self) -> Vec<u8> {
        self.journal.pending.clear();
        let mut out = Vec::new();
        let journal = &self.journal;
        record(&mut out, |to| {
            to.byte(tag::START);
            to.long(journal.epoch);
            to.long(journal.change);
            to.long(self.recent.after);
        });
        for node in self.dump("/").unwrap_or_default() {
            record(&mut out, |to| {
                to.byte(tag::NODE);
                to.bytes(node.path.as_str().as_bytes());
                to.bytes(&node.value);
                put_permissions(to, &node.permissions);
            });
        }
        for (name, permissions) in &self.special {
            record(&mut out, |to| {
                unmarked(to, tag::SPECIAL, journal.change);
                to.bytes(name.as_bytes());
                put_permissions(to, permissions);
            });
        }
        for domid in self.domains.keys() {
            record(&mut out, |to| {
                unmarked(to, tag::DOMAIN, journal.change);
                put_domain(to, self, *domid, None);
            });
        }
        let own = self.quotas.iter().map(|(domid, quota)| (Some(*domid), *quota));
        for (domid, quota) in own.chain([(None, self.default_quota)]) {
            record(&mut out, |to| {
                unmarked(to, tag::QUOTA, journal.change);
                put_quota(to, domid, Some(quota));
            });
        }
        for mark in journal.marks.values() {
            record(&mut out, |to| {
                to.byte(tag::MARK);
                put_mark(to, *mark);
            });
        }
        for fired in self.recent.iter() {
            record(&mut out, |to| put_recent(to, fired));
        }
        record(&mut out, |to| to.byte(tag::COMPLETE));
        out
    }

    pub(crate) fn note_changes(&mut self, caller: Caller, changes: &[Change]) {
        self.journal.note(tag::CHANGES, |to| {
            to.short(caller.domid);
            put_option(to, caller.target);
            to.long(changes.len() as u64);
            for change in changes {
                put_change(to, change);
            }
        });
    }

    pub(crate) fn note_special(&mut self, name: &str, permissions: &Permissions) {
        self.journal.note(tag::SPECIAL, |to| {
            to.bytes(name.as_bytes());
            put_permissions(to, permissions);
        });
    }

    pub(crate) fn note_quota(&mut self, domid: Option<Domid>, quota: Option<Quota>) {
        self.journal.note(tag::QUOTA, |to| put_quota(to, domid, quota));
    }

    /// Notes what is known of a domain now, and the special name that fires.
    pub(crate) fn note_domain(&mut self, domid: Domid, fires: Option<&'static str>) {
        let mut journal = std::mem::take(&mut self.journal);
        journal.note(tag::DOMAIN, |to| put_domain(to, self, domid, fires));
        self.journal = journal;
        if !self.domains.contains_key(&domid) {
            self.journal.drop_mark(domid);
        }
    }
}

/// The head of a change that no request of a domain made.
fn unmarked(to: &mut Writer<'_>, tag: u8, change: u64) {
    to.byte(tag);
    to.long(change);
    to.byte(0);
}

fn put_mark(to: &mut Writer<'_>, mark: Mark) {
    to.short(mark.domid);
    to.long(mark.incarnation);
    to.long(mark.number);
}

fn put_option(to: &mut Writer<'_>, domid: Option<Domid>) {
    to.byte(u8::from(domid.is_some()));
    to.short(domid.unwrap_or_default());
}

fn put_permissions(to: &mut Writer<'_>, permissions: &Permissions) {
    to.bytes(permissions.to_string().as_bytes());
}

fn put_quota(to: &mut Writer<'_>, domid: Option<Domid>, quota: Option<Quota>) {
    put_option(to, domid);
    to.byte(u8::from(quota.is_some()));
    for field in quota.unwrap_or(Quota::NONE).fields() {
        to.long(*field as u64);
    }
}

fn put_domain(to: &mut Writer<'_>, store: &Store, domid: Domid, fires: Option<&str>) {
    to.short(domid);
    to.bytes(fires.unwrap_or_default().as_bytes());
    let Some(domain) = store.domain(domid) else { return to.byte(0) };
    to.byte(1);
    to.long(domain.gfn.cast_unsigned());
    to.long(u64::from(domain.port));
    put_option(to, domain.target);
    to.byte(u8::from(domain.has_shut_down));
}

fn put_change(to: &mut Writer<'_>, change: &Change) {
    let mut head = |what, path: &crate::path::Path| {
        to.byte(what);
        to.bytes(path.as_str().as_bytes());
    };
    match change {
        Change::Write { path, value } => {
            head(what::WRITE, path);
            to.bytes(value);
        }
        Change::Mkdir { path } => head(what::MKDIR, path),
        Change::Remove { path } => head(what::REMOVE, path),
        Change::SetPermissions { path, permissions } => {
            head(what::PERMISSIONS, path);
            put_permissions(to, permissions);
        }
    }
}

fn put_recent(to: &mut Writer<'_>, fired: &Fired) {
    to.byte(tag::RECENT);
    to.long(fired.change);
    to.bytes(fired.path.as_bytes());
    to.byte(u8::from(fired.is_removal));
    to.long(fired.audience.len() as u64);
    for list in &fired.audience {
        put_permissions(to, Arc::as_ref(list));
    }
}
