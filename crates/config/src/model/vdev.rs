//! Names of virtual disks and their vbd numbers (Xen `docs/misc/vbd-interface`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Linux majors of SCSI disks beyond the sixteenth, per sixteen disks.
const SCSI_MAJORS: [u32; 16] =
    [8, 65, 66, 67, 68, 69, 70, 71, 128, 129, 130, 131, 132, 133, 134, 135];
const IDE_MAJORS: [u32; 2] = [3, 22];
const XVD_MAJOR: u32 = 202;
/// Marks the number of an xvd disk or partition beyond the sixteenth.
const EXTENDED: u32 = 1 << 28;
/// Disks an extended number has room for.
const EXTENDED_DISKS: u32 = 1 << 20;

/// Why a word is not the name of a virtual disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VdevError {
    /// Neither a known name nor a number.
    #[error(
        "`{0}` is not a virtual disk: use a name such as xvda, xvda1, sda1 or hda, or a number"
    )]
    Unknown(String),
    /// The disk is beyond what the naming scheme has room for.
    #[error("`{name}` is beyond the last disk of its kind, {last}")]
    DiskTooHigh {
        /// The name as given.
        name: String,
        /// The last name possible.
        last: &'static str,
    },
    /// The partition number is too large.
    #[error("`{name}` has no such partition: the highest is {highest}")]
    PartitionTooHigh {
        /// The name as given.
        name: String,
        /// Highest partition of such a disk.
        highest: u32,
    },
}

/// The number of the virtual block device called `name`, as it stands in
/// xenstore: `xvda` is 51712, `sda1` is 2049, `hdc` is 5632. A decimal or
/// `0x` number stands for itself.
///
/// # Errors
/// Unknown names, and disks or partitions out of range.
pub fn vbd_number(name: &str) -> Result<u32, VdevError> {
    let unknown = || VdevError::Unknown(name.to_owned());
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return plain_number(name).ok_or_else(unknown);
    }
    let (scheme, disk, partition) = split(name).ok_or_else(unknown)?;
    let disk_too_high = |last| VdevError::DiskTooHigh { name: name.to_owned(), last };
    let check = |highest: u32| match partition <= highest {
        true => Ok(()),
        false => Err(VdevError::PartitionTooHigh { name: name.to_owned(), highest }),
    };
    match scheme {
        Scheme::Xvd => {
            check(255)?;
            if disk < 16 && partition < 16 {
                return Ok(XVD_MAJOR << 8 | disk << 4 | partition);
            }
            if disk >= EXTENDED_DISKS {
                return Err(disk_too_high("xvdbgqcv"));
            }
            Ok(EXTENDED | disk << 8 | partition)
        }
        Scheme::Scsi => {
            let major = SCSI_MAJORS.get((disk / 16) as usize).ok_or(disk_too_high("sdiv"))?;
            check(15)?;
            Ok(major << 8 | (disk % 16) << 4 | partition)
        }
        Scheme::Ide => {
            let major = IDE_MAJORS.get((disk / 2) as usize).ok_or(disk_too_high("hdd"))?;
            check(63)?;
            Ok(major << 8 | (disk % 2) << 6 | partition)
        }
    }
}

#[derive(Clone, Copy)]
enum Scheme {
    Xvd,
    Scsi,
    Ide,
}

/// Scheme, disk and partition number of a name.
fn split(name: &str) -> Option<(Scheme, u32, u32)> {
    if let Some(rest) =
        name.strip_prefix('d').filter(|r| r.starts_with(|c: char| c.is_ascii_digit()))
    {
        let (disk, partition) = rest.split_once('p').unwrap_or((rest, "0"));
        return Some((Scheme::Xvd, digits(disk)?, digits(partition)?));
    }
    let (scheme, rest) = [("xvd", Scheme::Xvd), ("sd", Scheme::Scsi), ("hd", Scheme::Ide)]
        .into_iter()
        .find_map(|(prefix, scheme)| Some((scheme, name.strip_prefix(prefix)?)))?;
    let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
    let disk = disk_index(rest.get(..letters)?)?;
    let partition = match rest.get(letters..)? {
        "" => 0,
        text => digits(text).filter(|n| *n > 0)?,
    };
    Some((scheme, disk, partition))
}

/// `a` is 0, `z` 25, `aa` 26.
fn disk_index(letters: &str) -> Option<u32> {
    if letters.is_empty() || letters.len() > 6 {
        return None;
    }
    let ordinal = letters.bytes().fold(0u32, |sum, b| sum * 26 + u32::from(b - b'a') + 1);
    Some(ordinal - 1)
}

/// A decimal number without sign and leading zeros.
fn digits(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn plain_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(hex, 16).ok()
        }
        Some(_) => None,
        None => digits(text),
    }
}

/// The name of a virtual disk, known to have a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Vdev(String);

impl Vdev {
    /// Reads a name such as `xvda1` or `sda1`, with or without `/dev/`, or a number.
    ///
    /// # Errors
    /// See [`vbd_number`].
    pub fn parse(text: &str) -> Result<Self, VdevError> {
        let name = text.strip_prefix("/dev/").unwrap_or(text);
        vbd_number(name)?;
        Ok(Self(name.to_owned()))
    }

    /// The name, without `/dev/`.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The number in xenstore (`virtual-device`).
    pub fn number(&self) -> u32 {
        // Checked when the name was made; 0 is no valid device.
        vbd_number(&self.0).unwrap_or(0)
    }
}

impl fmt::Display for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Vdev> for String {
    fn from(vdev: Vdev) -> Self {
        vdev.0
    }
}

impl TryFrom<String> for Vdev {
    type Error = VdevError;

    fn try_from(text: String) -> Result<Self, VdevError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_names() {
        let table = [
            ("xvda", 51712),
            ("xvda1", 51713),
            ("xvdb", 51728),
            ("xvdp15", 202 * 256 + 15 * 16 + 15),
            ("xvdq", (1 << 28) + 16 * 256),
            ("xvda16", (1 << 28) + 16),
            ("xvdaa", (1 << 28) + 26 * 256),
            ("xvdb255", (1 << 28) + 256 + 255),
            ("d0", 51712),
            ("d1p2", 51730),
            ("sda", 2048),
            ("sda1", 2049),
            ("sdp15", 8 * 256 + 255),
            ("sdq", 65 * 256),
            ("sdiv15", 135 * 256 + 255),
            ("hda", 768),
            ("hda1", 769),
            ("hdb", 768 + 64),
            ("hdc", 5632),
            ("hdd63", 22 * 256 + 127),
            ("51712", 51712),
            ("0xca00", 51712),
        ];
        for (name, number) in table {
            assert_eq!(vbd_number(name), Ok(number), "{name}");
        }
    }

    #[test]
    fn what_is_no_disk() {
        let bad = [
            "",
            "xvd",
            "xvda0",
            "xvda01",
            "xvda256",
            "sda16",
            "hde",
            "sdiw",
            "hda64",
            "vda",
            "sdA",
            "xvdzzzzzz",
            "xvdzzzzzzz",
            "0x",
            "0x+1",
            "99999999999",
            "d",
            "d1p",
            "sda-1",
            "xvdā",
            "xvdbgqcw",
        ];
        for name in bad {
            assert!(vbd_number(name).is_err(), "{name}");
        }
        assert!(vbd_number("xvdbgqcv").is_ok());
    }
}
