//! Where run-time files and persistent logs live.

use crate::error::PathError;
use rustix::fs::{Mode, OFlags};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Environment variable that overrides the run-time directory.
pub const RUNTIME_VARIABLE: &str = "XENOLITH_RUNTIME_DIR";
/// Environment variable that overrides the directory of persistent logs.
pub const STATE_VARIABLE: &str = "XENOLITH_STATE_DIR";

/// Where the system's domains are logged.
const SYSTEM_STATE: &str = "/var/log/xenolith";

/// The two directories that all tools of one user share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Sockets, locks and what is known of the domains that exist now.
    pub runtime: PathBuf,
    /// Logs and crash reports; outlives domains and reboots.
    pub state: PathBuf,
}

impl Dirs {
    /// The directories for this process's user and environment, not yet created.
    pub fn from_environment() -> Self {
        let uid = rustix::process::geteuid();
        Self::choose(uid.is_root(), uid.as_raw(), &|name| {
            std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
        })
    }

    /// The rule behind [`Dirs::from_environment`].
    fn choose(root: bool, uid: u32, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Self {
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        let runtime = match variable(RUNTIME_VARIABLE) {
            Some(path) => path,
            None if root => PathBuf::from("/run/xenolith"),
            None => absolute("XDG_RUNTIME_DIR").map_or_else(
                || PathBuf::from(format!("/tmp/xenolith-{uid}")),
                |path| path.join("xenolith"),
            ),
        };
        let state = match variable(STATE_VARIABLE) {
            Some(path) => path,
            None if root => PathBuf::from(SYSTEM_STATE),
            None => absolute("XDG_STATE_HOME")
                .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
                .map_or_else(|| runtime.join("state"), |path| path.join("xenolith")),
        };
        Self { runtime, state }
    }

    /// Creates both directories (mode 0700) and checks that they are ours.
    ///
    /// # Errors
    /// When a directory cannot be created, is a symbolic link, belongs to another
    /// user, or lets others in.
    pub fn create(&self) -> Result<(), PathError> {
        private_directory(&self.runtime)?;
        private_directory(&self.domains())?;
        private_directory(&self.state)
    }

    /// Directory of the domains' own directories.
    pub fn domains(&self) -> PathBuf {
        self.runtime.join("domains")
    }

    /// Directory of what the daemon keeps: below the logs, but for the system's own daemon, whose
    /// state is no log (FHS 5.8).
    pub fn kept(&self) -> PathBuf {
        if self.state == Path::new(SYSTEM_STATE) {
            return PathBuf::from("/var/lib/xenolith");
        }
        self.state.join("xend")
    }

    /// Creates a directory below one of these (mode 0700), or checks that it is ours.
    ///
    /// # Errors
    /// As [`Dirs::create`].
    pub fn private(path: &Path) -> Result<(), PathError> {
        private_directory(path)
    }

    /// Log of the domain process of domains called `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.state.join(format!("{name}.log"))
    }

    /// Crash report of one domain.
    pub fn crash_report(&self, name: &str, domid: u32) -> PathBuf {
        self.state.join(format!("{name}.{domid}.crash"))
    }
}

/// Creates `path` with its parents, or checks it if it exists.
pub(crate) fn private_directory(path: &Path) -> Result<(), PathError> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(PathError::at("create", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(PathError::at("create", path)(error));
        }
        _ => {}
    }
    check(path).map_err(PathError::at("use", path))
}

/// Refuses links and what other users own or can enter.
fn check(path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
            io::Error::other("it is not a directory of its own (a link or a file); remove it")
        }
        other => other.into(),
    })?;
    let stat = rustix::fs::fstat(&directory)?;
    let own = rustix::process::geteuid().as_raw();
    if stat.st_uid != own {
        return Err(io::Error::other(format!(
            "it belongs to user {}, not to user {own}; choose another one with {RUNTIME_VARIABLE} or {STATE_VARIABLE}",
            stat.st_uid
        )));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "other users can write to it (mode {:03o}); make it mode 700",
            stat.st_mode & 0o777
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn choose(root: bool, variables: &[(&str, &str)]) -> Dirs {
        let map: HashMap<_, _> = variables.iter().copied().collect();
        Dirs::choose(root, 1000, &|name| map.get(name).map(PathBuf::from))
    }

    #[test]
    fn directories_follow_user_and_environment() {
        let root = choose(true, &[("XDG_RUNTIME_DIR", "/run/user/0")]);
        assert_eq!(root.runtime, Path::new("/run/xenolith"));
        assert_eq!(root.state, Path::new("/var/log/xenolith"));
        let user = choose(false, &[("XDG_RUNTIME_DIR", "/run/user/1000"), ("HOME", "/home/u")]);
        assert_eq!(user.runtime, Path::new("/run/user/1000/xenolith"));
        assert_eq!(user.state, Path::new("/home/u/.local/state/xenolith"));
        assert_eq!(choose(false, &[]).runtime, Path::new("/tmp/xenolith-1000"));
        let set = choose(true, &[(RUNTIME_VARIABLE, "/a"), (STATE_VARIABLE, "/b")]);
        assert_eq!(
            (set.runtime.as_path(), set.state.as_path()),
            (Path::new("/a"), Path::new("/b"))
        );
    }

    #[test]
    fn a_new_directory_is_private() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x/y");
        private_directory(&path).unwrap();
        private_directory(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn links_files_and_open_directories_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let link = base.path().join("link");
        symlink(base.path(), &link).unwrap();
        assert!(private_directory(&link).is_err());
        let file = base.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(private_directory(&file).is_err());
        let open = base.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        let error = private_directory(&open).unwrap_err();
        assert!(error.to_string().contains("777"), "{error}");
    }
}
