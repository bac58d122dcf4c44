//! `block-resize`: a disk becomes larger while its domain runs.

use std::time::Duration;

use clap::ArgMatches;
use control::{ClientError, DiskSize, ErrorCode, Request, kill_point};

use crate::daemon::connect_for;
use crate::devices::{device, disk_number};
use crate::error::Error;
use crate::word;

/// How long it may take: what was written to the image must be on the host's disk before and after.
const PATIENCE: Duration = Duration::from_secs(30);

/// `block-resize D DevId [+]SIZE`.
///
/// # Errors
///
/// When a word is wrong, the domain has no such disk, its image cannot grow, or the host has no room;
/// it keeps its size then.
pub fn block_resize(matches: &ArgMatches) -> Result<(), Error> {
    let command = "block-resize";
    let number = disk_number(matches, command)?;
    let text = word(matches, "size");
    let size = size(text).ok_or_else(|| {
        let why = format!("'{text}' is no size: bytes, or as 512M, 20G, +2G.");
        Error::usage(command, why)
    })?;
    let (_, mut client) = connect_for(word(matches, "domain"), "resize a disk of", PATIENCE)?;
    kill_point("xm.resize.connected");
    match client.order(&Request::DeviceResize { number, size }) {
        Err(ClientError::Refused(failure)) if failure.code == ErrorCode::NotFound => {
            Err(Error::NoDevice { device: device(matches).to_owned() })
        }
        result => Ok(result?),
    }
}

/// A size, or what is added to it: bytes, with a letter for a power of 1024.
fn size(text: &str) -> Option<DiskSize> {
    let (make, text): (fn(u64) -> DiskSize, _) = match text.strip_prefix('+') {
        Some(more) => (DiskSize::More, more),
        None => (DiskSize::All, text),
    };
    let letters = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let last = text.chars().next_back()?.to_ascii_uppercase();
    let power = letters.iter().find(|(letter, _)| *letter == last).map(|(_, power)| *power);
    let digits = if power.is_some() { text.get(..text.len() - 1)? } else { text };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << power.unwrap_or(0)).map(make)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_truncate_and_qemu() {
        assert_eq!(size("1048576"), Some(DiskSize::All(1 << 20)));
        assert_eq!(size("20G"), Some(DiskSize::All(20 << 30)));
        assert_eq!(size("+512m"), Some(DiskSize::More(512 << 20)));
        assert_eq!(size("+3T"), Some(DiskSize::More(3 << 40)));
        for wrong in
            ["", "+", "G", "-1G", "1.5G", "1GB", "0x10", "++1", "1 G", "99999999T", "1\u{e9}"]
        {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
