//! Nodes of devices in the store (Xen `docs/misc/xenstore-paths`).

use super::opened::{Class, Opened};
use control::xenstore::{StoreError, Transaction};
use devices::wire::Nodes;

/// Most nodes of a frontend that are read, and longest values: what a frontend writes fits many
/// times over.
const MOST_NODES: usize = 512;
const LONGEST_VALUE: usize = 256;
/// How deep they lie: `queue-0/ring-ref`.
const DEPTH: usize = 2;

/// `XenbusState` (io/xenbus.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// There is no such node, or it holds nonsense.
    Unknown = 0,
    /// The frontend is not there yet.
    Initialising,
    /// The backend waits for the frontend.
    InitWait,
    /// The frontend waits for the backend.
    Initialised,
    /// In use.
    Connected,
    /// About to close.
    Closing,
    /// Closed.
    Closed,
}

impl State {
    /// The state that a node says.
    pub fn parse(value: Option<&[u8]>) -> Self {
        match value {
            Some(b"1") => Self::Initialising,
            Some(b"2") => Self::InitWait,
            Some(b"3") => Self::Initialised,
            Some(b"4") => Self::Connected,
            Some(b"5") => Self::Closing,
            Some(b"6") => Self::Closed,
            _ => Self::Unknown,
        }
    }
}

/// The two directories of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The guest's.
    pub frontend: String,
    /// Domain-0's.
    pub backend: String,
}

impl Place {
    /// The directories of a device.
    pub fn new(domid: u32, class: Class, number: u32) -> Self {
        let class = class.word();
        Self {
            frontend: format!("/local/domain/{domid}/device/{class}/{number}"),
            backend: format!("/local/domain/0/backend/{class}/{domid}/{number}"),
        }
    }

    /// Writes the nodes of a new device, both states Initialising. `domid` may write the
    /// frontend's directory.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn create(
        &self,
        to: &mut Transaction<'_>,
        domid: u32,
        opened: &Opened,
    ) -> Result<(), StoreError> {
        to.remove(&self.frontend)?;
        to.remove(&self.backend)?;
        to.write(&self.frontend, "")?;
        to.permit(&self.frontend, &[&format!("n{domid}"), "r0"])?;
        to.write(&self.backend, "")?;
        to.permit(&self.backend, &["n0", &format!("r{domid}")])?;
        let frontend = [("backend", self.backend.clone()), ("backend-id", "0".into())];
        let backend = [
            ("frontend", self.frontend.clone()),
            ("frontend-id", domid.to_string()),
            ("online", "1".into()),
        ];
        let write = |to: &mut Transaction<'_>, base: &str, key: &str, value: &str| {
            to.write(&format!("{base}/{key}"), value)
        };
        for (base, usual, own) in [
            (&self.backend, backend.as_slice(), &opened.backend),
            (&self.frontend, frontend.as_slice(), &opened.frontend),
        ] {
            for (key, value) in usual {
                write(to, base, key, value)?;
            }
            for (key, value) in own {
                write(to, base, key, value)?;
            }
            // Last: who sees the state may read all else.
            write(to, base, "state", "1")?;
        }
        Ok(())
    }

    /// Removes the device's nodes.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn remove(&self, to: &mut Transaction<'_>) -> Result<(), StoreError> {
        to.remove(&self.frontend)?;
        to.remove(&self.backend)
    }

    /// The frontend's state.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn frontend_state(&self, from: &mut Transaction<'_>) -> Result<State, StoreError> {
        let value = from.read(&format!("{}/state", self.frontend))?;
        Ok(State::parse(value.as_deref()))
    }

    /// Writes nodes of the backend, then its state.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn advance(
        &self,
        to: &mut Transaction<'_>,
        nodes: &Nodes,
        state: State,
    ) -> Result<(), StoreError> {
        for (key, value) in nodes {
            to.write(&format!("{}/{key}", self.backend), value)?;
        }
        to.write(&format!("{}/state", self.backend), (state as u8).to_string())
    }

    /// All nodes of the frontend's directory, which the guest wrote.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn frontend_nodes(&self, from: &mut Transaction<'_>) -> Result<Nodes, StoreError> {
        let mut nodes = Nodes::new();
        self.gather(from, "", DEPTH, &mut nodes)?;
        Ok(nodes)
    }

    fn gather(
        &self,
        from: &mut Transaction<'_>,
        below: &str,
        depth: usize,
        nodes: &mut Nodes,
    ) -> Result<(), StoreError> {
        let base = format!("{}{below}", self.frontend);
        for name in from.list(&base)? {
            if nodes.len() >= MOST_NODES {
                break;
            }
            let (key, path) = (format!("{below}/{name}"), format!("{base}/{name}"));
            let value = from.read(&path)?.unwrap_or_default();
            if value.is_empty() && depth > 1 {
                self.gather(from, &key, depth - 1, nodes)?;
            } else if value.len() <= LONGEST_VALUE
                && let Ok(value) = String::from_utf8(value)
            {
                nodes.insert(key.trim_start_matches('/').to_owned(), value);
            }
        }
        Ok(())
    }
}
