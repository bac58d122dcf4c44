//! Ethernet addresses of guests: fixed or made up, and each used once on this host.

use super::SetupError;
use kill_point::kill_point;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an address may be in use before it is called so, and how often it is tried.
const PATIENCE: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(2);

/// An Ethernet address.
pub type Mac = [u8; 6];

/// As it is written.
pub fn text(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// An address with Xen's prefix that is always the same for the same interface of the same domain.
/// `attempt` gives others, should it be in use.
pub fn made_up(domain: &str, device: u32, attempt: u8) -> Mac {
    // FNV-1a, 64 bits, folded.
    let number = device.to_be_bytes();
    let bytes = domain.as_bytes().iter().chain(&number).chain(std::slice::from_ref(&attempt));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, ..] = (hash ^ hash >> 24 ^ hash >> 48).to_le_bytes();
    // Xen's documents ask for the upper half of the range to be left to such addresses.
    [0x00, 0x16, 0x3e, a & 0x7f, b, c]
}

/// An address that this process uses on this host, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Lease {
    /// Takes an address for `user`; `Err(Ok(other))` if `other` has it.
    fn try_take(directory: &Path, mac: Mac, user: &str) -> Result<Self, io::Result<String>> {
        std::fs::create_dir_all(directory).map_err(Err)?;
        let path = directory.join(text(mac));
        let end = Instant::now() + PATIENCE;
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mode = Mode::RUSR | Mode::WUSR;
            let open = rustix::fs::open(&path, flags, mode);
            let mut file = File::from(open.map_err(|error| Err(error.into()))?);
            kill_point("mac.made");
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // Somebody looks whether it is a dead domain's, or that is just being killed.
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                    std::thread::sleep(LOOK);
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let mut other = String::new();
                    let _whoever = (&file).take(256).read_to_string(&mut other);
                    return Err(Ok(other));
                }
                Err(error) => return Err(Err(error.into())),
            }
            // Whoever had it may have removed the file before we locked it.
            let ours = file.metadata().map_err(Err)?;
            let there = std::fs::symlink_metadata(&path);
            if !there.is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
                continue;
            }
            kill_point("mac.locked");
            file.set_len(0).and_then(|()| file.write_all(user.as_bytes())).map_err(Err)?;
            kill_point("mac.written");
            return Ok(Self { path, _file: file });
        }
    }

    /// Takes the address `fixed`, or one made up for the interface `device` of the domain `uuid`.
    ///
    /// # Errors
    /// When it is in use on this host.
    pub fn take(
        directory: &Path,
        fixed: Option<Mac>,
        (name, uuid): (&str, &str),
        device: u32,
    ) -> Result<(Mac, Self), SetupError> {
        /// Others that are tried.
        const ATTEMPTS: u8 = 32;
        let mut result = Err(SetupError::NoMac);
        let attempts = if fixed.is_some() { 1 } else { ATTEMPTS };
        for attempt in 0..attempts {
            let mac = fixed.unwrap_or_else(|| made_up(uuid, device, attempt));
            match Self::try_take(directory, mac, name) {
                Ok(lease) => return Ok((mac, lease)),
                Err(Ok(user)) => result = Err(SetupError::MacInUse { mac: text(mac), user }),
                Err(Err(source)) => {
                    return Err(SetupError::Registry { path: directory.to_owned(), source });
                }
            }
        }
        result
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        kill_point("mac.leaving");
        let _is_left_behind = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_and_used_once() {
        let directory = tempfile::tempdir().unwrap();
        let take = |fixed, name: &str, device| {
            Lease::take(
                &directory.path().join("macs"),
                fixed,
                (name, &format!("uuid of {name}")),
                device,
            )
        };
        let (mac, lease) = take(None, "a", 0).unwrap();
        assert_eq!(mac[..3], [0x00, 0x16, 0x3e]);
        let (other, _other) = take(None, "a", 1).unwrap();
        assert_ne!(mac, other);
        let taken = take(Some(mac), "b", 0).unwrap_err();
        assert!(
            taken.to_string().contains(&text(mac)) && taken.to_string().contains("`a`"),
            "{taken}"
        );
        // Another one is made up then.
        assert_ne!(take(None, "a", 0).unwrap().0, mac);
        drop(lease);
        assert_eq!(take(None, "a", 0).unwrap().0, mac);
    }
}
