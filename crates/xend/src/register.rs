//! What outlives the daemon: stored domains, what it saw running, and how domains ended.
//!
//! Each change is on the disk before it is told to anybody. A process that is killed at any point
//! leaves the register as it was before or after a change (redb commits by one write).

use api::types::Past;
use config::DomainConfig;
use control::{Dirs, Entry, PathError, Uuid, kill_point};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Stored domains by UUID; each a [`Kept`].
const MANAGED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("managed");
/// Domains that were seen running, by number; each a [`Seen`].
const RUNNING: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("running");
/// Ends, oldest first; each a [`Past`].
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
/// Ends that are kept.
pub const MOST_HISTORY: u64 = 1000;
/// Memory for pages of the file, in bytes: the register is small.
const CACHE: usize = 1 << 20;

/// How long another process may have the file, and how often it is tried.
const HELD: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// A stored domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Name.
    pub name: String,
    /// UUID.
    pub uuid: Uuid,
    /// When it was stored, in seconds since the epoch.
    pub stored: u64,
    /// Configuration.
    pub config: DomainConfig,
    /// Where its relative paths are seen from.
    pub directory: PathBuf,
    /// Counts the changes of the configuration.
    #[serde(default)]
    pub revision: u64,
}

/// A domain that was seen running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What the registry of running domains said.
    pub entry: Entry,
    /// The host's boot at that time.
    pub boot: String,
}

/// A change of the register.
#[derive(Clone, Debug)]
pub enum Change {
    /// A domain is stored.
    Keep(Box<Kept>),
    /// A stored domain is deleted.
    Drop(Uuid),
    /// A domain runs.
    Saw(Seen),
    /// A domain that was seen running has ended.
    Ended(Past),
}

/// Everything in the register.
#[derive(Debug, Default)]
pub struct Content {
    /// Stored domains.
    pub managed: Vec<Kept>,
    /// What was seen running.
    pub running: Vec<Seen>,
    /// Ends, oldest first.
    pub history: Vec<Past>,
}

/// The file.
#[derive(Debug)]
pub struct Register {
    database: Database,
    path: PathBuf,
}

impl Register {
    /// Opens or makes the register in `directory`, which is made too.
    ///
    /// # Errors
    /// When it cannot be read or written, is damaged, or is open in another process.
    pub fn open(directory: &Path) -> Result<Self, PathError> {
        Dirs::private(directory)?;
        let path = directory.join("xend.redb");
        let end = Instant::now() + HELD;
        let database = loop {
            match Builder::new().set_cache_size(CACHE).create(&path) {
                // A daemon that ends lets go of it last.
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < end => sleep(LOOK),
                result => break result.map_err(|error| fault("open", &path, error))?,
            }
        };
        let register = Self { database, path };
        // The tables exist from now on.
        register.apply(&[])?;
        Ok(register)
    }

    fn fault(&self, action: &'static str, error: impl Into<redb::Error>) -> PathError {
        fault(action, &self.path, error.into())
    }

    /// Reads everything. A record that is not understood (of another version, say) is left out and
    /// stays in the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(&self) -> Result<Content, PathError> {
        let read = || -> Result<Content, redb::Error> {
            let transaction = self.database.begin_read()?;
            let mut content = Content::default();
            for record in transaction.open_table(MANAGED)?.iter()? {
                content.managed.extend(parse(record?.1.value()));
            }
            for record in transaction.open_table(RUNNING)?.iter()? {
                content.running.extend(parse(record?.1.value()));
            }
            for record in transaction.open_table(HISTORY)?.iter()? {
                content.history.extend(parse(record?.1.value()));
            }
            Ok(content)
        };
        read().map_err(|error| self.fault("read", error))
    }

    /// Makes `changes`, all or none; they are on the disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn apply(&self, changes: &[Change]) -> Result<(), PathError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            kill_point("xend.register.begun");
            {
                let mut managed = transaction.open_table(MANAGED)?;
                let mut running = transaction.open_table(RUNNING)?;
                let mut history = transaction.open_table(HISTORY)?;
                for change in changes {
                    match change {
                        Change::Keep(kept) => {
                            let key = kept.uuid.to_string();
                            managed.insert(key.as_str(), text(kept)?.as_slice())?;
                            kill_point("xend.register.keeping");
                        }
                        Change::Drop(uuid) => {
                            managed.remove(uuid.to_string().as_str())?;
                            kill_point("xend.register.dropping");
                        }
                        Change::Saw(seen) => {
                            running.insert(seen.entry.domid, text(seen)?.as_slice())?;
                            kill_point("xend.register.seeing");
                        }
                        Change::Ended(past) => {
                            running.remove(past.domid)?;
                            kill_point("xend.register.forgetting");
                            let next = history.last()?.map_or(0, |(last, _)| last.value() + 1);
                            history.insert(next, text(past)?.as_slice())?;
                            kill_point("xend.register.ending");
                        }
                    }
                }
                while history.len()? > MOST_HISTORY {
                    history.pop_first()?;
                }
            }
            kill_point("xend.register.filled");
            transaction.commit()?;
            kill_point("xend.register.committed");
            Ok(())
        };
        write().map_err(|error| self.fault("write", error))
    }
}

fn fault(action: &'static str, path: &Path, error: impl Into<redb::Error>) -> PathError {
    let source = match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    };
    PathError::at(action, path)(source)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

fn text(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Io(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, number: u8) -> Kept {
        let config = config::parse_str(name, "kernel = 'k'\n", &[]).unwrap().config;
        Kept {
            name: name.into(),
            uuid: Uuid([number; 16]),
            stored: 1,
            config,
            directory: "/".into(),
            revision: 0,
        }
    }

    fn seen(domid: u32) -> Seen {
        let entry = Entry {
            domid,
            name: "one".into(),
            uuid: Uuid([7; 16]),
            pid: 1,
            started: 5,
            directory: PathBuf::new(),
        };
        Seen { entry, boot: "b".into() }
    }

    fn past(domid: u32) -> Past {
        Past {
            name: "one".into(),
            uuid: Uuid([7; 16]),
            domid,
            started: 5,
            ended: 6,
            reason: None,
            successor: None,
            how: "gone".into(),
        }
    }

    #[test]
    fn what_is_written_is_there_again() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("kept");
        let register = Register::open(&directory).unwrap();
        assert!(Register::open(&directory).is_err(), "two processes have it open");
        register
            .apply(&[
                Change::Keep(Box::new(kept("a", 1))),
                Change::Keep(Box::new(kept("b", 2))),
                Change::Saw(seen(3)),
                Change::Saw(seen(4)),
            ])
            .unwrap();
        register.apply(&[Change::Drop(Uuid([1; 16])), Change::Ended(past(3))]).unwrap();
        drop(register);
        let content = Register::open(&directory).unwrap().load().unwrap();
        assert_eq!(content.managed, [kept("b", 2)]);
        assert_eq!(content.running, [seen(4)]);
        assert_eq!(content.history, [past(3)]);
    }

    #[test]
    fn the_history_stays_small_and_keeps_the_newest() {
        let base = tempfile::tempdir().unwrap();
        let register = Register::open(base.path()).unwrap();
        let ends: Vec<Change> = (0..1005).map(|domid| Change::Ended(past(domid))).collect();
        register.apply(&ends).unwrap();
        let history = register.load().unwrap().history;
        assert_eq!(history.len() as u64, MOST_HISTORY);
        assert_eq!((history[0].domid, history[999].domid), (5, 1004));
    }

    #[test]
    fn a_damaged_file_is_told_by_its_name() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("xend.redb"), "not a register at all").unwrap();
        let error = Register::open(base.path()).unwrap_err();
        assert!(error.to_string().contains("xend.redb"), "{error}");
    }
}
