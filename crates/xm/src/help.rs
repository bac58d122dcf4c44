//! Help texts of the whole tool, and the way from clap's errors to xm's.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};

use crate::commands::{COMMANDS, Entry};
use crate::error::Error;
use crate::tool::Tool;
use crate::{cli, output};

/// Commands in the short help.
const COMMON: [&str; 9] =
    ["console", "create", "destroy", "list", "pause", "reboot", "shutdown", "unpause", "uptime"];

/// The short help: what is printed without a command and after an unknown one.
pub fn short(tool: Tool) -> String {
    let name = tool.name();
    let mut text = heading(tool);
    text.push_str(&format!("Common '{name}' commands:\n\n"));
    for entry in COMMANDS.iter().filter(|entry| COMMON.contains(&entry.name)) {
        text.push_str(&summary(tool, entry));
    }
    text.push_str(&format!(
        "\n'{name} help' lists all commands, '{name} COMMAND --help' explains one.\n"
    ));
    text
}

/// The long help: every command, and those that are not there yet.
pub fn long(tool: Tool) -> String {
    let name = tool.name();
    let mut text = heading(tool);
    text.push_str(&format!("'{name}' commands:\n\n"));
    for entry in COMMANDS.iter().filter(|entry| entry.lacks.is_none()) {
        text.push_str(&summary(tool, entry));
    }
    text.push_str("\nNot there yet (each says what it waits for):\n\n");
    let missing: Vec<&str> =
        COMMANDS.iter().filter(|entry| entry.lacks.is_some()).map(|entry| entry.name).collect();
    text.push_str(&filled(&missing));
    text.push_str(&format!(
        "\nA word of at least two letters that begins only one command runs that command.\n\
         Options may follow operands. <Domain> is a name, an id or a uuid; names win.\n\
         '{name} COMMAND --help' explains one command.\n"
    ));
    text
}

fn heading(tool: Tool) -> String {
    format!(
        "Usage: {} <subcommand> [args]\n\nControl the domains of this Xenolith host.\n\n",
        tool.name()
    )
}

fn summary(tool: Tool, entry: &Entry) -> String {
    let about = cli::command(tool, entry.name).and_then(|command| command.get_about().cloned());
    let about = about.map(|about| about.to_string()).unwrap_or_default();
    format!(" {:<15}{about}.\n", entry.name)
}

/// Words in lines of less than 80 columns.
fn filled(words: &[&str]) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words {
        if column > 0 && column + word.len() + 1 > 78 {
            text.push('\n');
            column = 0;
        }
        text.push(' ');
        text.push_str(word);
        column += word.len() + 1;
    }
    text.push('\n');
    text
}

/// What to do after the command line was read.
#[derive(Debug)]
pub enum Parsed {
    /// Run the command.
    Run(ArgMatches),
    /// Print this; the user asked for help.
    Help(String),
}

/// Reads the words after `entry`'s name.
///
/// # Errors
///
/// [`Error::Usage`] in the words of xm.
pub fn parse(tool: Tool, entry: &'static Entry, words: &[String]) -> Result<Parsed, Error> {
    let Some(mut command) = cli::command(tool, entry.name) else {
        return Ok(Parsed::Help(String::new()));
    };
    let line = std::iter::once(entry.name).chain(words.iter().map(String::as_str));
    match command.try_get_matches_from_mut(line) {
        Ok(matches) => Ok(Parsed::Run(matches)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Parsed::Help(full(command))),
        Err(error) => Err(Error::usage(entry.name, in_xm_words(tool, entry, &command, &error))),
    }
}

/// The whole help of a command, with colours if standard output takes them.
fn full(mut command: Command) -> String {
    let help = command.render_help();
    if output::colours_on(&std::io::stdout()) { help.ansi().to_string() } else { help.to_string() }
}

/// The help of a command without its examples, as printed after an error.
pub fn usage(tool: Tool, name: &str) -> String {
    match cli::command(tool, name) {
        Some(mut command) => {
            let template = "{usage-heading} {usage}\n\n{about}\n\n{all-args}\n";
            command = command.help_template(template);
            command.render_help().to_string()
        }
        None => String::new(),
    }
}

fn in_xm_words(tool: Tool, entry: &Entry, command: &Command, error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => word.clone(),
        Some(ContextValue::Strings(words)) => words.join(" "),
        _ => String::new(),
    };
    let option = || bare_option(&context(ContextKind::InvalidArg));
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let word = context(ContextKind::InvalidArg);
            if word.starts_with('-') {
                format!("option {word} not recognized")
            } else {
                argument_count(tool, entry, command)
            }
        }
        ErrorKind::MissingRequiredArgument => argument_count(tool, entry, command),
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            format!("option {} requires argument", option())
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => "Invalid argument.".to_owned(),
        ErrorKind::TooManyValues => format!("option {} must not have an argument", option()),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or("Invalid argument.");
            first.trim_start_matches("error: ").to_owned()
        }
    }
}

/// `--defconfig` of `--defconfig <FILE>`.
fn bare_option(shown: &str) -> String {
    shown.split([' ', '=']).next().unwrap_or("").to_owned()
}

/// How many operands the command takes, in the words of xm.
fn argument_count(tool: Tool, entry: &Entry, command: &Command) -> String {
    let positionals: Vec<_> = command.get_positionals().collect();
    let low = positionals.iter().filter(|arg| arg.is_required_set()).count();
    let high = positionals.len();
    let name = format!("'{} {}'", tool.name(), entry.name);
    if low == high {
        let plural = if low == 1 { "" } else { "s" };
        format!("{name} requires {low} argument{plural}.")
    } else {
        format!("{name} requires between {low} and {high} arguments.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::exact;

    fn complaint(name: &'static str, words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        match parse(Tool::Xm, exact(name).unwrap(), &words) {
            Err(error) => error.to_string(),
            Ok(parsed) => panic!("{parsed:?}"),
        }
    }

    #[test]
    fn operand_counts_in_words_of_xm() {
        assert_eq!(complaint("destroy", &[]), "'xm destroy' requires 1 argument.");
        assert_eq!(complaint("destroy", &["a", "b"]), "'xm destroy' requires 1 argument.");
        let shutdown = "'xm shutdown' requires between 0 and 1 arguments.";
        assert_eq!(complaint("shutdown", &["a", "b"]), shutdown);
        assert_eq!(complaint("info", &["x"]), "'xm info' requires 0 arguments.");
    }

    #[test]
    fn options_in_words_of_getopt() {
        assert_eq!(complaint("list", &["--bogus"]), "option --bogus not recognized");
        assert_eq!(complaint("list", &["-z"]), "option -z not recognized");
        assert_eq!(complaint("create", &["-f"]), "option --defconfig requires argument");
        assert_eq!(complaint("console", &["-n", "x", "d"]), "Invalid argument.");
        assert_eq!(complaint("list", &["--long=3"]), "option --long must not have an argument");
    }

    #[test]
    fn every_command_explains_itself() {
        for entry in COMMANDS.iter().filter(|entry| entry.lacks.is_none()) {
            let asked = parse(Tool::Xm, entry, &["--help".to_owned()]).unwrap();
            let Parsed::Help(text) = asked else { panic!("{} ran", entry.name) };
            assert!(text.starts_with("Usage: xm "), "{text}");
            assert!(!usage(Tool::Xm, entry.name).contains("Examples:"));
        }
    }

    #[test]
    fn the_helps_list_their_commands() {
        let short = short(Tool::Xm);
        assert!(short.starts_with("Usage: xm <subcommand> [args]\n"));
        assert!(short.contains("\n create         Create a domain"));
        let long = long(Tool::Xl);
        for entry in COMMANDS {
            assert!(long.contains(entry.name), "{} is missing", entry.name);
        }
        assert!(long.lines().all(|line| line.len() <= 100));
    }
}
