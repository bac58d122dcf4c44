//! Programs that outlive the service that starts them: in scopes of their own, if systemd started it.
//!
//! What a service starts belongs to its control group, so that `systemctl kill` reaches it, its
//! limits hold for all together, and `systemctl stop` calls it left over. A scope (systemd.scope(5))
//! is a unit for processes that somebody else started.

use crate::Uuid;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

/// The slice of systemd in which the scopes are; without it there are none.
pub const SLICE_VARIABLE: &str = "XENOLITH_SLICE";

/// The command that runs `program` in a scope of its own, called after it and `who`. It becomes the
/// program, with the same process number.
///
/// # Errors
/// When no name can be drawn.
pub fn in_scope(program: &Path, who: &str) -> io::Result<Command> {
    match std::env::var_os(SLICE_VARIABLE).filter(|slice| !slice.is_empty()) {
        Some(slice) => scope(program, who, slice),
        None => Ok(Command::new(program)),
    }
}

fn scope(program: &Path, who: &str, slice: OsString) -> io::Result<Command> {
    let unit = unit(program, who, Uuid::random()?);
    let mut argument = OsString::from("--slice=");
    argument.push(slice);
    let mut command = Command::new("systemd-run");
    command
        .args(["--scope", "--quiet", "--collect", "--no-ask-password"])
        .arg(argument)
        .arg(format!("--unit={unit}"))
        .arg(format!("--description=Xenolith: {who}"))
        // When the host goes down, scopes end after that unit has shut the domains down.
        .arg("--property=Before=xendomains.service")
        .arg("--")
        .arg(program);
    Ok(command)
}

/// A name that no scope has or had: the former one of a domain may not be gone yet. What comes before
/// the last dash is the same for all of a domain, and for the drop-ins of systemd.unit(5).
fn unit(program: &Path, who: &str, drawn: Uuid) -> String {
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let drawn = drawn.to_string();
    let end = drawn.split('-').next().unwrap_or_default();
    // Of the characters of domains' names only this is none of units'.
    format!("{program}-{}-{end}.scope", who.replace('+', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units() {
        let name =
            unit(Path::new("/usr/libexec/xenolith/xendomain"), "c++.web-1", Uuid([0xab; 16]));
        assert_eq!(name, "xendomain-c__.web-1-abababab.scope");
    }

    #[test]
    fn the_program_comes_last() {
        let command = scope(Path::new("/x/xendomain"), "web", "machine.slice".into()).unwrap();
        let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert!(words.contains(&"--slice=machine.slice"));
        assert_eq!(words[words.len() - 2..], ["--", "/x/xendomain"]);
    }
}
