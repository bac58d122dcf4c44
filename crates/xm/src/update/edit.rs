//! `config edit`: a stored configuration in the user's editor.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use api::types::{Domain, Managed, Replace};
use config::{DomainConfig, HostConfig, parse_str};
use control::PathError;
use tempfile::TempPath;

use super::{stored, tell, when};
use crate::daemon::{Subject, daemon};
use crate::error::Error;
use crate::output::{note, put};

/// Variables that name the editor, and what is used if none does: Debian's choice, then POSIX'.
const VARIABLES: [&str; 2] = ["VISUAL", "EDITOR"];
const EDITOR: &str = "$(command -v editor || echo vi)";

/// A text that could not be stored, and where it is kept.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The editor cannot be run, or failed.
    #[error("The editor {editor} {how}; nothing is changed.{}", kept(text.as_deref()))]
    Editor {
        /// Its command.
        editor: String,
        /// How it failed.
        how: String,
        /// Where the text is, if there is one.
        text: Option<PathBuf>,
    },
    /// The text has faults.
    #[error("The text has faults; nothing is changed.{}", kept(Some(text)))]
    Faults {
        /// Where the text is.
        text: PathBuf,
    },
    /// The daemon did not store it.
    #[error("{source}; nothing of yours is stored.{}", kept(Some(text)))]
    Refused {
        /// Why.
        source: api::Error,
        /// Where the text is.
        text: PathBuf,
    },
}

impl EditError {
    /// What the user can do about it.
    pub fn hint(&self, tool: &str) -> Option<String> {
        match self {
            Self::Editor { .. } => {
                Some("Name an editor in the variable VISUAL or EDITOR.".to_owned())
            }
            Self::Faults { text } => {
                let path = text.display();
                Some(format!("Mend it, then '{tool} config-update NAME {path}' stores it."))
            }
            Self::Refused { source, .. } => control::Hint::hint(source),
        }
    }
}

fn kept(text: Option<&Path>) -> String {
    text.map_or_else(String::new, |path| format!("\nYour text is kept in {}.", path.display()))
}

/// `config edit D`.
///
/// # Errors
///
/// When the domain is not stored, the editor fails, the text has faults and the user gives up, or
/// somebody else has changed the configuration meanwhile; it is as it was then.
pub fn edit(words: &[String], settings: &[(String, String)]) -> Result<(), Error> {
    let ([word], []) = (words, settings) else {
        return Err(Error::usage("config", "Name one stored domain."));
    };
    let daemon = daemon();
    let domain = Subject::find(&daemon, word)?.unprivileged("edit")?;
    let before = stored(&daemon, &domain)?;
    let original = text_of(&before);
    let file = tempfile::Builder::new()
        .prefix(&format!("xm-{}-", before.name))
        .suffix(".cfg")
        .tempfile()
        .map_err(PathError::at("make a file in", &std::env::temp_dir()))?
        .into_temp_path();
    std::fs::write(&file, &original).map_err(PathError::at("write", &file))?;
    let Some((config, file)) = edited(file, &original)? else {
        return put(&format!("Domain {} is not changed.\n", before.name));
    };
    let Managed { uuid, revision, directory, .. } = before;
    let name = config.general.name.clone();
    match daemon.replace(uuid, &Replace { revision, config, directory }) {
        Ok(_) => put(&format!("{}\n", when(&Domain { name, ..domain }))),
        Err(source) => Err(EditError::Refused { source, text: keep(file)? }.into()),
    }
}

/// The text that is edited.
fn text_of(managed: &Managed) -> String {
    let holds = match managed.domid {
        Some(domid) => {
            format!("It runs (id={domid}): what you change holds from its next start on.")
        }
        None => "What you change holds from its next start on.".to_owned(),
    };
    format!(
        "# Stored domain {}. {holds}\n# Paths are seen from {}.\n\n{}",
        managed.name,
        managed.directory.display(),
        managed.config.to_xm()
    )
}

/// Has the text edited until it has no faults; `None` if it was left as it was.
fn edited(file: TempPath, original: &str) -> Result<Option<(DomainConfig, TempPath)>, Error> {
    loop {
        let failed = run_editor(&file);
        let text = std::fs::read_to_string(&file).map_err(PathError::at("read", &file))?;
        if let Err((editor, how)) = failed {
            let text = if text == original { None } else { Some(keep(file)?) };
            return Err(EditError::Editor { editor, how, text }.into());
        }
        if text == original {
            return Ok(None);
        }
        let error = match parse_str(&file.to_string_lossy(), &text, &[]) {
            Ok(loaded) => {
                let mut config = tell(loaded);
                HostConfig::load()?.apply(&mut config);
                return Ok(Some((config, file)));
            }
            Err(error) => error,
        };
        note(&error.to_string());
        if !ask("Edit again? [Y/n] ")? {
            return Err(EditError::Faults { text: keep(file)? }.into());
        }
    }
}

/// Asks the user, if there is one; an empty answer says yes.
fn ask(question: &str) -> Result<bool, Error> {
    let (input, mut prompt) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() || !prompt.is_terminal() {
        return Ok(false);
    }
    let mut answer = String::new();
    let asked = prompt.write_all(question.as_bytes()).and_then(|()| prompt.flush());
    asked.and_then(|()| input.lock().read_line(&mut answer)).map_err(Error::Output)?;
    // An end of the input is no yes.
    Ok(!answer.is_empty() && !answer.trim_start().to_ascii_lowercase().starts_with('n'))
}

/// Runs the editor; or gives its command, and how it failed.
fn run_editor(file: &Path) -> Result<(), (String, String)> {
    let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let variable = VARIABLES.iter().find(|name| set(name));
    // A variable may hold options too, so a shell takes it apart, as git and crontab have it.
    let command = variable.map_or_else(|| EDITOR.to_owned(), |name| format!("${name}"));
    let shown = variable.and_then(|name| std::env::var(name).ok());
    let status =
        Command::new("/bin/sh").args(["-c", &format!("{command} \"$1\""), "sh"]).arg(file).status();
    let how = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => format!("ended with {status}"),
        Err(error) => format!("cannot be run: {error}"),
    };
    Err((shown.unwrap_or_else(|| "'editor' or 'vi'".to_owned()), how))
}

/// Keeps the text beyond our end.
fn keep(file: TempPath) -> Result<PathBuf, Error> {
    file.keep().map_err(|error| PathError::at("keep", &error.path)(error.error).into())
}
