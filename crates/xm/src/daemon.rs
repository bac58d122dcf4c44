//! The daemon, and the `<Domain>` operand as it is understood there.

use api::types::{Domain, Run, Who};
use api::{Daemon, Error as ApiError};
use control::{Client, ClientError, Dirs, DomainInfo, ErrorCode, RegistryError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;

/// The name of the host's own domain.
pub const HOST_NAME: &str = "Domain-0";
/// Its uuid, all zeros as in Xen.
pub const HOST_UUID: &str = "00000000-0000-0000-0000-000000000000";
/// How long a domain's process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

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
        let found = unless_host(word, || daemon.domain(word))?;
        Ok(found.map_or(Self::Host, |domain| Self::Domain(Box::new(domain))))
    }

    /// The domain, for a command that must not touch Domain-0.
    ///
    /// # Errors
    ///
    /// [`Error::Privileged`] for Domain-0, named by number with `destroy` and by name else.
    pub fn unprivileged(self, verb: &'static str) -> Result<Domain, Error> {
        match self {
            Self::Domain(domain) => Ok(*domain),
            Self::Host => Err(privileged(verb)),
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

/// The subjects that `words` name; all of them, Domain-0 first and in brief, if there are no words.
///
/// # Errors
///
/// As [`Subject::find`].
pub fn subjects(daemon: &Daemon, words: &[String]) -> Result<Vec<Subject>, Error> {
    subjects_of(daemon, words, Daemon::domains)
}

/// As [`subjects`], all of them in full.
///
/// # Errors
///
/// As [`Subject::find`].
pub fn subjects_in_full(daemon: &Daemon, words: &[String]) -> Result<Vec<Subject>, Error> {
    subjects_of(daemon, words, Daemon::domains_in_full)
}

fn subjects_of(
    daemon: &Daemon,
    words: &[String],
    all: impl FnOnce(&Daemon) -> Result<Vec<Domain>, ApiError>,
) -> Result<Vec<Subject>, Error> {
    if words.is_empty() {
        let domains = all(daemon)?.into_iter();
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

/// What a domain says of itself.
///
/// # Errors
///
/// When it is halted, or did not answer.
pub fn info(domain: &Domain) -> Result<&DomainInfo, Error> {
    let run = run(domain)?;
    domain.info.as_ref().ok_or_else(|| match &domain.trouble {
        Some(trouble) => Error::Silent { domid: run.domid, trouble: trouble.clone() },
        // It is being built, or ended a moment ago.
        None => Error::Client(ClientError::Ended { domid: run.domid }),
    })
}

/// Connects to the process of the running domain that `word` names, unless it is Domain-0.
///
/// # Errors
///
/// As [`Subject::find`] and [`Subject::unprivileged`]; or when the domain is not started.
pub fn connect(word: &str, verb: &'static str) -> Result<(Who, Client), Error> {
    connect_for(word, verb, PATIENCE)
}

/// As [`connect`], where an answer may take so long.
///
/// # Errors
///
/// As [`connect`].
pub fn connect_for(
    word: &str,
    verb: &'static str,
    patience: Duration,
) -> Result<(Who, Client), Error> {
    let handed = unless_host(word, || daemon().connection(word))?;
    let (who, stream) = handed.ok_or_else(|| privileged(verb))?;
    let client = Client::over(stream, who.domid.unwrap_or_default(), patience)?;
    Ok((who, client))
}

/// Another connection to a domain that was found, as long as it has not started anew: an order is for the
/// run that was named.
///
/// # Errors
///
/// As [`connect`]; [`ClientError::Ended`] when that run is over.
pub fn reconnect(who: &Who) -> Result<Client, Error> {
    let (now, client) = connect(&who.uuid.to_string(), "connect to")?;
    same_run(who, &now)?;
    Ok(client)
}

fn same_run(then: &Who, now: &Who) -> Result<(), ClientError> {
    if then.domid == now.domid {
        return Ok(());
    }
    Err(ClientError::Ended { domid: then.domid.unwrap_or_default() })
}

/// What is there of the domain that `word` names; `None` for Domain-0.
fn unless_host<T>(
    word: &str,
    look: impl FnOnce() -> Result<T, ApiError>,
) -> Result<Option<T>, Error> {
    if word == HOST_NAME {
        return Ok(None);
    }
    match look() {
        Err(error) if error.code() == Some(ErrorCode::NotFound) && is_host_number(word) => Ok(None),
        result => known(word, result).map(Some),
    }
}

fn is_host_number(word: &str) -> bool {
    word.parse::<u32>() == Ok(0) || word == HOST_UUID
}

fn privileged(verb: &'static str) -> Error {
    Error::Privileged { verb, name: if verb == "destroy" { "0" } else { HOST_NAME } }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(word: &str, code: Option<ErrorCode>) -> Result<Option<u32>, Error> {
        let refuse = |code| ApiError::Refused(control::Failure::new(code, "no"));
        unless_host(word, || code.map_or(Ok(5), |code| Err(refuse(code))))
    }

    #[test]
    fn names_come_before_numbers_and_the_host_has_both() {
        for word in ["0", HOST_UUID] {
            assert_eq!(found(word, Some(ErrorCode::NotFound)).unwrap(), None);
            assert_eq!(found(word, None).unwrap(), Some(5), "a domain may be called 0");
        }
        assert_eq!(found(HOST_NAME, None).unwrap(), None);
        let error = found("ghost", Some(ErrorCode::NotFound)).unwrap_err();
        assert_eq!(error.to_string(), "Domain 'ghost' does not exist.");
        assert!(matches!(found("0", Some(ErrorCode::Timeout)), Err(Error::Daemon(_))));
    }

    #[test]
    fn one_that_started_anew_is_not_the_one_that_was_named() {
        let run =
            |domid| Who { domid: Some(domid), name: "one".into(), uuid: control::Uuid([7; 16]) };
        assert!(same_run(&run(3), &run(3)).is_ok());
        assert!(matches!(same_run(&run(3), &run(4)), Err(ClientError::Ended { domid: 3 })));
    }

    #[test]
    fn the_host_is_refused_in_words_of_xm() {
        assert_eq!(privileged("destroy").to_string(), "Cannot destroy privileged domain 0");
        assert_eq!(privileged("pause").to_string(), "Cannot pause privileged domain Domain-0");
    }
}
