//! Telling watches of changes, and of the last ones once more.
//!
//! Every change has a number. A client that was connected to a store which is gone knows the number
//! up to which it has all its events. What came later is told again from the list of the last
//! changes; if it does not go back far enough, everything that is watched is reported.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::client::{Client, ClientId};
use crate::domains::IntroducedDomain;
use crate::permissions::{Caller, Domid, Permissions};
use crate::quota::Quota;
use crate::store::{Store, caller_of};
use crate::tree::{Effect, Node};
use crate::watch::{Watch, is_special};

/// Changes that are kept at most, and bytes of their paths and permission lists.
const MOST_CHANGES: usize = 2048;
const MOST_BYTES: usize = 512 << 10;

/// A change as watches are told of it.
#[derive(Clone)]
pub(crate) struct Fired {
    /// Its number.
    pub(crate) change: u64,
    /// The path, or a special name with `/` and the domain that it is about.
    pub(crate) path: Arc<str>,
    /// Who may hear of it, see [`Effect`].
    pub(crate) audience: Vec<Arc<Permissions>>,
    /// Whether what is below the path went too.
    pub(crate) is_removal: bool,
}

impl Fired {
    fn size(&self) -> usize {
        let entries: usize = self.audience.iter().map(|list| list.entries().count()).sum();
        64 + self.path.len() + 4 * entries
    }
}

/// The last changes.
#[derive(Default)]
pub(crate) struct Recent {
    list: VecDeque<Fired>,
    bytes: usize,
    /// All later changes are in the list.
    pub(crate) after: u64,
}

impl Recent {
    pub(crate) fn push(&mut self, fired: Fired) {
        self.bytes += fired.size();
        self.list.push_back(fired);
        while self.list.len() > MOST_CHANGES || self.bytes > MOST_BYTES {
            let Some(oldest) = self.list.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.size());
            self.after = oldest.change;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Fired> {
        self.list.iter()
    }
}

/// Borrows the parts of a store that telling needs, and no others.
macro_rules! audience {
    ($store:expr) => {
        Audience {
            clients: &mut $store.clients,
            domains: &$store.domains,
            quotas: &$store.quotas,
            default_quota: $store.default_quota,
        }
    };
}

/// The parts of a store that telling needs.
struct Audience<'a> {
    clients: &'a mut BTreeMap<ClientId, Client>,
    domains: &'a BTreeMap<Domid, IntroducedDomain>,
    quotas: &'a BTreeMap<Domid, Quota>,
    default_quota: Quota,
}

impl Audience<'_> {
    /// Queues an event if one of the lists lets the watch's client read.
    fn tell(&mut self, watch: &Watch, path: &Arc<str>, change: u64, lists: &[Arc<Permissions>]) {
        let Some(client) = self.clients.get_mut(&watch.client) else { return };
        let caller = caller_of(client.domid, self.domains);
        if lists.iter().any(|list| list.rights(caller).read) {
            let quota = self.quotas.get(&client.domid).unwrap_or(&self.default_quota);
            client.events.push(watch, path, event_limit(caller, *quota), change);
        }
    }
}

impl Store {
    /// Queues the events of one change.
    pub(crate) fn fire(&mut self, effect: &Effect) {
        let change = self.journal.change();
        let path = effect.path.shared();
        if self.journal.is_kept() {
            self.recent.push(Fired {
                change,
                path: Arc::clone(&path),
                audience: effect.audience.clone(),
                is_removal: effect.removed.is_some(),
            });
        }
        let (watches, mut audience) = (&self.watches, audience!(self));
        for watch in watches.covering(&path) {
            audience.tell(watch, &path, change, &effect.audience);
        }
        let Some(removed) = &effect.removed else { return };
        for (key, list) in watches.below(&path) {
            if let Some(lists) = lists_below(removed, key.get(path.len()..)) {
                let key = Arc::from(key);
                list.iter().for_each(|watch| audience.tell(watch, &key, change, &lists));
            }
        }
    }

    /// Queues the events of a special name, which is about a domain.
    pub(crate) fn fire_special(&mut self, name: &'static str, domid: Domid) {
        let Some(permissions) = self.special.get(name) else { return };
        let lists = [Arc::clone(permissions)];
        let (plain, named) = (Arc::from(name), Arc::from(format!("{name}/{domid}")));
        let change = self.journal.change();
        if self.journal.is_kept() {
            let path = Arc::clone(&named);
            self.recent.push(Fired { change, path, audience: lists.to_vec(), is_removal: false });
        }
        let (watches, mut audience) = (&self.watches, audience!(self));
        for watch in watches.on(name) {
            let path = if watch.names_domain() { &named } else { &plain };
            audience.tell(watch, path, change, &lists);
        }
    }

    /// Queues for one client, whose watches were just registered, the events of all changes after
    /// number `after`.
    pub(crate) fn catch_up(&mut self, client: ClientId, after: u64) {
        let change = self.journal.change();
        if after < self.recent.after || after > change {
            self.report_all(client);
            return;
        }
        let (watches, mut audience) = (&self.watches, audience!(self));
        for fired in self.recent.iter().filter(|fired| fired.change > after) {
            let special = fired.path.rsplit_once('/').filter(|(name, _)| is_special(name));
            if let Some((name, _)) = special {
                let plain = Arc::from(name);
                for watch in watches.on(name).iter().filter(|watch| watch.client == client) {
                    let path = if watch.names_domain() { &fired.path } else { &plain };
                    audience.tell(watch, path, fired.change, &fired.audience);
                }
                continue;
            }
            let covering = watches.covering(&fired.path).into_iter();
            for watch in covering.filter(|watch| watch.client == client) {
                audience.tell(watch, &fired.path, fired.change, &fired.audience);
            }
            if !fired.is_removal {
                continue;
            }
            for (key, list) in watches.below(&fired.path) {
                let key = Arc::from(key);
                for watch in list.iter().filter(|watch| watch.client == client) {
                    // Its own path: it learns nothing that it does not know.
                    audience.tell_itself(watch, &key, fired.change);
                }
            }
        }
    }

    /// Queues an event for everything that one client watches and may read.
    fn report_all(&mut self, client: ClientId) {
        let change = self.journal.change();
        let mine: Vec<Watch> = self.watches.of(client).cloned().collect();
        let (watches, tree, mut audience) = (&self.watches, &self.tree, audience!(self));
        for watch in mine {
            audience.tell_itself(&watch, &watch.target.key(), change);
            tree.visit_below(&watch.target.key(), |path, node| {
                let is_covered = watches.covering(path).iter().any(|found| found.id == watch.id);
                if is_covered {
                    audience.tell(&watch, path, change, &[Arc::clone(&node.permissions)]);
                }
            });
        }
    }
}

impl Audience<'_> {
    /// Queues an event with the watch's own path.
    fn tell_itself(&mut self, watch: &Watch, path: &Arc<str>, change: u64) {
        if let Some(client) = self.clients.get_mut(&watch.client) {
            client.events.push(watch, path, usize::MAX, change);
        }
    }
}

const fn event_limit(caller: Caller, quota: Quota) -> usize {
    if caller.is_privileged() { Quota::HOST_EVENTS } else { quota.events }
}

/// Who may hear that the node at the relative path went with the subtree; `None` if it never was.
fn lists_below(removed: &Node, path: Option<&str>) -> Option<Vec<Arc<Permissions>>> {
    let names = || path.unwrap_or_default().split('/').filter(|name| !name.is_empty());
    let parent = removed.descend(names().take(names().count().saturating_sub(1)))?;
    let node = parent.descend(names().skip(names().count().saturating_sub(1)))?;
    Some(vec![Arc::clone(&node.permissions), Arc::clone(&parent.permissions)])
}
