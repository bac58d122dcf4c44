//! How a build comes by root's powers over its own files, and by walls around its processes.
//!
//! Each way is a list of words to put before a command. `setpriv --pdeathsig` ends the first
//! process when this one ends, even by SIGKILL; `unshare --kill-child` ends the rest with it,
//! since they live in a process namespace below.

use std::process::Stdio;

use crate::error::Error;
use crate::mirror::is_of_host;
use crate::release::Release;
use crate::tools::Tools;

const DIES_WITH_US: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];
const OWN_PROCESSES: [&str; 3] = ["--pid", "--fork", "--kill-child=KILL"];

/// A way to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Root, with mounts and processes of its own.
    Root,
    /// Root of a user namespace with the ids of subuid(5): the usual way of ordinary users.
    Granted,
    /// An imagined root, by preloaded libraries; in a user namespace only for its processes'
    /// sake.
    Imagined,
    /// The same on hosts that refuse namespaces; a build killed by SIGKILL may then leave
    /// processes that end with their present step, and two message queues.
    Bare,
}

impl Way {
    /// The words before a command that installs.
    fn words(self) -> Vec<&'static str> {
        let space: &[&str] = match self {
            Self::Root => &["unshare", "--mount"],
            Self::Granted => &["unshare", "--user", "--map-root-user", "--map-auto", "--mount"],
            // fakeroot speaks through message queues of System V, which outlive who is killed.
            Self::Imagined => &["unshare", "--user", "--map-current-user", "--ipc"],
            Self::Bare => return DIES_WITH_US.to_vec(),
        };
        [&DIES_WITH_US, space, &OWN_PROCESSES].concat()
    }

    /// The words before mmdebstrap, itself and its mode; it calls fakechroot itself.
    pub fn mmdebstrap(self) -> Vec<&'static str> {
        let mode = match self {
            Self::Root | Self::Granted => "--mode=root",
            Self::Imagined | Self::Bare => "--mode=fakechroot",
        };
        [self.words(), vec!["mmdebstrap", mode]].concat()
    }

    /// The words before any other command that sees or sets owners.
    pub fn as_root(self) -> Vec<&'static str> {
        let mut words = self.words();
        if matches!(self, Self::Imagined | Self::Bare) {
            words.push("fakeroot");
        }
        words
    }

    /// Options of tar for capabilities of files. An imagined root cannot give any, and
    /// fakeroot forgets what a file is when they are set, so that mke2fs leaves it out.
    pub fn capabilities(self) -> &'static [&'static str] {
        match self {
            Self::Root | Self::Granted => &["--xattrs", "--xattrs-include=security.capability"],
            Self::Imagined | Self::Bare => &[],
        }
    }

    /// The best way that works here.
    ///
    /// # Errors
    ///
    /// When none does: says what each lacks.
    pub fn choose(tools: &Tools, release: &Release) -> Result<Self, Error> {
        let root = rustix::process::geteuid().is_root();
        let first = if root { Self::Root } else { Self::Granted };
        if first.works(tools) {
            return Ok(first);
        }
        // The host's preloaded libraries need the host's C library inside, fakechroot(1).
        if is_of_host(release) {
            let works = |way: &Self| way.works(tools);
            if let Some(way) = [Self::Imagined, Self::Bare].into_iter().find(works) {
                return Ok(way);
            }
        }
        let granted = if tools.has("newuidmap") {
            "it has no ids in /etc/subuid and /etc/subgid, or the host forbids user namespaces"
        } else {
            "there is no newuidmap"
        };
        let text = if root { "namespaces are refused" } else { granted };
        let imagined = if is_of_host(release) {
            "there is no fakeroot with fakechroot"
        } else {
            "with fakeroot and fakechroot only the host's own release can be built"
        };
        Err(Error::NoRoot(format!("{text}, and {imagined}")))
    }

    fn works(self, tools: &Tools) -> bool {
        if matches!(self, Self::Imagined | Self::Bare) && !tools.has("fakechroot") {
            return false;
        }
        let mut words = self.as_root();
        words.push("true");
        let mut command = tools.command(&words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_dies_with_this_process() {
        for way in [Way::Root, Way::Granted, Way::Imagined, Way::Bare] {
            assert!(way.mmdebstrap().starts_with(&DIES_WITH_US), "{way:?}");
            assert!(way.as_root().starts_with(&DIES_WITH_US), "{way:?}");
            let walled = way.as_root().contains(&"--kill-child=KILL");
            assert_eq!(walled, way != Way::Bare, "{way:?}");
        }
        assert_eq!(Way::Imagined.as_root().last(), Some(&"fakeroot"));
        assert_eq!(Way::Granted.mmdebstrap().last(), Some(&"--mode=root"));
    }
}
