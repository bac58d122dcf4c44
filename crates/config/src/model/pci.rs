//! Passed-through PCI devices.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::spec::{Piece, pieces};
use crate::error::SpecError;

/// A physical PCI function given to the domain alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciDevice {
    /// PCI segment ("domain").
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Slot, below 32.
    pub slot: u8,
    /// Function, below 8.
    pub function: u8,
    /// Slot in the guest, below 32.
    pub virtual_slot: Option<u8>,
    /// Further `key=value` options, in order.
    pub options: Vec<(String, String)>,
}

impl PciDevice {
    /// Reads `[SSSS:]BB:SS.F[@slot][,option=value...]` or the old `BB,SS,F`;
    /// numbers are hexadecimal.
    ///
    /// # Errors
    /// Points at the piece that is wrong.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        let list: Vec<_> = pieces(spec).collect();
        if let [bus, slot, function] = list.as_slice() {
            let numbers = [bus, slot, function].map(|p| hex(p.text, 0xff));
            if let [Some(bus), Some(slot), Some(function)] = numbers {
                let address = (0, bus, slot, function);
                return Self::checked(address, None, Vec::new())
                    .ok_or_else(|| bad_address(spec, 0..spec.len()));
            }
        }
        let Some((first, rest)) = list.split_first() else {
            return Err(bad_address(spec, 0..spec.len()));
        };
        let mut options = Vec::new();
        for piece in rest {
            options.push(option(piece)?);
        }
        let (address, virtual_slot) = match first.text.split_once('@') {
            None => (first.text, None),
            Some((address, slot)) => {
                let wrong = || first.error(format!("`{slot}` is not a slot number (0 to 1f)"));
                let slot = hex(slot.trim_start_matches("0x"), 31).ok_or_else(wrong)?;
                (address, Some(slot))
            }
        };
        split_address(address)
            .and_then(|found| Self::checked(found, virtual_slot, options))
            .ok_or_else(|| bad_address(first.text, first.range()))
    }

    fn checked(
        (segment, bus, slot, function): (u16, u16, u16, u16),
        virtual_slot: Option<u16>,
        options: Vec<(String, String)>,
    ) -> Option<Self> {
        Some(Self {
            segment,
            bus: u8::try_from(bus).ok()?,
            slot: u8::try_from(slot).ok().filter(|n| *n < 32)?,
            function: u8::try_from(function).ok().filter(|n| *n < 8)?,
            virtual_slot: match virtual_slot {
                Some(slot) => Some(u8::try_from(slot).ok()?),
                None => None,
            },
            options,
        })
    }
}

fn split_address(text: &str) -> Option<(u16, u16, u16, u16)> {
    let (front, function) = text.rsplit_once('.')?;
    let (front, slot) = front.rsplit_once(':')?;
    let (segment, bus) = match front.split_once(':') {
        Some((segment, bus)) => (hex(segment, u16::MAX)?, bus),
        None => (0, front),
    };
    Some((segment, hex(bus, 0xff)?, hex(slot, 31)?, hex(function, 7)?))
}

fn option(piece: &Piece<'_>) -> Result<(String, String), SpecError> {
    let wrong =
        || piece.error(format!("`{}` is not an option", piece.text)).help("write key=value");
    let (key, value) = piece.pair().filter(|(key, _)| !key.text.is_empty()).ok_or_else(wrong)?;
    Ok((key.text.to_owned(), value.text.to_owned()))
}

fn hex(text: &str, most: u16) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_hexdigit()) && text.len() <= 4;
    u16::from_str_radix(text, 16).ok().filter(|n| plain && *n <= most)
}

fn bad_address(text: &str, range: std::ops::Range<usize>) -> SpecError {
    SpecError::new(range, format!("`{text}` is not a PCI device"))
        .help("write bus:slot.function as lspci shows it, such as 0000:03:00.0")
}

impl fmt::Display for PciDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, bus, slot, function, .. } = self;
        write!(f, "{segment:04x}:{bus:02x}:{slot:02x}.{function:x}")?;
        if let Some(slot) = self.virtual_slot {
            write!(f, "@{slot:x}")?;
        }
        self.options.iter().try_for_each(|(key, value)| write!(f, ",{key}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (spec, canonical) in [
            ("03:00.0", "0000:03:00.0"),
            ("0001:0a:1f.7", "0001:0a:1f.7"),
            ("03:00.0@5", "0000:03:00.0@5"),
            ("03:00.0, msitranslate=1,power_mgmt=0", "0000:03:00.0,msitranslate=1,power_mgmt=0"),
            ("03,1a,1", "0000:03:1a.1"),
        ] {
            let device = PciDevice::parse(spec).unwrap();
            assert_eq!(device.to_string(), canonical);
            assert_eq!(PciDevice::parse(canonical), Ok(device));
        }
        for bad in
            ["", "03", "03:00", "03:20.0", "03:00.8", "03:00.0@20", "03:00.0,x", "1,2", "x:y.z"]
        {
            assert!(PciDevice::parse(bad).is_err(), "{bad}");
        }
    }
}
