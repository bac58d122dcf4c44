//! `shell`: the interactive prompt.

mod complete;
mod split;

use std::io::{BufRead, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::error::Error;
use crate::output::note;
use crate::terminal::Guard;
use crate::tool::Tool;
use complete::Words;
use split::split;

/// Most lines that are remembered, while the shell runs.
const MOST_HISTORY: usize = 1000;
/// What a shell adds to a signal's number for an exit status (POSIX, 2.8.2).
const BY_SIGNAL: i32 = 128;

/// `shell`: the exit status is that of the last command.
///
/// # Errors
///
/// When lines cannot be read.
pub fn shell(tool: Tool) -> Result<u8, Error> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        interactive(tool)
    } else {
        plain(tool)
    }
}

fn interactive(tool: Tool) -> Result<u8, Error> {
    // The line editor changes the terminal's settings, and cannot undo that when it is killed.
    let _guard = Guard::of(std::io::stdin())?;
    let config = Config::builder()
        .max_history_size(MOST_HISTORY)?
        .completion_type(CompletionType::List)
        .auto_add_history(true)
        // Its end would have to be told to the terminal, whatever ends us.
        .bracketed_paste(false)
        .build();
    let mut editor: Editor<Words, DefaultHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Words::new(tool)));
    let prompt = format!("{}> ", tool.name());
    let mut status = 0;
    loop {
        match editor.readline(&prompt) {
            Ok(line) => match run(tool, &line) {
                Some(ended) => status = ended,
                None => return Ok(status),
            },
            // Ctrl+C leaves the line, Ctrl+D the shell.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(status),
            Err(error) => return Err(error.into()),
        }
    }
}

fn plain(tool: Tool) -> Result<u8, Error> {
    let mut status = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| Error::Prompt(error.into()))?;
        match run(tool, &line) {
            Some(ended) => status = ended,
            None => break,
        }
    }
    Ok(status)
}

/// Carries out a line, as a program of its own: nothing of one command is left for the next. Gives its
/// exit status; `None` if the shell is to end.
fn run(tool: Tool, line: &str) -> Option<u8> {
    let words = match split(line) {
        Ok(words) => words,
        Err(error) => {
            note(&format!("Error: {error}"));
            return Some(1);
        }
    };
    match words.first().map(String::as_str) {
        None => return Some(0),
        Some("exit" | "quit") => return None,
        Some("shell") => {
            note(&format!("Error: This is {} shell already.", tool.name()));
            return Some(1);
        }
        Some(_) => {}
    }
    // Whoever types "xm list" here means "list".
    let named = usize::from(words.first().is_some_and(|word| word == tool.name()));
    let status =
        Command::new("/proc/self/exe").arg0(tool.name()).args(words.iter().skip(named)).status();
    match status {
        Ok(status) => {
            let signal = status.signal().map(|signal| BY_SIGNAL.saturating_add(signal));
            Some(status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(error) => {
            note(&format!("Error: Cannot run {}: {error}", tool.name()));
            Some(1)
        }
    }
}
