//! Errors of the store, and the error names that travel on the wire.

use thiserror::Error;

use crate::path::PathError;
use crate::permissions::Domid;

macro_rules! errnos {
    ($($variant:ident $name:literal,)*) => {
        /// An error name of the wire protocol (`xsd_errors` in `xen/include/public/io/xs_wire.h`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is the errno of the same name")]
        pub enum Errno { $($variant,)* }

        impl Errno {
            /// The name as sent in an `ERROR` message, without the final NUL.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The errno with this wire name, or `None` if the protocol has no such name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

errnos! {
    Einval "EINVAL", Eacces "EACCES", Eexist "EEXIST", Eisdir "EISDIR", Enoent "ENOENT",
    Enomem "ENOMEM", Enospc "ENOSPC", Eio "EIO", Enotempty "ENOTEMPTY", Enosys "ENOSYS",
    Erofs "EROFS", Ebusy "EBUSY", Eagain "EAGAIN", Eisconn "EISCONN", E2big "E2BIG",
    Eperm "EPERM",
}

/// Why the store refused a request. [`StoreError::errno`] gives the name a client sees.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// The path is malformed.
    #[error(transparent)]
    BadPath(#[from] PathError),
    /// A permission is not one of `n`, `r`, `w`, `b` followed by a domain id.
    #[error("Permission {text:?} is not n, r, w or b followed by a domain id, such as r5")]
    BadPermission {
        /// The text as received, with invalid bytes replaced.
        text: String,
    },
    /// No node has this path.
    #[error("Node {path} does not exist")]
    NotFound {
        /// Absolute path of the missing node.
        path: String,
    },
    /// The permissions of the node, or of its nearest existing ancestor, forbid the access.
    #[error("Domain {domid} may not {need} {path}; its permissions must grant that first")]
    Denied {
        /// The domain that asked.
        domid: Domid,
        /// Absolute path of the node.
        path: String,
        /// What was needed: `read`, `write` or `change the permissions of`.
        need: &'static str,
    },
    /// An unprivileged domain tried to give a node away.
    #[error("Domain {domid} may not give {path} to domain {owner}; only domain 0 changes owners")]
    OwnerChange {
        /// The domain that asked.
        domid: Domid,
        /// Absolute path of the node.
        path: String,
        /// The owner it asked for.
        owner: Domid,
    },
    /// The request is for domain 0 only.
    #[error("Domain {domid} may not use {request}; it is for domain 0 only")]
    Privileged {
        /// The domain that asked.
        domid: Domid,
        /// Name of the request.
        request: &'static str,
    },
    /// The root node cannot be removed.
    #[error("The root node cannot be removed; remove its children")]
    RootRemoval,
    /// A quota of the domain is used up.
    #[error("Domain {domid} reached its quota of {limit} {what}; free some or raise the quota")]
    Quota {
        /// The domain that asked.
        domid: Domid,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// The name the reference implementation sends for this quota.
        errno: Errno,
    },
    /// A value or reply does not fit one message.
    #[error("{length} bytes do not fit a message of at most {limit}; send less or ask in parts")]
    TooLong {
        /// Length in bytes.
        length: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The client already has a watch with this path and token.
    #[error("A watch on {path} with this token exists already; choose another token")]
    WatchExists {
        /// Path of the watch as the client gave it.
        path: String,
    },
    /// The client has no watch with this path and token.
    #[error("No watch on {path} with this token; name it as it was registered")]
    NoWatch {
        /// Path of the watch as the client gave it.
        path: String,
    },
    /// Another client changed something that the transaction depends on.
    #[error("Transaction {transaction} conflicts with a later change; start it again")]
    Conflict {
        /// Id of the transaction, which has ended.
        transaction: u32,
    },
    /// The client has no such transaction.
    #[error("Transaction {transaction} is not open on this connection; start one first")]
    NoTransaction {
        /// Id as received.
        transaction: u32,
    },
    /// A transaction was started inside a transaction.
    #[error("Transactions do not nest; start one with transaction id 0")]
    NestedTransaction,
    /// The payload does not have the form that the request asks for.
    #[error("Malformed {request} request; expected {expected}")]
    BadRequest {
        /// Name of the request.
        request: &'static str,
        /// The expected payload, `|` standing for NUL.
        expected: &'static str,
    },
    /// The message type is not one that a client may send.
    #[error("Message type {kind} is not a request that this store knows")]
    UnknownRequest {
        /// The type as received.
        kind: u32,
    },
    /// The domain has not been introduced.
    #[error("Domain {domid} is not introduced; send INTRODUCE first")]
    NotIntroduced {
        /// The domain asked about.
        domid: Domid,
    },
    /// The domain id cannot be used here.
    #[error("Domain id {domid} cannot be used here; expected an ordinary guest domain")]
    BadDomain {
        /// The id as received.
        domid: Domid,
    },
    /// The connection was closed, or belongs to another store.
    #[error("The connection is not open in this store; open a new one")]
    Closed,
}

impl StoreError {
    /// The name that a client of the wire protocol gets for this error.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::BadPath(_)
            | Self::BadPermission { .. }
            | Self::RootRemoval
            | Self::BadRequest { .. }
            | Self::BadDomain { .. } => Errno::Einval,
            Self::NotFound { .. }
            | Self::NoWatch { .. }
            | Self::NoTransaction { .. }
            | Self::NotIntroduced { .. } => Errno::Enoent,
            Self::Denied { .. } | Self::Privileged { .. } => Errno::Eacces,
            Self::OwnerChange { .. } => Errno::Eperm,
            Self::Quota { errno, .. } => *errno,
            Self::TooLong { .. } => Errno::E2big,
            Self::WatchExists { .. } => Errno::Eexist,
            Self::Conflict { .. } => Errno::Eagain,
            Self::NestedTransaction => Errno::Ebusy,
            Self::UnknownRequest { .. } => Errno::Enosys,
            Self::Closed => Errno::Eio,
        }
    }
}
