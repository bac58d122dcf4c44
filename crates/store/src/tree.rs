//! The tree of nodes: copy-on-write, so that a clone is a snapshot.
//!
//! Walks are loops, not recursion: a guest may build a path of more than a thousand names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::StoreError;
use crate::owned::{Owned, bytes_of, permission_bytes};
use crate::path::Path;
use crate::permissions::{Caller, Domid, Need, Permissions};
use crate::quota::Quota;
use crate::rules::{audience, check_permissions, check_value, limit, not_found, permit};

/// A node. Generations are stamps of the store's change counter, so no two states share one.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) value: Arc<[u8]>,
    pub(crate) permissions: Arc<Permissions>,
    pub(crate) children: BTreeMap<Arc<str>, Arc<Node>>,
    /// Stamp of the last change of value or permissions.
    pub(crate) generation: u64,
    /// Stamp of the last change of the set of children.
    pub(crate) children_generation: u64,
}

impl Node {
    fn new(permissions: Arc<Permissions>, stamp: u64) -> Self {
        Self {
            value: Arc::from(Vec::new()),
            permissions,
            children: BTreeMap::new(),
            generation: stamp,
            children_generation: stamp,
        }
    }

    /// The node at `path`, seen from this node as the root.
    pub(crate) fn descend<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<&Self> {
        names.try_fold(self, |node, name| node.children.get(name).map(|child| &**child))
    }
}

/// Frees a subtree without recursion, which would use the stack in proportion to its depth.
impl Drop for Node {
    fn drop(&mut self) {
        let mut pending: Vec<_> = std::mem::take(&mut self.children).into_values().collect();
        while let Some(node) = pending.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                pending.extend(std::mem::take(&mut node.children).into_values());
            }
        }
    }
}

/// One change that a client asks for.
#[derive(Clone)]
pub(crate) enum Change {
    Write { path: Path, value: Arc<[u8]> },
    Mkdir { path: Path },
    Remove { path: Path },
    SetPermissions { path: Path, permissions: Arc<Permissions> },
}

impl Change {
    pub(crate) const fn path(&self) -> &Path {
        match self {
            Self::Write { path, .. }
            | Self::Mkdir { path }
            | Self::Remove { path }
            | Self::SetPermissions { path, .. } => path,
        }
    }

    /// Bytes that it takes to keep.
    pub(crate) fn size(&self) -> usize {
        let rest = match self {
            Self::Write { value, .. } => value.len(),
            Self::SetPermissions { permissions, .. } => permission_bytes(permissions),
            Self::Mkdir { .. } | Self::Remove { .. } => 0,
        };
        self.path().as_str().len() + rest
    }
}

/// What a change did, as far as watches need to know.
pub(crate) struct Effect {
    pub(crate) path: Path,
    /// A caller that may read one of these hears of the change: the node's own list, its parent's,
    /// and the list that the change replaced.
    pub(crate) audience: Vec<Arc<Permissions>>,
    /// The subtree that was removed.
    pub(crate) removed: Option<Arc<Node>>,
}

/// Result of looking a path up.
pub(crate) enum Lookup<'a> {
    Found(&'a Node),
    /// The nearest existing ancestor and its number of names.
    Missing {
        ancestor: &'a Node,
        depth: usize,
    },
}

/// A tree, and what each domain owns in it.
#[derive(Clone)]
pub(crate) struct Tree {
    root: Arc<Node>,
    owned: Arc<BTreeMap<Domid, Owned>>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Arc::new(Node::new(Arc::new(Permissions::owned_by(0)), 0));
        let owned = Owned { nodes: 1, bytes: bytes_of("", &root) };
        Self { root, owned: Arc::new(BTreeMap::from([(0, owned)])) }
    }

    /// Whether both are the same, unchanged state.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }

    /// What the domain owns.
    pub(crate) fn owned_by(&self, domid: Domid) -> Owned {
        self.owned.get(&domid).copied().unwrap_or_default()
    }

    pub(crate) fn find(&self, path: &Path) -> Option<&Node> {
        self.root.descend(path.names())
    }

    pub(crate) fn lookup(&self, path: &Path) -> Lookup<'_> {
        let mut node = &*self.root;
        for (depth, name) in path.names().enumerate() {
            match node.children.get(name) {
                Some(child) => node = child,
                None => return Lookup::Missing { ancestor: node, depth },
            }
        }
        Lookup::Found(node)
    }

    /// Calls `visit` with each node below the path.
    pub(crate) fn visit_below(&self, path: &str, mut visit: impl FnMut(&Arc<str>, &Node)) {
        let Some(top) = self.root.descend(path.split('/').filter(|name| !name.is_empty())) else {
            return;
        };
        let mut pending = vec![(Arc::from(path.trim_end_matches('/')), top)];
        while let Some((path, node)) = pending.pop() {
            for (name, child) in &node.children {
                let path: Arc<str> = Arc::from(format!("{path}/{name}"));
                visit(&path, child);
                pending.push((path, child));
            }
        }
    }

    /// The node, if the caller has the right. Whoever lacks the right on the nearest existing
    /// ancestor does not learn whether the node exists.
    pub(crate) fn access(
        &self,
        caller: Caller,
        path: &Path,
        need: Need,
    ) -> Result<&Node, StoreError> {
        match self.lookup(path) {
            Lookup::Found(node) => permit(node, caller, path, need).map(|()| node),
            Lookup::Missing { ancestor, .. } => {
                permit(ancestor, caller, path, need)?;
                Err(StoreError::NotFound { path: path.to_string() })
            }
        }
    }

    /// Makes one change, or none if it fails. `None` says that there was nothing to do.
    pub(crate) fn apply(
        &mut self,
        caller: Caller,
        change: &Change,
        quota: &Quota,
        stamp: u64,
    ) -> Result<Option<Effect>, StoreError> {
        match change {
            Change::Write { path, value } => {
                check_value(caller, value, quota)?;
                self.write(caller, path, value, quota, stamp).map(Some)
            }
            Change::Mkdir { path } => match self.lookup(path) {
                Lookup::Found(node) => permit(node, caller, path, Need::Write).map(|()| None),
                Lookup::Missing { .. } => {
                    self.create(caller, path, Arc::from(Vec::new()), quota, stamp).map(Some)
                }
            },
            Change::Remove { path } => self.remove(caller, path, stamp),
            Change::SetPermissions { path, permissions } => {
                self.set_permissions(caller, path, permissions, quota, stamp).map(Some)
            }
        }
    }

    fn write(
        &mut self,
        caller: Caller,
        path: &Path,
        value: &Arc<[u8]>,
        quota: &Quota,
        stamp: u64,
    ) -> Result<Effect, StoreError> {
        match self.lookup(path) {
            Lookup::Found(node) => {
                permit(node, caller, path, Need::Write)?;
                let (owner, old) = (node.permissions.owner(), node.value.len());
                let bytes = self.owned_by(owner).bytes.saturating_sub(old) + value.len();
                if value.len() > old {
                    limit(caller, "bytes of nodes", bytes, quota.bytes)?;
                }
                self.count(owner, |owned| owned.bytes = bytes);
            }
            Lookup::Missing { .. } => {
                return self.create(caller, path, Arc::clone(value), quota, stamp);
            }
        }
        let (node, parent) = self.node_mut(path).ok_or_else(|| not_found(path))?;
        node.value = Arc::clone(value);
        node.generation = stamp;
        Ok(Effect {
            path: path.clone(),
            audience: audience(&node.permissions, parent),
            removed: None,
        })
    }

    /// Creates the node and its missing ancestors, which are empty and have the same permissions.
    fn create(
        &mut self,
        caller: Caller,
        path: &Path,
        value: Arc<[u8]>,
        quota: &Quota,
        stamp: u64,
    ) -> Result<Effect, StoreError> {
        let Lookup::Missing { ancestor, depth } = self.lookup(path) else {
            return Err(not_found(path));
        };
        permit(ancestor, caller, path, Need::Write)?;
        let permissions = Arc::new(ancestor.permissions.inherited_by(caller));
        let owner = permissions.owner();
        let mut total = self.owned_by(owner);
        for name in path.names().skip(depth) {
            total.nodes += 1;
            total.bytes += name.len() + permission_bytes(&permissions);
        }
        total.bytes += value.len();
        limit(caller, "nodes", total.nodes, quota.nodes)?;
        limit(caller, "bytes of nodes", total.bytes, quota.bytes)?;

        let mut parent = None;
        let mut node = Arc::make_mut(&mut self.root);
        for name in path.names() {
            parent = Some(Arc::clone(&node.permissions));
            if !node.children.contains_key(name) {
                node.children_generation = stamp;
            }
            let child = node.children.entry(Arc::from(name));
            node = Arc::make_mut(
                child.or_insert_with(|| Arc::new(Node::new(Arc::clone(&permissions), stamp))),
            );
        }
        node.value = value;
        self.count(owner, |owned| *owned = total);
        Ok(Effect { path: path.clone(), audience: audience(&permissions, parent), removed: None })
    }

    fn remove(
        &mut self,
        caller: Caller,
        path: &Path,
        stamp: u64,
    ) -> Result<Option<Effect>, StoreError> {
        let (Some(parent_path), Some(name)) = (path.parent(), path.name()) else {
            return Err(StoreError::RootRemoval);
        };
        match self.lookup(path) {
            Lookup::Found(node) => permit(node, caller, path, Need::Write)?,
            Lookup::Missing { ancestor, depth } => {
                permit(ancestor, caller, path, Need::Write)?;
                let parent_exists = depth + 1 == path.names().count();
                return if parent_exists { Ok(None) } else { Err(not_found(path)) };
            }
        }
        let (parent, _) = self.node_mut(&parent_path).ok_or_else(|| not_found(path))?;
        let removed = parent.children.remove(name).ok_or_else(|| not_found(path))?;
        parent.children_generation = stamp;
        let audience = audience(&removed.permissions, Some(Arc::clone(&parent.permissions)));
        self.discount(name, &removed);
        Ok(Some(Effect { path: path.clone(), audience, removed: Some(removed) }))
    }

    fn set_permissions(
        &mut self,
        caller: Caller,
        path: &Path,
        permissions: &Arc<Permissions>,
        quota: &Quota,
        stamp: u64,
    ) -> Result<Effect, StoreError> {
        let old = Arc::clone(&self.access(caller, path, Need::Own)?.permissions);
        check_permissions(caller, path, &old, permissions, quota)?;
        let name = path.name().unwrap_or_default();
        let (node, parent) = self.node_mut(path).ok_or_else(|| not_found(path))?;
        let before = bytes_of(name, node);
        node.permissions = Arc::clone(permissions);
        node.generation = stamp;
        let after = bytes_of(name, node);
        let mut audience = audience(permissions, parent);
        self.count(old.owner(), |owned| owned.take(before));
        self.count(permissions.owner(), |owned| owned.give(after));
        audience.push(old);
        Ok(Effect { path: path.clone(), audience, removed: None })
    }

    /// Gives the nodes of a domain to domain 0 and strikes the domain from all lists, so that a
    /// later domain with the same id inherits nothing.
    pub(crate) fn forget(&mut self, domid: Domid, stamp: u64) {
        let mut hits = Vec::new();
        let mut pending = vec![(Path::root(), &self.root)];
        while let Some((path, node)) = pending.pop() {
            if let Some(permissions) = node.permissions.without(domid) {
                hits.push((path.clone(), Arc::new(permissions)));
            }
            pending.extend(node.children.iter().map(|(name, child)| (path.child(name), child)));
        }
        for (path, permissions) in hits {
            if let Some((node, _)) = self.node_mut(&path) {
                node.permissions = permissions;
                node.generation = stamp;
            }
        }
        // The lists became shorter: count anew.
        self.owned = Arc::new(self.counted());
    }

    /// Gives all nodes the same stamp.
    pub(crate) fn restamp(&mut self, stamp: u64) {
        let mut pending = vec![&mut self.root];
        while let Some(node) = pending.pop() {
            let node = Arc::make_mut(node);
            node.generation = stamp;
            node.children_generation = stamp;
            pending.extend(node.children.values_mut());
        }
    }

    /// The node for changing, unshared together with its ancestors, and its parent's permissions.
    fn node_mut(&mut self, path: &Path) -> Option<(&mut Node, Option<Arc<Permissions>>)> {
        let mut parent = None;
        let mut node = Arc::make_mut(&mut self.root);
        for name in path.names() {
            parent = Some(Arc::clone(&node.permissions));
            node = Arc::make_mut(node.children.get_mut(name)?);
        }
        Some((node, parent))
    }

    fn count(&mut self, domid: Domid, update: impl FnOnce(&mut Owned)) {
        let owned = Arc::make_mut(&mut self.owned);
        let mut count = owned.get(&domid).copied().unwrap_or_default();
        update(&mut count);
        if count.nodes == 0 {
            owned.remove(&domid);
        } else {
            owned.insert(domid, count);
        }
    }

    fn discount(&mut self, name: &str, removed: &Arc<Node>) {
        let mut pending = vec![(name, removed)];
        while let Some((name, node)) = pending.pop() {
            self.count(node.permissions.owner(), |owned| owned.take(bytes_of(name, node)));
            pending.extend(node.children.iter().map(|(name, child)| (&**name, child)));
        }
    }

    /// Counts what each domain owns anew.
    fn counted(&self) -> BTreeMap<Domid, Owned> {
        let mut owned: BTreeMap<Domid, Owned> = BTreeMap::new();
        let mut pending = vec![("", &self.root)];
        while let Some((name, node)) = pending.pop() {
            owned.entry(node.permissions.owner()).or_default().give(bytes_of(name, node));
            pending.extend(node.children.iter().map(|(name, child)| (&**name, child)));
        }
        owned
    }

    /// Whether the running counts are right.
    pub(crate) fn is_consistent(&self) -> bool {
        self.counted() == *self.owned
    }
}
