//! The host side: direct access as domain 0, for toolstacks and backends in the same process.
//!
//! There are no transactions here: nobody else runs while the caller holds the store, and watch
//! events are delivered afterwards. Relative paths are below `/local/domain/0`.

use std::sync::Arc;

use crate::client::ClientId;
use crate::error::StoreError;
use crate::path::Path;
use crate::permissions::{Domid, Permissions};
use crate::store::Store;
use crate::tree::{Change, Node};
use crate::watch::{Target, WatchEvent};

/// A node as plain data, for saving and for tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Absolute path.
    pub path: Path,
    /// Value.
    pub value: Vec<u8>,
    /// Permission list.
    pub permissions: Permissions,
}

impl Store {
    /// The value of a node.
    ///
    /// # Errors
    /// [`StoreError::BadPath`] or [`StoreError::NotFound`].
    pub fn read(&self, path: &str) -> Result<&[u8], StoreError> {
        Ok(&self.host_node(path)?.1.value)
    }

    /// The names of a node's children in sorted order.
    ///
    /// # Errors
    /// [`StoreError::BadPath`] or [`StoreError::NotFound`].
    pub fn list(&self, path: &str) -> Result<impl Iterator<Item = &str>, StoreError> {
        Ok(self.host_node(path)?.1.children.keys().map(|name| &**name))
    }

    /// The permission list of a node.
    ///
    /// # Errors
    /// [`StoreError::BadPath`] or [`StoreError::NotFound`].
    pub fn permissions(&self, path: &str) -> Result<&Permissions, StoreError> {
        Ok(&self.host_node(path)?.1.permissions)
    }

    /// Whether the node exists; `false` for a malformed path.
    pub fn exists(&self, path: &str) -> bool {
        self.host_node(path).is_ok()
    }

    /// Sets the value of a node, creating it and missing ancestors.
    ///
    /// # Errors
    /// [`StoreError::BadPath`], or [`StoreError::TooLong`] if no reply could carry the value.
    pub fn write(&mut self, path: &str, value: impl AsRef<[u8]>) -> Result<(), StoreError> {
        let value = Arc::from(value.as_ref());
        self.host_change(Change::Write { path: host_path(path)?, value })
    }

    /// Creates a node and its missing ancestors; an existing one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::BadPath`].
    pub fn mkdir(&mut self, path: &str) -> Result<(), StoreError> {
        self.host_change(Change::Mkdir { path: host_path(path)? })
    }

    /// Removes a node and all below it; a missing node is no error if its parent exists.
    ///
    /// # Errors
    /// [`StoreError::BadPath`], [`StoreError::RootRemoval`], or [`StoreError::NotFound`].
    pub fn rm(&mut self, path: &str) -> Result<(), StoreError> {
        self.host_change(Change::Remove { path: host_path(path)? })
    }

    /// Replaces the permission list of a node.
    ///
    /// # Errors
    /// [`StoreError::BadPath`] or [`StoreError::NotFound`].
    pub fn set_permissions(
        &mut self,
        path: &str,
        permissions: Permissions,
    ) -> Result<(), StoreError> {
        let permissions = Arc::new(permissions);
        self.host_change(Change::SetPermissions { path: host_path(path)?, permissions })
    }

    /// Replaces the permission list of `@introduceDomain` or `@releaseDomain`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for another name.
    pub fn set_special_permissions(
        &mut self,
        name: &str,
        permissions: Permissions,
    ) -> Result<(), StoreError> {
        let caller = self.caller(ClientId::HOST)?;
        self.set_special(caller, name, permissions)
    }

    /// Watches a path or special name for the host; one event is queued at once.
    ///
    /// # Errors
    /// [`StoreError::BadPath`] or [`StoreError::WatchExists`].
    pub fn watch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        let target = Target::resolve(path.as_bytes(), 0, None)?;
        self.add_watch(ClientId::HOST, &target, token.as_bytes())
    }

    /// Ends a watch of the host and drops its queued events.
    ///
    /// # Errors
    /// [`StoreError::BadPath`] or [`StoreError::NoWatch`].
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        let target = Target::resolve(path.as_bytes(), 0, None)?;
        self.remove_watch(ClientId::HOST, &target, token.as_bytes())
    }

    /// The next queued event of the host's watches.
    pub fn next_event(&mut self) -> Option<WatchEvent> {
        self.pop_event(ClientId::HOST)
    }

    /// A node and all below it, parents before children and names in order.
    ///
    /// # Errors
    /// [`StoreError::BadPath`] or [`StoreError::NotFound`].
    pub fn dump(&self, path: &str) -> Result<Vec<NodeRecord>, StoreError> {
        let mut records = Vec::new();
        let mut pending = vec![self.host_node(path)?];
        while let Some((path, node)) = pending.pop() {
            let children = node.children.iter().rev();
            pending.extend(children.map(|(name, child)| (path.child(name), &**child)));
            records.push(NodeRecord {
                path,
                value: node.value.to_vec(),
                permissions: (*node.permissions).clone(),
            });
        }
        Ok(records)
    }

    /// Writes what [`Store::dump`] gave, over what is there. Watches fire.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] for a value that no store holds; earlier records are written then.
    pub fn load(&mut self, records: &[NodeRecord]) -> Result<(), StoreError> {
        for record in records {
            let path = record.path.clone();
            let value = Arc::from(record.value.as_slice());
            self.host_change(Change::Write { path: path.clone(), value })?;
            let permissions = Arc::new(record.permissions.clone());
            self.host_change(Change::SetPermissions { path, permissions })?;
        }
        Ok(())
    }

    /// Recounts the nodes of all owners and says whether the running counts are right.
    pub fn is_consistent(&self) -> bool {
        self.tree.is_consistent()
    }

    /// One line on what a domain uses of its quota.
    pub(crate) fn usage(&self, domid: Domid) -> String {
        let quota = self.quota(domid);
        let clients = || self.clients.values().filter(|client| client.domid == domid);
        format!(
            "nodes {}/{} bytes {}/{} watches {}/{} transactions {}/{} events {}/{}",
            self.tree.owned_by(domid).nodes,
            quota.nodes,
            self.tree.owned_by(domid).bytes,
            quota.bytes,
            clients().map(|c| c.watches).sum::<usize>(),
            quota.watches,
            clients().map(|c| c.transactions.len()).sum::<usize>(),
            quota.transactions,
            clients().map(|c| c.events.len()).sum::<usize>(),
            quota.events,
        )
    }

    fn host_node(&self, path: &str) -> Result<(Path, &Node), StoreError> {
        let path = host_path(path)?;
        match self.tree.find(&path) {
            Some(node) => Ok((path, node)),
            None => Err(StoreError::NotFound { path: path.to_string() }),
        }
    }

    fn host_change(&mut self, change: Change) -> Result<(), StoreError> {
        self.change(ClientId::HOST, 0, change)
    }
}

fn host_path(path: &str) -> Result<Path, StoreError> {
    Ok(Path::resolve(path.as_bytes(), 0)?)
}
