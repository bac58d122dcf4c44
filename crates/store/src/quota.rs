//! Limits on what one unprivileged domain may use.

/// Limits for one domain. Domain 0 is not limited, except that its pending events are bounded.
///
/// The defaults are those of the reference daemon where it has such a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Nodes that the domain owns.
    pub nodes: usize,
    /// Bytes of one value.
    pub value_bytes: usize,
    /// Entries in the permission list of one node.
    pub permissions: usize,
    /// Watches over all connections of the domain.
    pub watches: usize,
    /// Open transactions over all connections of the domain.
    pub transactions: usize,
    /// Nodes that one transaction may depend on, and changes that it may make.
    pub transaction_nodes: usize,
    /// Replies and events prepared but not yet taken; more requests are read only below this.
    pub outstanding: usize,
    /// Watch events waiting for delivery. Beyond this, a watch only reports its own path.
    pub events: usize,
}

impl Quota {
    /// Events that may wait for domain 0, whose queue a guest can fill if nobody takes them.
    pub const HOST_EVENTS: usize = 65_536;
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            value_bytes: 2048,
            permissions: 5,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
            outstanding: 20,
            events: 1024,
        }
    }
}
