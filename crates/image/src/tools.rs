//! Programs of the host that do the work.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// A program and the Debian package that has it.
pub type Tool = (&'static str, &'static str);

/// What every build needs; `apt-get` and `dpkg` are used by mmdebstrap.
const ALWAYS: [Tool; 7] = [
    ("mmdebstrap", "mmdebstrap"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
    ("mke2fs", "e2fsprogs"),
    ("tar", "tar"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// What swap space needs.
const SWAP: Tool = ("mkswap", "util-linux");

/// Folders of programs that are missing in the search path of ordinary users.
const FOR_ROOT: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where programs are looked for, and with what they are run.
#[derive(Clone, Debug)]
pub struct Tools {
    path: OsString,
}

impl Tools {
    /// The search path of this process, with the folders of root's programs.
    pub fn of_host() -> Self {
        Self::new(std::env::var_os("PATH").unwrap_or_default())
    }

    /// This search path, with the folders of root's programs.
    pub fn new(path: OsString) -> Self {
        let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
        let folders: Vec<PathBuf> = folders.chain(FOR_ROOT.map(PathBuf::from)).collect();
        Self { path: std::env::join_paths(folders).unwrap_or(path) }
    }

    /// Whether there is such a program.
    pub fn has(&self, program: &str) -> bool {
        std::env::split_paths(&self.path).any(|folder| executable(&folder.join(program)))
    }

    /// Checks that all programs of a build are there.
    ///
    /// # Errors
    ///
    /// Names all that are missing.
    pub fn check(&self, swap: bool) -> Result<(), Error> {
        let needed = ALWAYS.into_iter().chain(swap.then_some(SWAP));
        let missing: Vec<Tool> = needed.filter(|(program, _)| !self.has(program)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Error::Programs { missing }) }
    }

    /// A command of these words, with messages in English (they are read here) and no settings
    /// of apt other than those that are given.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Command {
        let mut words = words.iter();
        let mut command = Command::new(words.next().map_or("false".as_ref(), AsRef::as_ref));
        command.args(words);
        command.env("PATH", &self.path).env("LC_ALL", "C.UTF-8").env("LANGUAGE", "C");
        command.env("DEBIAN_FRONTEND", "noninteractive").env_remove("APT_CONFIG");
        command
    }
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let tools = Tools { path: "/nonexistent".into() };
        let Err(error) = tools.check(true) else { panic!("all there") };
        let text = format!("{error} {}", error.hint().unwrap());
        for word in ["mmdebstrap", "mke2fs", "mkswap", "e2fsprogs", "apt-get install"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn roots_folders_are_searched_and_relative_ones_not() {
        let tools = Tools::new("bin:/usr/bin".into());
        assert!(tools.has("sh") && !tools.has("no-such-program"));
        let folders: Vec<_> = std::env::split_paths(&tools.path).collect();
        assert!(folders.contains(&"/usr/sbin".into()) && !folders.contains(&"bin".into()));
    }
}
