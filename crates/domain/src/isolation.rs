//! What keeps guest programs from their own guest's kernel.

use crate::sys::has_protection_keys;
use std::fmt;

/// Since 6.12 Linux writes signal frames whatever the protection keys say;
/// before, a fault of guest code would kill its process.
const OLDEST_FOR_KEYS: (u32, u32) = (6, 12);

/// How the host lets it be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Both in one process, protection keys between them.
    Keys,
    /// In processes of their own: slower system calls, equally safe.
    Processes(Why),
}

/// Why keys are not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The processor, or the virtual machine this is, has none.
    NoKeys,
    /// The kernel is too old for them.
    OldKernel,
    /// The environment asked for it.
    Asked,
}

impl Isolation {
    /// The best way on this host; `flags` ([`boundary::setup_flag`]) may ask for processes.
    pub fn choose(flags: u32) -> Self {
        if flags & boundary::setup_flag::SEPARATE != 0 {
            Self::Processes(Why::Asked)
        } else if !has_protection_keys() {
            Self::Processes(Why::NoKeys)
        } else if kernel_version() < OLDEST_FOR_KEYS {
            Self::Processes(Why::OldKernel)
        } else {
            Self::Keys
        }
    }

    /// The bit of [`boundary::setup_flag`] that tells the monitor.
    pub fn flag(self) -> u32 {
        match self {
            Self::Keys => 0,
            Self::Processes(_) => boundary::setup_flag::SEPARATE,
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "protection keys",
            Self::Processes(Why::NoKeys) => {
                "processes (this host has no protection keys: system calls are slower)"
            }
            Self::Processes(Why::OldKernel) => {
                "processes (this kernel is older than 6.12: system calls are slower)"
            }
            Self::Processes(Why::Asked) => "processes (as asked)",
        })
    }
}

/// Major and minor number of the host's kernel.
pub fn kernel_version() -> (u32, u32) {
    version_of(rustix::system::uname().release().to_bytes())
}

/// Major and minor number at the start of a release's name.
fn version_of(release: &[u8]) -> (u32, u32) {
    let mut numbers = release.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        let text = std::str::from_utf8(digits).unwrap_or_default();
        text.parse().unwrap_or(0)
    });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version_of(b"6.12.9+deb12-cloud-amd64"), (6, 12));
        assert_eq!(version_of(b"5.10.0"), (5, 10));
        assert_eq!(version_of(b"7"), (7, 0));
        assert_eq!(version_of(b"what"), (0, 0));
        assert!(version_of(b"6.9.1") < OLDEST_FOR_KEYS);
    }

    #[test]
    fn asking_wins() {
        let asked = Isolation::choose(boundary::setup_flag::SEPARATE);
        assert_eq!(asked, Isolation::Processes(Why::Asked));
        assert_eq!(asked.flag(), boundary::setup_flag::SEPARATE);
        assert_eq!(Isolation::Keys.flag(), 0);
    }
}
