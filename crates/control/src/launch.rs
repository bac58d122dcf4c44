//! Starting a domain process.
//!
//! `xendomain` reads one [`CreateSpec`] as JSON from its standard input, detaches
//! itself, and answers with one [`StartReply`] line on its standard output once
//! the domain runs or could not be started.

use crate::error::{Hint, PathError};
use crate::line::{LineError, LineReader};
use crate::protocol::{Failure, MAX_REPLY};
use config::DomainConfig;
use kill_point::kill_point;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `xendomain` is told on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateSpec {
    /// The domain's configuration; relative paths in it are seen from the
    /// directory in which `xendomain` is started.
    pub config: DomainConfig,
    /// Leave the domain paused.
    #[serde(default)]
    pub paused: bool,
}

/// A domain that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Domain number.
    pub domid: u32,
    /// Name.
    pub name: String,
}

/// What `xendomain` answers on its standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "start", rename_all = "kebab-case")]
pub enum StartReply {
    /// The domain runs (or is paused, as asked).
    Started(Started),
    /// It could not be started; nothing is left of it.
    Failed(Failure),
}

/// A domain that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program is missing.
    #[error("Program \"{program}\" was not found; looked at {}", list(.tried))]
    Missing {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The program cannot be run.
    #[error(transparent)]
    Run(#[from] PathError),
    /// The domain process ended without a word.
    #[error("The domain process ended while it started the domain")]
    Silent,
    /// The domain process did not say something sensible.
    #[error("The domain process gave no proper answer: {0}")]
    Reply(#[from] LineError),
    /// It says why it could not start the domain.
    #[error(transparent)]
    Failed(Failure),
}

impl Hint for LaunchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("Install it next to this program.".into()),
            Self::Run(error) => error.hint(),
            Self::Silent => Some("Its log tells more ('xm log').".into()),
            Self::Reply(_) => Some("Install all programs in the same version.".into()),
            Self::Failed(failure) => failure.hint.clone(),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    shown.join(", ")
}

/// Finds one of our own programs: as environment `variable` says, next to the
/// running program, or in `../libexec/xenolith`.
///
/// # Errors
/// [`LaunchError::Missing`] with the places that were tried.
pub fn find_program(program: &'static str, variable: &str) -> Result<PathBuf, LaunchError> {
    let mut tried = Vec::new();
    if let Some(path) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        tried.push(PathBuf::from(path));
    } else if let Ok(own) = std::env::current_exe() {
        let directory = own.parent().unwrap_or(Path::new("/"));
        tried.push(directory.join(program));
        if let Some(prefix) = directory.parent() {
            tried.push(prefix.join("libexec/xenolith").join(program));
        }
    }
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(LaunchError::Missing { program, tried }),
    }
}

/// Starts a domain and returns when it runs. `spec` is a [`CreateSpec`], or what
/// `xendomain` makes of one for a restart. `xendomain` is found as
/// [`find_program`] says, with the variable `XENOLITH_XENDOMAIN`.
///
/// # Errors
/// When the program is missing or the domain cannot be started.
pub fn launch(spec: &impl Serialize) -> Result<Started, LaunchError> {
    let program = find_program("xendomain", "XENOLITH_XENDOMAIN")?;
    let run_error = |error: io::Error| PathError::at("run", &program)(error);
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(run_error)?;
    kill_point("successor.spawned");
    let text = serde_json::to_vec(spec).map_err(|error| run_error(io::Error::other(error)))?;
    // A process that ended early does not read; its reply says why.
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(&text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(run_error(error).into());
            }
            _ => {}
        }
    }
    kill_point("successor.ordered");
    let Some(mut output) = child.stdout.take() else { return Err(LaunchError::Silent) };
    match LineReader::new(MAX_REPLY).read(&mut output)? {
        Some(StartReply::Started(started)) => Ok(started),
        Some(StartReply::Failed(failure)) => Err(LaunchError::Failed(failure)),
        None => Err(LaunchError::Silent),
    }
}
