//! A command on a terminal: a small program of its own, which makes the terminal that of a new session
//! and becomes the command. (Between `fork` and `exec` of a program with threads nothing may be done.)

use crate::exit;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The option that asks for it.
pub const OPTION: &str = "--on-terminal";

/// Becomes the command in `words`, on the terminal that is standard input.
pub fn run(words: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = words.split_first() else {
        return ExitCode::from(exit::FAULT);
    };
    let made =
        rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(io::stdin()));
    if let Err(error) = made {
        eprintln!("xenguest: cannot have a terminal: {error}\r");
        return ExitCode::from(exit::FAULT);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("{}\r", refusal(program, &error));
    ExitCode::from(code(&error))
}

/// The exit code for a command that could not be started.
pub(super) fn code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound => exit::NOT_FOUND,
        _ => exit::NOT_EXECUTABLE,
    }
}

/// What is told of it.
pub(super) fn refusal(program: &OsStr, error: &io::Error) -> String {
    let program = program.to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound => format!("The guest has no command '{program}'"),
        _ => format!("The guest cannot execute '{program}': {error}"),
    }
}
