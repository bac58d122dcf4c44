//! A queue: a pair of rings with their event channels.

use super::frontend::QueueNodes;
use super::netif::{RX_ENTRY, TX_ENTRY};
use crate::guest::{Guest, Port};
use crate::ring::{BackRing, RingError};
use std::sync::Arc;

/// Why a frontend is not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The ring itself.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// A packet whose last slot says that it goes on.
    #[error("a packet ends in the middle: its last slot announces another one")]
    Unfinished,
    /// A packet of many slots.
    #[error("a packet of more than {} slots", super::netif::MOST_SLOTS)]
    Slots,
    /// The slots of a packet hold more than the whole.
    #[error("the slots of a packet hold {parts} bytes or more, but the packet has {whole}")]
    Size {
        /// Its size.
        whole: usize,
        /// Bytes in its slots.
        parts: usize,
    },
    /// A slot crosses a page.
    #[error("a slot of {size} bytes at offset {offset} leaves its page")]
    Page {
        /// Where it starts.
        offset: u16,
        /// Its bytes.
        size: usize,
    },
    /// An extra that was not agreed upon.
    #[error("an extra information of type {0} was not agreed upon")]
    Extra(u8),
    /// A packet to be cut in an unknown way.
    #[error(
        "a packet is to be cut into segments of {size} bytes, type {kind}: that is not possible"
    )]
    Gso {
        /// The type.
        kind: u8,
        /// Bytes of a segment.
        size: u16,
    },
    /// There is no such port.
    #[error("there is no event channel {0}")]
    Port(u32),
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    /// What the guest sends.
    pub tx: BackRing<TX_ENTRY>,
    /// What it receives.
    pub rx: BackRing<RX_ENTRY>,
    tx_port: Port,
    rx_port: Port,
}

impl Queue {
    /// Maps the rings and binds the ports.
    ///
    /// # Errors
    /// When the rings are not granted or a port cannot be.
    pub fn connect(guest: &Arc<Guest>, nodes: &QueueNodes) -> Result<Self, Violation> {
        let port = |port| guest.bind(port).ok_or(Violation::Port(port));
        Ok(Self {
            tx: BackRing::attach(guest, &[nodes.tx_ring])?,
            rx: BackRing::attach(guest, &[nodes.rx_ring])?,
            tx_port: port(nodes.tx_port)?,
            rx_port: port(nodes.rx_port)?,
        })
    }

    /// Shows the guest what was done, and notifies it if it wants that.
    pub fn publish(&mut self) {
        if self.tx.publish() {
            self.tx_port.notify();
        }
        if self.rx.publish() {
            self.rx_port.notify();
        }
    }

    /// Notifies the guest in any case: a backend that came after one that crashed does not know
    /// whether that one still did.
    pub fn notify(&self) {
        self.tx_port.notify();
        self.rx_port.notify();
    }
}
