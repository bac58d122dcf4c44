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
    /// Bytes of names, values and permissions of all nodes that the domain owns, and of the changes
    /// that one transaction makes.
    pub bytes: usize,
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

    /// No limit, for what was checked before.
    pub(crate) const NONE: Self = Self {
        nodes: usize::MAX,
        value_bytes: usize::MAX,
        bytes: usize::MAX,
        permissions: usize::MAX,
        watches: usize::MAX,
        transactions: usize::MAX,
        transaction_nodes: usize::MAX,
        outstanding: usize::MAX,
        events: usize::MAX,
    };

    /// The limits by the names that `GET_QUOTA` and `SET_QUOTA` use.
    pub(crate) const NAMES: [&'static str; 9] = [
        "nodes",
        "node-size",
        "memory",
        "node-permissions",
        "watches",
        "transactions",
        "transaction-nodes",
        "outstanding",
        "events",
    ];

    /// The limits in the order of their names.
    pub(crate) fn fields(&mut self) -> [&mut usize; 9] {
        [
            &mut self.nodes,
            &mut self.value_bytes,
            &mut self.bytes,
            &mut self.permissions,
            &mut self.watches,
            &mut self.transactions,
            &mut self.transaction_nodes,
            &mut self.outstanding,
            &mut self.events,
        ]
    }

    /// The limit with this name.
    pub(crate) fn field(&mut self, name: &[u8]) -> Option<&mut usize> {
        let at = Self::NAMES.iter().position(|known| known.as_bytes() == name)?;
        self.fields().into_iter().nth(at)
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            value_bytes: 2048,
            bytes: 1 << 20,
            permissions: 5,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
            outstanding: 20,
            events: 1024,
        }
    }
}
