//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::release::RELEASES;
use crate::size::Size;

/// Everything that ends a build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A release that is not known.
    #[error("There is no '{word}' to build{}.", did_you_mean(near.as_ref()))]
    Release {
        /// As it was given.
        word: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// Alpine has its own package manager and no archive that mmdebstrap reads.
    #[error("Alpine cannot be built yet: its packages need apk, which this host's archive lacks.")]
    Alpine,
    /// `--size` or `--swap`.
    #[error("{option}: {why}.")]
    Size {
        /// The option.
        option: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The disk cannot hold what was chosen.
    #[error("--size {given} is too small: the packages need about {needed}.")]
    TooSmall {
        /// What was asked for.
        given: Size,
        /// What is needed at least.
        needed: Size,
    },
    /// `--hostname`.
    #[error("--hostname '{name}' is no host name: {why}.")]
    Hostname {
        /// As it was given.
        name: String,
        /// The rule that is broken.
        why: &'static str,
    },
    /// `--mac`.
    #[error("--mac: {0}.")]
    Mac(String),
    /// `--vif`.
    #[error("--vif '{given}': {why}.")]
    Vif {
        /// As it was given.
        given: String,
        /// What is wrong.
        why: String,
    },
    /// `--memory`.
    #[error("--memory '{given}' is not a number of MiB between {least} and {most}.")]
    Memory {
        /// As it was given.
        given: String,
        /// The least that a domain can have.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A word of `--packages` that no package can be called.
    #[error("--packages: '{0}' cannot be the name of a package.")]
    PackageName(String),
    /// Packages that the archive does not have.
    #[error("The archive of {release} says: {line}")]
    NoPackage {
        /// Where it was looked for.
        release: String,
        /// apt's own line.
        line: String,
    },
    /// `--mirror` or `--security-mirror`.
    #[error("{option} '{url}' is not the address of an archive: {why}.")]
    Url {
        /// The option.
        option: &'static str,
        /// As it was given.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The archive cannot be read.
    #[error("The packages cannot be fetched from {mirror}: {line}")]
    Mirror {
        /// The archive.
        mirror: String,
        /// apt's own line.
        line: String,
    },
    /// The archive's signature cannot be checked.
    #[error("The signature of {mirror} cannot be checked: {line}")]
    Signature {
        /// The archive.
        mirror: String,
        /// What apt said, or which file is missing.
        line: String,
        /// The package with the keys.
        package: &'static str,
    },
    /// `--root-password`.
    #[error("--root-password cannot hold line ends or other control characters.")]
    Password,
    /// `--ssh-key`.
    #[error("--ssh-key {}: {why}.", path.display())]
    SshKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Programs of the host that are not there.
    #[error("This host lacks {}.", programs(missing))]
    Programs {
        /// Each program with the Debian package that has it.
        missing: Vec<(&'static str, &'static str)>,
    },
    /// No way to own files as root.
    #[error("This user cannot build a system: {0}.")]
    NoRoot(String),
    /// `-o`.
    #[error("-o {}: {why}.", path.display())]
    Directory {
        /// As it was given.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// Not enough room to work.
    #[error("{} has {free} free; building needs about {needed}.", place.display())]
    Space {
        /// The directory of the work.
        place: PathBuf,
        /// What is there.
        free: Size,
        /// What is needed.
        needed: Size,
    },
    /// The file system filled up during the work.
    #[error("The file system of {} is full.", .0.display())]
    Full(PathBuf),
    /// A program that failed for another reason.
    #[error("{program} failed ({status}). The last it said:\n{tail}")]
    Failed {
        /// Which.
        program: &'static str,
        /// Its exit code or signal.
        status: String,
        /// Its last lines.
        tail: String,
    },
    /// The finished tree lacks what a guest boots from.
    #[error("The packages were installed, but there is no {what} among them.")]
    Incomplete {
        /// What.
        what: &'static str,
    },
    /// The user gave up.
    #[error("Interrupted: nothing was built.")]
    Interrupted {
        /// The signal.
        signal: i32,
    },
    /// A file or program of the host.
    #[error("Cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Makes a function for `map_err`.
    pub(crate) fn at<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |source| {
            let source = source.into();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::Full(path.parent().unwrap_or(&path).to_path_buf())
                }
                _ => Self::Io { action, path, source },
            }
        }
    }

    /// What to do about it, if there is more to say than the error does.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Release { .. } | Self::Alpine => {
                let known: Vec<String> = RELEASES.iter().map(|release| release.word()).collect();
                return Some(format!("These can be built: {}.", known.join(", ")));
            }
            Self::TooSmall { needed, .. } => {
                return Some(format!("Give --size {needed} or more, or leave it out."));
            }
            Self::NoPackage { .. } => "Correct --packages; 'apt-cache search WORD' finds names.",
            Self::PackageName(_) => {
                "Names are letters, digits and + - . (lower case), with commas between."
            }
            Self::Url { .. } => "Write it like http://deb.debian.org/debian.",
            Self::Mirror { .. } => {
                "Check the network and the host's apt proxy, or choose another archive with --mirror URL."
            }
            Self::Signature { package, .. } => {
                return Some(format!(
                    "Install {package}, which has the distribution's keys, or give them with --keyring FILE."
                ));
            }
            Self::Hostname { .. } => "Write it like serv1.",
            Self::Programs { missing } => {
                let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
                packages.sort_unstable();
                packages.dedup();
                return Some(format!("As root: apt-get install {}", packages.join(" ")));
            }
            Self::NoRoot(_) => {
                "Install uidmap and have root add this user to /etc/subuid and /etc/subgid \
                 (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER), or install \
                 fakeroot and fakechroot."
            }
            Self::Directory { hint, .. } => hint,
            Self::Space { .. } | Self::Full(_) => {
                "Free space there, or choose another place with -o DIR."
            }
            Self::SshKey { .. } => "Give the public half, a file like ~/.ssh/id_ed25519.pub.",
            Self::Io { source, path, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                let place = path.parent().unwrap_or(path);
                return Some(format!("Check the owner and the rights of {}.", place.display()));
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

fn did_you_mean(near: Option<&String>) -> String {
    near.map(|word| format!(" (did you mean {word}?)")).unwrap_or_default()
}

fn programs(missing: &[(&str, &str)]) -> String {
    let names: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    names.join(", ")
}
