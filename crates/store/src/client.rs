//! What the store keeps for each client.

use std::collections::BTreeMap;

use crate::events::EventQueue;
use crate::permissions::Domid;
use crate::transaction::Transaction;

/// Names a client of one store; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientId(pub(crate) u64);

impl ClientId {
    /// The host side itself, which is always there.
    pub(crate) const HOST: Self = Self(0);
}

/// One client: the host, or one connection.
pub(crate) struct Client {
    pub(crate) domid: Domid,
    pub(crate) transactions: BTreeMap<u32, Transaction>,
    last_transaction: u32,
    pub(crate) watches: usize,
    pub(crate) events: EventQueue,
}

impl Client {
    pub(crate) fn new(domid: Domid) -> Self {
        Self {
            domid,
            transactions: BTreeMap::new(),
            last_transaction: 0,
            watches: 0,
            events: EventQueue::default(),
        }
    }

    /// Opens a transaction under an id that is neither 0 nor in use.
    pub(crate) fn open(&mut self, transaction: Transaction) -> u32 {
        loop {
            self.last_transaction = self.last_transaction.wrapping_add(1);
            if self.last_transaction != 0 && !self.transactions.contains_key(&self.last_transaction)
            {
                break;
            }
        }
        self.transactions.insert(self.last_transaction, transaction);
        self.last_transaction
    }

    /// Goes on with a transaction under the id that the client knows.
    pub(crate) fn adopt(&mut self, id: u32, transaction: Transaction) {
        self.last_transaction = self.last_transaction.max(id);
        self.transactions.insert(id, transaction);
    }
}
