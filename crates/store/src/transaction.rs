//! A transaction: a view of its own, the facts it depends on, and its changes.

use std::collections::BTreeMap;

use crate::error::StoreError;
use crate::path::Path;
use crate::permissions::{Caller, Need};
use crate::quota::Quota;
use crate::rules::limit;
use crate::tree::{Change, Effect, Lookup, Node, Tree};

/// Which part of a node a request depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Facet {
    /// Existence, value and permissions.
    Content,
    /// The names of the children.
    Children,
}

impl Facet {
    const fn generation(self, node: &Node) -> u64 {
        match self {
            Self::Content => node.generation,
            Self::Children => node.children_generation,
        }
    }
}

/// An open transaction of one client.
pub(crate) struct Transaction {
    /// The tree as it was at the start.
    base: Tree,
    /// The tree as this transaction sees it.
    view: Tree,
    /// Generations in `base` of everything looked at; `None` for absence.
    facts: BTreeMap<(Path, Facet), Option<u64>>,
    changes: Vec<Change>,
    /// Bytes of the changes.
    bytes: usize,
    effects: Vec<Effect>,
    /// Began before the store was started anew: it cannot be known what changed meanwhile, so it
    /// ends in a conflict.
    is_doomed: bool,
}

impl Transaction {
    pub(crate) fn new(tree: &Tree) -> Self {
        Self {
            base: tree.clone(),
            view: tree.clone(),
            facts: BTreeMap::new(),
            changes: Vec::new(),
            bytes: 0,
            effects: Vec::new(),
            is_doomed: false,
        }
    }

    /// Goes on with a transaction of a store that is gone; it will end in a conflict.
    pub(crate) fn doomed(tree: &Tree) -> Self {
        Self { is_doomed: true, ..Self::new(tree) }
    }

    /// Whether a commit has anything to bring in.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The node as this transaction sees it, noting the dependency.
    pub(crate) fn access(
        &mut self,
        caller: Caller,
        (path, facet): (&Path, Facet),
        need: Need,
        quota: &Quota,
    ) -> Result<&Node, StoreError> {
        self.observe(caller, path, facet, quota)?;
        self.view.access(caller, path, need)
    }

    /// Makes a change in the view and keeps it for the commit.
    pub(crate) fn apply(
        &mut self,
        caller: Caller,
        change: Change,
        quota: &Quota,
        stamp: u64,
    ) -> Result<(), StoreError> {
        self.observe(caller, change.path(), Facet::Content, quota)?;
        self.check_size(caller, self.changes.len() + 1, quota)?;
        let bytes = self.bytes + change.size();
        limit(caller, "bytes of changes per transaction", bytes, quota.bytes)?;
        self.effects.extend(self.view.apply(caller, &change, quota, stamp)?);
        // Kept even if there was nothing to do: that must still hold at the commit.
        self.changes.push(change);
        self.bytes = bytes;
        Ok(())
    }

    /// Brings the changes into `tree`, all of them or none.
    ///
    /// `None` is a conflict. A quota that others have used up since is an error.
    pub(crate) fn commit(
        self,
        tree: &mut Tree,
        caller: Caller,
        quota: &Quota,
        mut stamp: impl FnMut() -> u64,
    ) -> Result<Option<Vec<Effect>>, StoreError> {
        if self.is_doomed {
            return Ok(None);
        }
        if self.changes.is_empty() {
            return Ok(Some(Vec::new()));
        }
        if tree.is_same(&self.base) {
            *tree = self.view;
            return Ok(Some(self.effects));
        }
        if !self.facts.iter().all(|(fact, generation)| holds(tree, fact, *generation)) {
            return Ok(None);
        }
        let mut next = tree.clone();
        let mut effects = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            effects.extend(next.apply(caller, change, quota, stamp())?);
        }
        *tree = next;
        Ok(Some(effects))
    }

    fn observe(
        &mut self,
        caller: Caller,
        path: &Path,
        facet: Facet,
        quota: &Quota,
    ) -> Result<(), StoreError> {
        // Rights on a missing node come from the nearest ancestor in the view, which may differ
        // from that in the base after a removal within this transaction.
        if let Lookup::Missing { depth, .. } = self.view.lookup(path) {
            let ancestor = path.ancestor(depth);
            self.note(&ancestor, Facet::Content);
        }
        self.note(path, facet);
        self.check_size(caller, self.facts.len(), quota)
    }

    fn note(&mut self, path: &Path, facet: Facet) {
        match self.base.lookup(path) {
            Lookup::Found(node) => {
                self.facts.insert((path.clone(), facet), Some(facet.generation(node)));
                // The right to see the children is part of the content.
                self.facts.insert((path.clone(), Facet::Content), Some(node.generation));
            }
            Lookup::Missing { ancestor, depth } => {
                let content = Facet::Content;
                self.facts.insert((path.ancestor(depth), content), Some(ancestor.generation));
                self.facts.insert((path.ancestor(depth + 1), content), None);
            }
        }
    }

    fn check_size(&self, caller: Caller, size: usize, quota: &Quota) -> Result<(), StoreError> {
        limit(caller, "nodes per transaction", size, quota.transaction_nodes)
    }
}

fn holds(tree: &Tree, (path, facet): &(Path, Facet), generation: Option<u64>) -> bool {
    tree.find(path).map(|node| facet.generation(node)) == generation
}
