//! xenstore: tree, transactions, watches, permissions, wire protocol.
