//! What each domain owns in a tree, as its quota counts.

use crate::permissions::Permissions;
use crate::tree::Node;

/// What a domain owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) nodes: usize,
    pub(crate) bytes: usize,
}

impl Owned {
    /// One node more.
    pub(crate) const fn give(&mut self, bytes: usize) {
        self.nodes += 1;
        self.bytes += bytes;
    }

    /// One node less.
    pub(crate) const fn take(&mut self, bytes: usize) {
        self.nodes = self.nodes.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What a permission list counts.
pub(crate) fn permission_bytes(permissions: &Permissions) -> usize {
    4 * permissions.entries().count()
}

/// What a node counts towards its owner's bytes.
pub(crate) fn bytes_of(name: &str, node: &Node) -> usize {
    name.len() + node.value.len() + permission_bytes(&node.permissions)
}
