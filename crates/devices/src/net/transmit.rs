//! What the guest sends: packets in the slots of the transmit ring.

use super::gather::Packet;
use super::headers::{Headers, LOOKED_AT, Transport, Version};
use super::link::{Offload, SHORTEST};
use super::netif::{
    Extra, ExtraSlot, Gso, GsoKind, MOST_SLOTS, TX_ENTRY, TxRequest, TxResponse, status, tx_flag,
};
use super::queue::Violation;
use crate::guest::{Access, Guest};
use crate::ring::BackRing;
use boundary::PAGE;
use std::sync::Arc;
use zerocopy::IntoBytes;

type Ring = BackRing<TX_ENTRY>;

/// The slots of a packet, copied and checked.
#[derive(Debug, Default)]
pub struct Slots {
    parts: Vec<TxRequest>,
    /// Extras behind the first slot.
    extras: u32,
    blank: bool,
    gso: Option<Gso>,
    size: usize,
}

impl Slots {
    /// Bytes of the packet.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Reads the slots of the next packet, and leaves them in the ring; false if there is none.
    ///
    /// # Errors
    /// When the frontend broke a rule.
    pub fn read(&mut self, ring: &Ring) -> Result<bool, Violation> {
        self.parts.clear();
        (self.extras, self.gso) = (0, None);
        let Some(slot) = ring.peek(0)? else { return Ok(false) };
        let first: TxRequest = zerocopy::transmute!(slot);
        self.size = usize::from(first.size);
        self.blank = first.flags & tx_flag::BLANK != 0;
        if first.flags & tx_flag::EXTRA != 0 {
            self.read_extras(ring)?;
        }
        let mut more = first.flags & tx_flag::MORE != 0;
        self.parts.push(first);
        let mut others = 0;
        while more {
            if self.parts.len() >= MOST_SLOTS {
                return Err(Violation::Slots);
            }
            let next = self.extras + u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
            let slot = ring.peek(next)?.ok_or(Violation::Unfinished)?;
            let part: TxRequest = zerocopy::transmute!(slot);
            others += usize::from(part.size);
            more = part.flags & tx_flag::MORE != 0;
            self.parts.push(part);
        }
        // The first slot has what is left of the whole for the others.
        let own = self.size.checked_sub(others);
        let own = own.ok_or(Violation::Size { whole: self.size, parts: others })?;
        if let Some(first) = self.parts.first_mut() {
            first.size = u16::try_from(own).unwrap_or(u16::MAX);
        }
        let outside = |part: &&TxRequest| u64::from(part.offset) + u64::from(part.size) > PAGE;
        match self.parts.iter().find(outside) {
            Some(part) => Err(Violation::Page { offset: part.offset, size: part.size.into() }),
            None => Ok(true),
        }
    }

    fn read_extras(&mut self, ring: &Ring) -> Result<(), Violation> {
        loop {
            self.extras += 1;
            let slot = ring.peek(self.extras)?.ok_or(Violation::Unfinished)?;
            let slot: ExtraSlot = zerocopy::transmute!(slot);
            let extra = slot.extra;
            // One of each type at most, and there is one type.
            if extra.kind != Extra::GSO || self.gso.is_some() {
                return Err(Violation::Extra(extra.kind));
            }
            let kind = match extra.gso {
                1 => Some(GsoKind::Tcp4),
                2 => Some(GsoKind::Tcp6),
                _ => None,
            };
            let wrong = Violation::Gso { kind: extra.gso, size: extra.size };
            let kind = kind.filter(|_| extra.size > 0).ok_or(wrong)?;
            self.gso = Some(Gso { kind, size: extra.size });
            if extra.flags & Extra::ANOTHER == 0 {
                return Ok(());
            }
        }
    }

    /// Takes the slots out of the ring.
    pub fn take(&self, ring: &mut Ring) {
        ring.skip(self.extras + u32::try_from(self.parts.len()).unwrap_or(0));
    }

    /// Answers them.
    pub fn respond(&self, ring: &mut Ring, sent: bool) {
        let status = if sent { status::OKAY } else { status::ERROR };
        let mut parts = self.parts.iter();
        if let Some(first) = parts.next() {
            ring.respond(TxResponse { id: first.id, status }.as_bytes());
        }
        for _ in 0..self.extras {
            ring.respond(TxResponse { id: 0, status: status::NULL }.as_bytes());
        }
        for part in parts {
            ring.respond(TxResponse { id: part.id, status }.as_bytes());
        }
    }

    /// Maps the packet, and looks at its headers; `None` if it cannot be sent.
    pub fn map(
        &self,
        guest: &Arc<Guest>,
        packet: &mut Packet,
    ) -> Option<(Option<Headers>, Offload)> {
        if self.size < SHORTEST {
            return None;
        }
        for part in &self.parts {
            let grant = guest.map(part.gref, Access::Read).ok()?;
            packet.push(grant, part.offset.into(), part.size.into())?;
        }
        let mut offload = Offload { blank: self.blank, validated: false, gso: self.gso };
        if !self.blank && self.gso.is_none() {
            return Some((None, offload));
        }
        let headers = Headers::parse(packet.head()).filter(|found| found.end <= self.size)?;
        if let Some(gso) = self.gso {
            let version = match gso.kind {
                GsoKind::Tcp4 => Version::V4,
                GsoKind::Tcp6 => Version::V6,
            };
            // A frame with padding is not large.
            let whole = headers.end == self.size || self.size <= LOOKED_AT;
            if headers.version != version || headers.transport != Transport::Tcp || !whole {
                return None;
            }
            // Each segment gets its own checksum.
            offload.blank = true;
            if self.size - headers.payload <= usize::from(gso.size) {
                // There is nothing to cut.
                offload.gso = None;
            }
        }
        Some((Some(headers), offload))
    }
}
