//! Which domains exist: numbers, names, and the proof that a domain lives.

use crate::dirs::Dirs;
use crate::entry::{Entry, replace};
use crate::error::{Hint, PathError};
use crate::kill::outlast;
use crate::uuid::Uuid;
use kill_point::kill_point;
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Domain numbers from here on have a meaning of their own (`DOMID_FIRST_RESERVED`, xen.h).
const FIRST_RESERVED: u32 = 0x7ff0;
/// Longest name in bytes: its log file name must fit a directory entry.
const LONGEST_NAME: usize = 200;
/// How long a domain's process may still be there after it has let go of the domain's lock.
const LAST_MOMENTS: Duration = Duration::from_millis(500);

/// Errors of the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file or directory.
    #[error(transparent)]
    Path(#[from] PathError),
    /// No domain has this name, number or UUID.
    #[error("Domain '{0}' does not exist.")]
    Unknown(String),
    /// The name is taken.
    #[error("VM name '{name}' already exists as domain {domid}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        domid: u32,
    },
    /// The UUID is taken.
    #[error("UUID {uuid} already belongs to domain {domid}")]
    UuidTaken {
        /// The UUID.
        uuid: Uuid,
        /// Who has it.
        domid: u32,
    },
    /// The name cannot be used.
    #[error("Invalid VM Name '{name}': {why}")]
    BadName {
        /// The name, shortened.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Every domain number is in use.
    #[error("All {FIRST_RESERVED} domain numbers are in use")]
    NoNumber,
}

impl Hint for RegistryError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Path(error) => error.hint(),
            Self::Unknown(_) => Some("'xm list' shows the domains that exist.".into()),
            Self::NameTaken { name, .. } => Some(format!(
                "Choose another name, or end the other domain with 'xm destroy {name}'."
            )),
            Self::UuidTaken { .. } => Some("Remove 'uuid' from the configuration.".into()),
            Self::BadName { .. } => Some("Use letters, digits and _ - . : + only.".into()),
            Self::NoNumber => Some("End domains that are no longer needed.".into()),
        }
    }
}

/// Checks a domain name.
///
/// # Errors
/// [`RegistryError::BadName`] when it is empty, too long, or has other characters
/// than letters, digits and `_ - . : +`.
pub fn check_name(name: &str) -> Result<(), RegistryError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST_NAME {
        "it is longer than 200 characters"
    } else if name.starts_with('.') {
        "it begins with a dot"
    } else if name == "Domain-0" {
        "it is the name of the host's own domain"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:+".contains(&b)) {
        "it has a character that is not allowed"
    } else {
        return Ok(());
    };
    Err(RegistryError::BadName { name: name.chars().take(64).collect(), why })
}

/// The domains of one user on this host.
#[derive(Clone, Debug)]
pub struct Registry {
    dirs: Dirs,
}

impl Registry {
    /// Opens the registry of this user and environment.
    ///
    /// # Errors
    /// When its directories cannot be created or are not ours alone.
    pub fn open() -> Result<Self, RegistryError> {
        Self::with_dirs(Dirs::from_environment())
    }

    /// Opens the registry in given directories.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub fn with_dirs(dirs: Dirs) -> Result<Self, RegistryError> {
        dirs.create()?;
        Ok(Self { dirs })
    }

    /// Where it lies.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// The domains that live, by number. What dead ones left is removed.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, RegistryError> {
        let mut live = Vec::new();
        let mut dead = false;
        for (domid, directory) in self.directories()? {
            match (alive(&directory), Entry::read(&directory)) {
                (true, Ok(entry)) if entry.domid == domid => live.push(entry),
                (true, _) => {}
                (false, _) => dead = true,
            }
        }
        if dead {
            self.sweep()?;
        }
        live.sort_by_key(|entry| entry.domid);
        Ok(live)
    }

    /// Finds a domain by name, number or UUID, in this order (as xm does).
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when there is none.
    pub fn find(&self, what: &str) -> Result<Entry, RegistryError> {
        let entries = self.list()?;
        let number = what.parse::<u32>().ok();
        let uuid = what.parse::<Uuid>().ok();
        let by_name = entries.iter().find(|entry| entry.name == what);
        by_name
            .or_else(|| entries.iter().find(|entry| Some(entry.domid) == number))
            .or_else(|| entries.iter().find(|entry| Some(entry.uuid) == uuid))
            .cloned()
            .ok_or_else(|| RegistryError::Unknown(what.chars().take(64).collect()))
    }

    /// What is known of the domain with this number, if it lives.
    pub fn living(&self, domid: u32) -> Option<Entry> {
        let directory = self.dirs.domains().join(domid.to_string());
        let entry = Entry::read(&directory).ok()?;
        (alive(&directory) && entry.domid == domid).then_some(entry)
    }

    /// Whether a domain with this number lives.
    pub fn lives(&self, domid: u32) -> bool {
        alive(&self.dirs.domains().join(domid.to_string()))
    }

    /// Gives a new domain its number and directory.
    ///
    /// # Errors
    /// When the name or the UUID is taken or wrong, or a file cannot be written.
    pub fn register(&self, name: &str, uuid: Uuid) -> Result<Registration, RegistryError> {
        check_name(name)?;
        let _held = self.lock()?;
        kill_point("registry.locked");
        self.free_for(name, uuid, None)?;
        self.make(name, uuid)
    }

    /// Locks the registry until the file is dropped.
    fn lock(&self) -> Result<File, PathError> {
        let path = self.dirs.runtime.join("lock");
        let file = open_lock(&path)?;
        file.lock().map_err(PathError::at("lock", &path))?;
        Ok(file)
    }

    /// Checks that nobody but `own` has the name or the UUID.
    fn free_for(&self, name: &str, uuid: Uuid, own: Option<u32>) -> Result<(), RegistryError> {
        for (domid, directory) in self.directories()? {
            if Some(domid) == own || !alive(&directory) {
                continue;
            }
            let Ok(entry) = Entry::read(&directory) else { continue };
            if entry.name == name {
                return Err(RegistryError::NameTaken { name: name.into(), domid });
            }
            if entry.uuid == uuid {
                return Err(RegistryError::UuidTaken { uuid, domid });
            }
        }
        Ok(())
    }

    /// Makes a domain's directory; the registry is locked.
    fn make(&self, name: &str, uuid: Uuid) -> Result<Registration, RegistryError> {
        let domid = self.next_domid()?;
        kill_point("registry.numbered");
        let directory = self.dirs.domains().join(domid.to_string());
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(PathError::at("create", &directory))?;
        kill_point("registry.directory-made");
        let lock_path = Entry::lock_file(&directory);
        let lock = open_lock(&lock_path)?;
        kill_point("registry.lock-made");
        lock.lock().map_err(PathError::at("lock", &lock_path))?;
        kill_point("registry.domain-locked");
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let entry =
            Entry { domid, name: name.into(), uuid, pid: std::process::id(), started, directory };
        let registration = Registration { registry: self.clone(), entry, _lock: lock };
        registration.entry.write()?;
        Ok(registration)
    }

    /// Takes the next free number; the registry is locked.
    fn next_domid(&self) -> Result<u32, RegistryError> {
        let path = self.dirs.runtime.join("next-domid");
        let used: Vec<u32> = self.directories()?.into_iter().map(|(domid, _)| domid).collect();
        // A lost or damaged counter starts after the highest number in use.
        let counter = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .unwrap_or_else(|| used.iter().max().map_or(1, |highest| highest + 1));
        let first = if (1..FIRST_RESERVED).contains(&counter) { counter } else { 1 };
        let domid = (first..FIRST_RESERVED)
            .chain(1..first)
            .find(|candidate| !used.contains(candidate))
            .ok_or(RegistryError::NoNumber)?;
        replace(&path, (domid + 1).to_string().as_bytes())?;
        Ok(domid)
    }

    /// All directories that could be domains.
    fn directories(&self) -> Result<Vec<(u32, PathBuf)>, PathError> {
        let domains = self.dirs.domains();
        let entries = std::fs::read_dir(&domains).map_err(PathError::at("read", &domains))?;
        Ok(entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let domid = entry.file_name().to_str()?.parse().ok()?;
                (domid < FIRST_RESERVED).then(|| (domid, entry.path()))
            })
            .collect())
    }

    /// Removes what dead domain processes left behind.
    fn sweep(&self) -> Result<(), PathError> {
        let _held = self.lock()?;
        kill_point("registry.sweeping");
        for (_, directory) in self.directories()? {
            if !alive(&directory) {
                // A process that was killed lets go of its files one after the other, and the records
                // below are looked at only while there is a dead domain.
                if let Ok(entry) = Entry::read(&directory) {
                    outlast(entry.pid, LAST_MOMENTS);
                }
                remove(&directory);
                kill_point("registry.swept");
            }
        }
        for records in ["locks", "macs"] {
            remove_unlocked(&self.dirs.runtime.join(records));
        }
        Ok(())
    }
}

/// Whether a domain process holds the lock of `directory`.
fn alive(directory: &Path) -> bool {
    match File::open(Entry::lock_file(directory)) {
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

fn open_lock(path: &Path) -> Result<File, PathError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(PathError::at("open", path))
}

/// Removes a domain's directory; what cannot be removed is swept later.
fn remove(directory: &Path) {
    let _swept_later: io::Result<()> = std::fs::remove_dir_all(directory);
}

/// Removes records of what domains use (crate `devices`) whose owners are gone: nobody has them locked.
/// Images' records are locked in one way, addresses' in the other.
fn remove_unlocked(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
        let is_free = file.try_lock().is_ok()
            && fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Its owner may have removed it meanwhile, and somebody made another one.
        let identity = |data: Metadata| (data.dev(), data.ino());
        let is_there = || {
            let there = std::fs::symlink_metadata(&path).ok()?;
            Some(identity(there) == identity(file.metadata().ok()?))
        };
        if is_free && is_there() == Some(true) {
            let _swept_later: io::Result<()> = std::fs::remove_file(path);
        }
    }
}

/// A domain's place in the registry. Dropping it removes the domain's directory.
#[derive(Debug)]
pub struct Registration {
    registry: Registry,
    entry: Entry,
    /// Proof that this process lives.
    _lock: File,
}

impl Registration {
    /// What the registry says of the domain.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Makes room for a domain that starts anew under this one's name: this one
    /// goes on as `kept_name` with another UUID.
    ///
    /// # Errors
    /// As [`Registration::rename`]; nothing has changed then.
    pub fn set_aside(&mut self, kept_name: &str, uuid: Uuid) -> Result<(), RegistryError> {
        let old = std::mem::replace(&mut self.entry.uuid, uuid);
        self.rename(kept_name).inspect_err(|_| self.entry.uuid = old)
    }

    /// Changes the domain's name.
    ///
    /// # Errors
    /// When the name is taken or wrong, or a file cannot be written.
    pub fn rename(&mut self, name: &str) -> Result<(), RegistryError> {
        check_name(name)?;
        let _held = self.registry.lock()?;
        kill_point("registry.rename-locked");
        self.registry.free_for(name, self.entry.uuid, Some(self.entry.domid))?;
        let old = std::mem::replace(&mut self.entry.name, name.into());
        self.entry.write().inspect_err(|_| self.entry.name = old)?;
        kill_point("registry.renamed");
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        kill_point("registry.leaving");
        remove(&self.entry.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, Registry) {
        let base = tempfile::tempdir().unwrap();
        let dirs = Dirs { runtime: base.path().join("run"), state: base.path().join("state") };
        let registry = Registry::with_dirs(dirs).unwrap();
        (base, registry)
    }

    fn add(registry: &Registry, name: &str) -> Result<Registration, RegistryError> {
        registry.register(name, Uuid::random().unwrap())
    }

    #[test]
    fn numbers_start_at_one_and_are_not_reused() {
        let (_base, registry) = registry();
        let one = add(&registry, "one").unwrap();
        assert_eq!(one.entry().domid, 1);
        drop(one);
        assert_eq!(add(&registry, "one").unwrap().entry().domid, 2);
        std::fs::write(registry.dirs().runtime.join("next-domid"), "nonsense").unwrap();
        assert_eq!(add(&registry, "one").unwrap().entry().domid, 1);
    }

    #[test]
    fn numbers_wrap_before_the_reserved_ones() {
        let (_base, registry) = registry();
        std::fs::write(registry.dirs().runtime.join("next-domid"), "32751").unwrap();
        let last = add(&registry, "last").unwrap();
        assert_eq!(last.entry().domid, FIRST_RESERVED - 1);
        assert_eq!(add(&registry, "first").unwrap().entry().domid, 1);
    }

    #[test]
    fn names_and_uuids_are_unique_while_their_domain_lives() {
        let (_base, registry) = registry();
        let one = add(&registry, "one").unwrap();
        assert!(matches!(
            add(&registry, "one").unwrap_err(),
            RegistryError::NameTaken { domid: 1, .. }
        ));
        assert!(matches!(
            registry.register("two", one.entry().uuid).unwrap_err(),
            RegistryError::UuidTaken { domid: 1, .. }
        ));
        drop(one);
        add(&registry, "one").unwrap();
    }

    #[test]
    fn domains_are_found_by_name_first() {
        let (_base, registry) = registry();
        let one = add(&registry, "2").unwrap();
        let two = add(&registry, "two").unwrap();
        assert_eq!(registry.find("2").unwrap().domid, 1);
        assert_eq!(registry.find("1").unwrap(), *one.entry());
        assert_eq!(registry.find(&two.entry().uuid.to_string()).unwrap().domid, 2);
        assert!(matches!(registry.find("three"), Err(RegistryError::Unknown(_))));
    }

    #[test]
    fn stale_entries_are_swept() {
        let (_base, registry) = registry();
        let stale = registry.dirs().domains().join("9");
        std::fs::create_dir(&stale).unwrap();
        std::fs::write(stale.join("lock"), "").unwrap();
        let records = registry.dirs().runtime.join("macs");
        std::fs::create_dir(&records).unwrap();
        std::fs::write(records.join("dead"), "").unwrap();
        let held = File::create(records.join("held")).unwrap();
        held.lock().unwrap();
        let live = add(&registry, "live").unwrap();
        assert_eq!(registry.list().unwrap(), vec![live.entry().clone()]);
        assert!(!stale.exists());
        assert!(!records.join("dead").exists() && records.join("held").exists());
    }

    #[test]
    fn what_a_dying_process_still_has_is_swept() {
        use std::process::{Command, Stdio};
        let (_base, registry) = registry();
        let records = registry.dirs().runtime.join("locks");
        std::fs::create_dir(&records).unwrap();
        let record = File::create(records.join("image")).unwrap();
        record.lock().unwrap();
        // It has the record, and the domain's lock no more.
        let mut dying =
            Command::new("sleep").arg("0.2").stdin(Stdio::from(record)).spawn().unwrap();
        let directory = registry.dirs().domains().join("9");
        std::fs::create_dir(&directory).unwrap();
        let live = add(&registry, "live").unwrap();
        let entry = Entry { domid: 9, pid: dying.id(), directory, ..live.entry().clone() };
        entry.write().unwrap();
        assert_eq!(registry.list().unwrap(), vec![live.entry().clone()]);
        assert!(!records.join("image").exists() && !entry.directory.exists());
        dying.wait().unwrap();
    }

    #[test]
    fn a_domain_set_aside_frees_its_name_and_uuid() {
        let (_base, registry) = registry();
        let mut one = add(&registry, "one").unwrap();
        let uuid = one.entry().uuid;
        one.set_aside("one-1", Uuid::random().unwrap()).unwrap();
        let two = registry.register("one", uuid).unwrap();
        assert_eq!(registry.find("one").unwrap().domid, 2);
        assert_eq!(registry.find("one-1").unwrap().domid, 1);
        drop(two);
    }

    #[test]
    fn a_rename_to_a_taken_name_changes_nothing() {
        let (_base, registry) = registry();
        let mut one = add(&registry, "one").unwrap();
        let _two = add(&registry, "two").unwrap();
        assert!(one.rename("two").is_err());
        let uuid = one.entry().uuid;
        assert!(one.set_aside("two", Uuid::random().unwrap()).is_err());
        assert_eq!(one.entry().uuid, uuid);
        assert_eq!(registry.find("one").unwrap().domid, 1);
        one.rename("uno").unwrap();
        assert_eq!(registry.find("uno").unwrap().domid, 1);
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "ä", "Domain-0", &"x".repeat(201)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("serv1.example_x:y+z-0").unwrap();
    }
}
