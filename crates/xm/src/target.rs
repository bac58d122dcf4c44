//! The `<Domain>` operand: a name, a number or a uuid, and Domain-0.

use control::{Client, Entry, Registry, RegistryError};

use crate::error::Error;

/// The name of the host's own domain.
pub const HOST_NAME: &str = "Domain-0";
/// Its uuid, all zeros as in Xen.
pub const HOST_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// What a `<Domain>` operand means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Domain-0, the host.
    Host,
    /// A domain.
    Domain(Entry),
}

impl Target {
    /// Finds the domain that `word` names: names first, then numbers, then uuids, so that a
    /// domain called `0` comes before Domain-0's number.
    ///
    /// # Errors
    ///
    /// When there is no such domain or the registry cannot be read.
    pub fn find(registry: &Registry, word: &str) -> Result<Self, Error> {
        if word == HOST_NAME {
            return Ok(Self::Host);
        }
        match registry.find(word) {
            Ok(entry) => Ok(Self::Domain(entry)),
            Err(RegistryError::Unknown(_)) if is_host_number(word) => Ok(Self::Host),
            Err(error) => Err(error.into()),
        }
    }

    /// The domain, for a command that must not touch Domain-0.
    ///
    /// # Errors
    ///
    /// [`Error::Privileged`] for Domain-0, named by number with `destroy` and by name else.
    pub fn unprivileged(self, verb: &'static str) -> Result<Entry, Error> {
        match self {
            Self::Domain(entry) => Ok(entry),
            Self::Host => {
                let name = if verb == "destroy" { "0" } else { HOST_NAME };
                Err(Error::Privileged { verb, name })
            }
        }
    }

    /// Its number.
    pub fn domid(&self) -> u32 {
        match self {
            Self::Host => 0,
            Self::Domain(entry) => entry.domid,
        }
    }
}

fn is_host_number(word: &str) -> bool {
    word.parse::<u32>() == Ok(0) || word == HOST_UUID
}

/// Connects to the domain that `word` names, unless it is Domain-0.
///
/// # Errors
///
/// As [`Target::find`] and [`Target::unprivileged`]; or when the domain does not answer.
pub fn connect(registry: &Registry, word: &str, verb: &'static str) -> Result<Client, Error> {
    let entry = Target::find(registry, word)?.unprivileged(verb)?;
    Ok(Client::open(&entry)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{Dirs, Uuid};

    #[test]
    fn names_come_before_numbers_and_the_host_has_both() {
        let base = tempfile::tempdir().unwrap();
        let dirs = Dirs { runtime: base.path().join("run"), state: base.path().join("state") };
        let registry = Registry::with_dirs(dirs).unwrap();
        assert_eq!(Target::find(&registry, "0").unwrap(), Target::Host);
        assert_eq!(Target::find(&registry, HOST_NAME).unwrap(), Target::Host);
        assert_eq!(Target::find(&registry, HOST_UUID).unwrap(), Target::Host);
        let zero = registry.register("0", Uuid::random().unwrap()).unwrap();
        assert_eq!(Target::find(&registry, "0").unwrap().domid(), zero.entry().domid);
        let error = Target::find(&registry, "ghost").unwrap_err();
        assert_eq!(error.to_string(), "Domain 'ghost' does not exist.");
    }

    #[test]
    fn the_host_is_refused_in_words_of_xm() {
        let error = Target::Host.unprivileged("destroy").unwrap_err();
        assert_eq!(error.to_string(), "Cannot destroy privileged domain 0");
        let error = Target::Host.unprivileged("pause").unwrap_err();
        assert_eq!(error.to_string(), "Cannot pause privileged domain Domain-0");
    }
}
