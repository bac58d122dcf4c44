//! The store: tree, clients, watches and domains, and the operations of one client on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::{Client, ClientId};
use crate::domains::IntroducedDomain;
use crate::error::{Errno, StoreError};
use crate::path::Path;
use crate::permissions::{Caller, Domid, Need, Permissions};
use crate::quota::Quota;
use crate::recent::Recent;
use crate::record::Journal;
use crate::rules::check_permissions;
use crate::transaction::{Facet, Transaction};
use crate::tree::{Change, Node, Tree};
use crate::watch::{INTRODUCE_DOMAIN, RELEASE_DOMAIN, Target, Watch, WatchEvent, Watches};

/// A xenstore. See the crate documentation for an overview.
pub struct Store {
    pub(crate) tree: Tree,
    /// Counts changes; each gets its own stamp.
    pub(crate) clock: u64,
    pub(crate) default_quota: Quota,
    pub(crate) quotas: BTreeMap<Domid, Quota>,
    pub(crate) clients: BTreeMap<ClientId, Client>,
    last_client: u64,
    pub(crate) watches: Watches,
    pub(crate) domains: BTreeMap<Domid, IntroducedDomain>,
    /// Permissions of the special names.
    pub(crate) special: BTreeMap<&'static str, Arc<Permissions>>,
    /// What a store that is started anew will need.
    pub(crate) journal: Journal,
    /// The last changes, for those who missed their events.
    pub(crate) recent: Recent,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(Quota::default())
    }
}

impl Store {
    /// A store with only the root node, owned by domain 0 and closed to others.
    pub fn new(quota: Quota) -> Self {
        let closed = Arc::new(Permissions::owned_by(0));
        Self {
            tree: Tree::new(),
            clock: 0,
            default_quota: quota,
            quotas: BTreeMap::new(),
            clients: BTreeMap::from([(ClientId::HOST, Client::new(0))]),
            last_client: 0,
            watches: Watches::default(),
            domains: BTreeMap::new(),
            special: BTreeMap::from([
                (INTRODUCE_DOMAIN, Arc::clone(&closed)),
                (RELEASE_DOMAIN, closed),
            ]),
            journal: Journal::default(),
            recent: Recent::default(),
        }
    }

    /// The quota of a domain.
    pub fn quota(&self, domid: Domid) -> Quota {
        self.quotas.get(&domid).copied().unwrap_or(self.default_quota)
    }

    /// Gives one domain a quota of its own; `None` returns it to the default.
    pub fn set_quota(&mut self, domid: Domid, quota: Option<Quota>) {
        match quota {
            Some(quota) => drop(self.quotas.insert(domid, quota)),
            None => drop(self.quotas.remove(&domid)),
        }
        self.note_quota(Some(domid), quota);
    }

    /// Changes the quota of all domains that have none of their own.
    pub fn set_default_quota(&mut self, quota: Quota) {
        self.default_quota = quota;
        self.note_quota(None, Some(quota));
    }

    /// Bytes of names, values and permissions of the nodes that a domain owns.
    pub fn bytes_owned_by(&self, domid: Domid) -> usize {
        self.tree.owned_by(domid).bytes
    }

    /// Number of nodes that a domain owns.
    pub fn nodes_owned_by(&self, domid: Domid) -> usize {
        self.tree.owned_by(domid).nodes
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn open_client(&mut self, domid: Domid) -> ClientId {
        self.last_client += 1;
        let client = ClientId(self.last_client);
        self.clients.insert(client, Client::new(domid));
        client
    }

    pub(crate) fn close_client(&mut self, client: ClientId) {
        self.clients.remove(&client);
        self.watches.remove_client(client);
    }

    /// Drops watches, waiting events and transactions of a client.
    pub(crate) fn reset_client(&mut self, client: ClientId) {
        self.watches.remove_client(client);
        if let Some(client) = self.clients.get_mut(&client) {
            client.watches = 0;
            client.events.clear();
            client.transactions.clear();
        }
    }

    pub(crate) fn client_mut(&mut self, client: ClientId) -> Result<&mut Client, StoreError> {
        self.clients.get_mut(&client).ok_or(StoreError::Closed)
    }

    pub(crate) fn caller(&self, client: ClientId) -> Result<Caller, StoreError> {
        let domid = self.clients.get(&client).ok_or(StoreError::Closed)?.domid;
        Ok(caller_of(domid, &self.domains))
    }

    /// The node as the client sees it in the transaction (0: none), if it has the right.
    pub(crate) fn node(
        &mut self,
        client: ClientId,
        transaction: u32,
        (path, facet): (&Path, Facet),
        need: Need,
    ) -> Result<&Node, StoreError> {
        let caller = self.caller(client)?;
        if transaction == 0 {
            return self.tree.access(caller, path, need);
        }
        let quota = self.quota(caller.domid);
        self.transaction_mut(client, transaction)?.access(caller, (path, facet), need, &quota)
    }

    /// Makes a change, at once or in the transaction (0: none).
    pub(crate) fn change(
        &mut self,
        client: ClientId,
        transaction: u32,
        change: Change,
    ) -> Result<(), StoreError> {
        let caller = self.caller(client)?;
        let quota = self.quota(caller.domid);
        let stamp = self.tick();
        if transaction != 0 {
            let transaction = self.transaction_mut(client, transaction)?;
            return transaction.apply(caller, change, &quota, stamp);
        }
        if let Some(effect) = self.tree.apply(caller, &change, &quota, stamp)? {
            self.note_changes(caller, std::slice::from_ref(&change));
            self.fire(&effect);
        }
        Ok(())
    }

    pub(crate) fn transaction_mut(
        &mut self,
        client: ClientId,
        transaction: u32,
    ) -> Result<&mut Transaction, StoreError> {
        let transactions = &mut self.client_mut(client)?.transactions;
        transactions.get_mut(&transaction).ok_or(StoreError::NoTransaction { transaction })
    }

    pub(crate) fn start_transaction(&mut self, client: ClientId) -> Result<u32, StoreError> {
        let caller = self.caller(client)?;
        let limit = self.quota(caller.domid).transactions;
        self.limit(caller, |c| c.transactions.len(), ("transactions", limit, Errno::Enospc))?;
        let transaction = Transaction::new(&self.tree);
        Ok(self.client_mut(client)?.open(transaction))
    }

    pub(crate) fn end_transaction(
        &mut self,
        client: ClientId,
        transaction: u32,
        is_commit: bool,
    ) -> Result<(), StoreError> {
        let caller = self.caller(client)?;
        let quota = self.quota(caller.domid);
        let open = &mut self.client_mut(client)?.transactions;
        let ended = open.remove(&transaction).ok_or(StoreError::NoTransaction { transaction })?;
        if !is_commit {
            return Ok(());
        }
        let changes = ended.changes().to_vec();
        let Self { tree, clock, .. } = self;
        let stamp = || {
            *clock += 1;
            *clock
        };
        let effects = ended.commit(tree, caller, &quota, stamp)?;
        let effects = effects.ok_or(StoreError::Conflict { transaction })?;
        if !changes.is_empty() {
            self.note_changes(caller, &changes);
        }
        for effect in effects {
            self.fire(&effect);
        }
        Ok(())
    }

    /// Goes on with a transaction that a client had in a store that is gone.
    pub(crate) fn adopt_transaction(
        &mut self,
        client: ClientId,
        id: u32,
    ) -> Result<(), StoreError> {
        // The quota allowed it once.
        let transaction = Transaction::doomed(&self.tree);
        self.client_mut(client)?.adopt(id, transaction);
        Ok(())
    }

    pub(crate) fn add_watch(
        &mut self,
        client: ClientId,
        target: &Target,
        token: &[u8],
    ) -> Result<(), StoreError> {
        let caller = self.caller(client)?;
        let limit = self.quota(caller.domid).watches;
        self.limit(caller, |c| c.watches, ("watches", limit, Errno::E2big))?;
        let (watch, change) = (self.register_watch(client, target, token)?, self.journal.change());
        let record = self.client_mut(client)?;
        record.events.push(&watch, &target.key(), usize::MAX, change);
        Ok(())
    }

    /// Adds a watch without its first event, whatever the quota is.
    pub(crate) fn register_watch(
        &mut self,
        client: ClientId,
        target: &Target,
        token: &[u8],
    ) -> Result<Watch, StoreError> {
        let given = target.as_given();
        let exists = || StoreError::WatchExists { path: given.to_string() };
        let watch = self.watches.add(client, target.clone(), token).ok_or_else(exists)?;
        self.client_mut(client)?.watches += 1;
        Ok(watch)
    }

    pub(crate) fn remove_watch(
        &mut self,
        client: ClientId,
        target: &Target,
        token: &[u8],
    ) -> Result<(), StoreError> {
        let missing = || StoreError::NoWatch { path: target.as_given().to_string() };
        let watch = self.watches.remove(client, target, token).ok_or_else(missing)?;
        let record = self.client_mut(client)?;
        record.watches = record.watches.saturating_sub(1);
        record.events.forget(&watch);
        Ok(())
    }

    pub(crate) fn pop_event(&mut self, client: ClientId) -> Option<WatchEvent> {
        self.clients.get_mut(&client)?.events.pop()
    }

    /// The permissions of a special name, if the caller has the right.
    pub(crate) fn special(
        &mut self,
        caller: Caller,
        name: &str,
        need: Need,
    ) -> Result<&mut Arc<Permissions>, StoreError> {
        let path = || name.to_owned();
        let missing = || StoreError::NotFound { path: path() };
        let permissions = self.special.get_mut(name).ok_or_else(missing)?;
        if permissions.rights(caller).allow(need) {
            return Ok(permissions);
        }
        Err(StoreError::Denied { domid: caller.domid, path: path(), need: need.verb() })
    }

    pub(crate) fn set_special(
        &mut self,
        caller: Caller,
        name: &str,
        new: Permissions,
    ) -> Result<(), StoreError> {
        let quota = self.quota(caller.domid);
        let permissions = self.special(caller, name, Need::Own)?;
        check_permissions(caller, &name, permissions, &new, &quota)?;
        let new = Arc::new(new);
        *permissions = Arc::clone(&new);
        self.note_special(name, &new);
        Ok(())
    }

    fn limit(
        &self,
        caller: Caller,
        used: impl Fn(&Client) -> usize,
        (what, limit, errno): (&'static str, usize, Errno),
    ) -> Result<(), StoreError> {
        let mine = self.clients.values().filter(|client| client.domid == caller.domid);
        if caller.is_privileged() || mine.map(used).sum::<usize>() < limit {
            return Ok(());
        }
        Err(StoreError::Quota { domid: caller.domid, what, limit, errno })
    }
}

pub(crate) fn caller_of(domid: Domid, domains: &BTreeMap<Domid, IntroducedDomain>) -> Caller {
    Caller { domid, target: domains.get(&domid).and_then(|domain| domain.target) }
}
