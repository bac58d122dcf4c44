//! What the guest receives: packets in pages that it offered in the receive ring.

use super::frontend::Features;
use super::link::Offload;
use super::netif::{Extra, RX_ENTRY, RxRequest, RxResponse, rx_flag, status};
use crate::guest::{Access, Guest};
use crate::ring::{BackRing, RingError};
use boundary::PAGE;
use std::sync::Arc;
use zerocopy::IntoBytes;

type Ring = BackRing<RX_ENTRY>;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The guest has it.
    Yes,
    /// The guest cannot receive such a packet, or refused a page.
    Dropped,
    /// It waits for so many pages.
    NoRoom(u32),
}

/// Gives a packet to the guest.
///
/// # Errors
/// When the frontend broke a rule.
pub fn receive(
    guest: &Arc<Guest>,
    ring: &mut Ring,
    frame: &[u8],
    offload: &Offload,
    features: &Features,
) -> Result<Received, RingError> {
    let pages = frame.len().div_ceil(PAGE as usize);
    let unable = offload.gso.is_some_and(|gso| !features.takes(gso));
    if unable || pages == 0 || pages > 1 && !features.scatter {
        return Ok(Received::Dropped);
    }
    let slots = u32::try_from(pages + usize::from(offload.gso.is_some())).unwrap_or(u32::MAX);
    if ring.waiting()? < slots {
        return Ok(Received::NoRoom(slots));
    }
    let mut flags = 0;
    if offload.blank {
        flags |= rx_flag::BLANK;
    }
    if offload.validated {
        flags |= rx_flag::VALIDATED;
    }
    let mut whole = true;
    let mut extra = offload.gso;
    for (number, piece) in frame.chunks(PAGE as usize).enumerate() {
        if number + 1 < pages {
            flags |= rx_flag::MORE;
        }
        if extra.is_some() {
            flags |= rx_flag::EXTRA;
        }
        let Some(slot) = ring.take()? else { return Ok(Received::Dropped) };
        let request: RxRequest = zerocopy::transmute!(slot);
        let filled = fill(guest, &request, piece);
        whole &= filled.is_some();
        let status = filled.unwrap_or(status::ERROR);
        ring.respond(RxResponse { id: request.id, offset: 0, flags, status }.as_bytes());
        if let Some(gso) = extra.take() {
            // It stands where the answer to the next request would.
            let Some(_) = ring.take()? else { return Ok(Received::Dropped) };
            let gso = Extra {
                kind: Extra::GSO,
                flags: 0,
                size: gso.size,
                gso: gso.kind as u8,
                pad: 0,
                features: 0,
            };
            ring.respond(gso.as_bytes());
        }
        flags = 0;
    }
    Ok(if whole { Received::Yes } else { Received::Dropped })
}

/// Fills a page of the guest's.
fn fill(guest: &Arc<Guest>, request: &RxRequest, piece: &[u8]) -> Option<i16> {
    let grant = guest.map(request.gref, Access::Write).ok()?;
    grant.write(0, piece)?;
    i16::try_from(piece.len()).ok()
}
