//! The daemon, and the `<Domain>` operand as it is understood there.

use api::types::{Domain, Run};
use api::{Daemon, Error as ApiError};
use control::{Dirs, Entry, ErrorCode, RegistryError};
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::Error;
use crate::target::{HOST_NAME, HOST_UUID};

/// The daemon of this user; it is started when something is asked of it.
pub fn daemon() -> Daemon {
    Daemon::new(Dirs::from_environment())
}

/// What a `<Domain>` operand means.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Domain-0, the host.
    Host,
    /// A domain, running or stored.
    Domain(Box<Domain>),
}

/// Makes the error for an unknown domain what it is everywhere.
pub fn known<T>(word: &str, result: Result<T, ApiError>) -> Result<T, Error> {
    result.map_err(|error| match error.code() {
        Some(ErrorCode::NotFound) => RegistryError::Unknown(word.chars().take(64).collect()).into(),
        _ => error.into(),
    })
}

impl Subject {
    /// Finds the domain that `word` names: names first, then numbers, then uuids, so that a domain
    /// called `0` comes before Domain-0's number.
    ///
    /// # Errors
    ///
    /// When there is no such domain, or the daemon cannot be reached.
    pub fn find(daemon: &Daemon, word: &str) -> Result<Self, Error> {
        if word == HOST_NAME {
            return Ok(Self::Host);
        }
        let is_host = word.parse::<u32>() == Ok(0) || word == HOST_UUID;
        match daemon.domain(word) {
            Ok(domain) => Ok(Self::Domain(Box::new(domain))),
            Err(error) if is_host && error.code() == Some(ErrorCode::NotFound) => Ok(Self::Host),
            error => known(word, error).map(|domain| Self::Domain(Box::new(domain))),
        }
    }

    /// The domain, for a command that must not touch Domain-0.
    ///
    /// # Errors
    ///
    /// [`Error::Privileged`] for Domain-0, named by number with `destroy` and by name else.
    pub fn unprivileged(self, verb: &'static str) -> Result<Domain, Error> {
        match self {
            Self::Domain(domain) => Ok(*domain),
            Self::Host => {
                let name = if verb == "destroy" { "0" } else { HOST_NAME };
                Err(Error::Privileged { verb, name })
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Host => HOST_NAME,
            Self::Domain(domain) => &domain.name,
        }
    }
}

/// The subjects that `words` name; all of them, Domain-0 first, if there are no words.
///
/// # Errors
///
/// As [`Subject::find`].
pub fn subjects(daemon: &Daemon, words: &[String]) -> Result<Vec<Subject>, Error> {
    if words.is_empty() {
        let domains = daemon.domains()?.into_iter();
        let domains = domains.map(|domain| Subject::Domain(Box::new(domain)));
        return Ok(std::iter::once(Subject::Host).chain(domains).collect());
    }
    words.iter().map(|word| Subject::find(daemon, word)).collect()
}

/// The run of a domain that must not be halted.
///
/// # Errors
///
/// [`Error::NotStarted`].
pub fn run(domain: &Domain) -> Result<&Run, Error> {
    domain.run.as_ref().ok_or_else(|| Error::NotStarted { name: domain.name.clone() })
}

/// Its place in the registry, for what is asked of the domain's own process: its console.
///
/// # Errors
///
/// [`Error::NotStarted`].
pub fn entry(domain: &Domain) -> Result<Entry, Error> {
    domain.entry().ok_or_else(|| Error::NotStarted { name: domain.name.clone() })
}

/// Tells a stored domain that does not run from one that does not exist: those that look into a running
/// domain find neither.
pub fn or_not_started(error: Error) -> Error {
    if let Error::Exec(inner) = error {
        return Error::Exec(Box::new(or_not_started(*inner)));
    }
    match error.unknown_domain().map(|word| Subject::find(&daemon(), word)) {
        Some(Ok(Subject::Domain(domain))) if domain.managed && domain.run.is_none() => {
            Error::NotStarted { name: domain.name }
        }
        _ => error,
    }
}

/// Where relative paths of a configuration are seen from.
///
/// # Errors
///
/// When the working directory is gone.
pub fn working_directory() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|source| {
        control::PathError { action: "find", path: PathBuf::from("."), source }.into()
    })
}

/// Our variables, which a domain's process is to have.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars().filter(|(name, _)| name.starts_with("XENOLITH_")).collect()
}
