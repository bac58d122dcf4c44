//! Which releases can be built, and what is particular about each.

use crate::error::Error;

/// A family of releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl Distribution {
    /// The name on the command line, which is also `ID` in os-release(5).
    pub const fn id(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Ubuntu => "ubuntu",
        }
    }

    /// The name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::Ubuntu => "Ubuntu",
        }
    }

    /// The archive when the host names none.
    pub const fn archive(self) -> &'static str {
        match self {
            Self::Debian => "http://deb.debian.org/debian",
            Self::Ubuntu => "http://archive.ubuntu.com/ubuntu",
        }
    }

    /// The archive of security updates when the host names none.
    pub const fn security_archive(self) -> &'static str {
        match self {
            Self::Debian => "http://deb.debian.org/debian-security",
            Self::Ubuntu => "http://security.ubuntu.com/ubuntu",
        }
    }

    /// Components with the packages of [`Release::packages`]; ifupdown is in Ubuntu's universe.
    pub const fn components(self) -> &'static str {
        match self {
            Self::Debian => "main",
            Self::Ubuntu => "main universe",
        }
    }

    /// Where the distribution's keyring package puts the archive's keys, and that package.
    pub const fn keyring(self) -> (&'static str, &'static str) {
        match self {
            Self::Debian => {
                ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring")
            }
            Self::Ubuntu => ("/usr/share/keyrings/ubuntu-archive-keyring.gpg", "ubuntu-keyring"),
        }
    }

    /// A kernel for virtual machines that is built with Xen's paravirtual drivers.
    const fn kernel(self) -> &'static str {
        match self {
            Self::Debian => "linux-image-cloud-amd64",
            Self::Ubuntu => "linux-image-virtual",
        }
    }
}

/// One release of a distribution.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// Whose.
    pub distribution: Distribution,
    /// "12".
    pub version: &'static str,
    /// "bookworm", the name in the archive.
    pub codename: &'static str,
}

/// Everything that can be built, the newest of each distribution last.
pub static RELEASES: &[Release] = &[
    Release { distribution: Distribution::Debian, version: "12", codename: "bookworm" },
    Release { distribution: Distribution::Debian, version: "13", codename: "trixie" },
    Release { distribution: Distribution::Ubuntu, version: "22.04", codename: "jammy" },
    Release { distribution: Distribution::Ubuntu, version: "24.04", codename: "noble" },
];

/// In every guest: an init, names and addresses, a login, and what makes the initramfs. The
/// DHCP client is named since ifupdown only recommends one, and recommendations are not taken.
const BASE: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "ifupdown",
    "isc-dhcp-client",
    "iproute2",
    "iputils-ping",
    "netbase",
    "procps",
    "login",
    "passwd",
    "kmod",
    "e2fsprogs",
    "initramfs-tools",
    "lz4",
];

impl Release {
    /// The release that `word` names: `debian:12`, `debian:bookworm`, or `debian` for the newest.
    ///
    /// # Errors
    ///
    /// Names what was meant, if something is near, and what can be built.
    pub fn find(word: &str) -> Result<&'static Self, Error> {
        let lower = word.to_ascii_lowercase();
        let (distribution, version) = lower.split_once(':').unwrap_or((&lower, ""));
        if distribution == "alpine" {
            return Err(Error::Alpine);
        }
        let mut family = RELEASES.iter().filter(|known| known.distribution.id() == distribution);
        let found = match version {
            "" if !lower.contains(':') => family.next_back(),
            _ => family.find(|known| known.version == version || known.codename == version),
        };
        found.ok_or_else(|| Error::Release { word: word.to_owned(), near: nearest(&lower) })
    }

    /// `debian:12`.
    pub fn word(&self) -> String {
        format!("{}:{}", self.distribution.id(), self.version)
    }

    /// `Debian 12 (bookworm)`.
    pub fn title(&self) -> String {
        format!("{} {} ({})", self.distribution.title(), self.version, self.codename)
    }

    /// The packages of every guest of this release.
    pub fn packages(&self) -> impl Iterator<Item = &'static str> + use<> {
        BASE.iter().copied().chain([self.distribution.kernel()])
    }
}

/// The known release whose name differs least from `word`, if it differs little: another version
/// of the same distribution, or a slip of the pen.
fn nearest(word: &str) -> Option<String> {
    let names = RELEASES.iter().flat_map(|known| {
        let id = known.distribution.id();
        [known.word(), format!("{id}:{}", known.codename), id.to_owned(), known.codename.to_owned()]
            .map(|name| (distance(word, &name), known))
    });
    let (far, known) = names.min_by_key(|(far, _)| *far)?;
    (far <= 3).then(|| known.word())
}

/// The number of letters to change, add or take away (Levenshtein). Words of users are short; a
/// long one is near to nothing.
fn distance(one: &str, other: &str) -> usize {
    if one.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, left) in one.chars().enumerate() {
        let mut before = line;
        let mut last = line + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(other.chars()) {
            let changed = before + usize::from(left != right);
            before = *cell;
            last = changed.min(*cell + 1).min(last + 1);
            *cell = last;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(word: &str) -> Option<String> {
        match Release::find(word) {
            Err(Error::Release { near, .. }) => near,
            other => panic!("{word}: {other:?}"),
        }
    }

    #[test]
    fn releases_by_number_by_name_and_the_newest() {
        let codename = |word| Release::find(word).unwrap().codename;
        assert_eq!(codename("debian:12"), "bookworm");
        assert_eq!(codename("Debian:bookworm"), "bookworm");
        assert_eq!(codename("debian"), "trixie");
        assert_eq!(codename("ubuntu:22.04"), "jammy");
        for known in RELEASES {
            assert_eq!(Release::find(&known.word()).unwrap(), known);
        }
    }

    #[test]
    fn what_was_probably_meant() {
        assert_eq!(near("debain:12").as_deref(), Some("debian:12"));
        assert_eq!(near("bookworm").as_deref(), Some("debian:12"));
        assert_eq!(near("debian:11").as_deref(), Some("debian:12"));
        assert_eq!(near("ubuntu:24.10").as_deref(), Some("ubuntu:24.04"));
        assert_eq!(near("windows:95"), None);
        assert_eq!(near(&"x".repeat(1000)), None);
        assert_eq!(near("debian:").as_deref(), Some("debian:12"));
        assert!(matches!(Release::find("alpine:3.20"), Err(Error::Alpine)));
    }

    #[test]
    fn letters_that_differ() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", ""), 3);
    }
}
