//! The options and operands of every command that works, as clap definitions.
//!
//! The same definitions parse the command line and make the help texts, the manual pages and
//! the shell completions.

mod daemon;
mod devices;
mod facts;
mod guest;
mod host;
mod inside;
mod life;
mod own;

use clap::{Arg, ArgAction, Command};

use crate::tool::Tool;

/// Layout of `--help`: usage first, as xm prints it.
const HELP_TEMPLATE: &str = "{usage-heading} {usage}\n\n{about}\n\n{all-args}{after-help}\n";

/// The definition of one working command, or `None` if there is no such command.
pub fn command(tool: Tool, name: &str) -> Option<Command> {
    let groups = [
        daemon::command,
        devices::command,
        facts::command,
        guest::command,
        host::command,
        inside::command,
        life::command,
        own::command,
    ];
    let command = groups.into_iter().find_map(|command| command(tool, name))?;
    Some(
        command
            .bin_name(format!("{} {name}", tool.name()))
            .help_template(HELP_TEMPLATE)
            .args_override_self(true)
            .infer_long_args(true)
            .disable_version_flag(true),
    )
}

/// The whole tool with all working commands, for manual pages and completions.
pub fn whole(tool: Tool) -> Command {
    let working = crate::commands::COMMANDS.iter().filter(|entry| entry.lacks.is_none());
    Command::new(tool.name())
        .about("Control the domains of a Xenolith host")
        .subcommands(working.filter_map(|entry| command(tool, entry.name)))
        .disable_help_subcommand(true)
        .subcommand(Command::new("help").about("List all commands"))
        .after_help(
            "A word of at least two letters that begins only one command runs that command.\n\
             Options may follow operands. A <Domain> is a name, an id or a uuid; names win.",
        )
}

/// `Examples:` with one line per command line and what it does.
fn examples(tool: Tool, lines: &[(&str, &str)]) -> String {
    let mut text = String::from("Examples:");
    for (line, what) in lines {
        let full = format!("{} {line}", tool.name());
        text.push_str(&format!("\n  {full:<34} {what}"));
    }
    text
}

fn flag(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    match short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

fn domain() -> Arg {
    Arg::new("domain").value_name("Domain").help("Name, id or uuid of the domain")
}

fn domains() -> Arg {
    Arg::new("domain").value_name("Domain").num_args(0..).help("Only these domains")
}

fn wait(help: &'static str) -> Arg {
    flag("wait", Some('w'), help)
}

fn json() -> Arg {
    flag("json", None, "Print JSON, for programs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::COMMANDS;

    #[test]
    fn every_working_command_is_defined_and_no_other() {
        for tool in [Tool::Xm, Tool::Xl] {
            for entry in COMMANDS {
                let defined = command(tool, entry.name);
                assert_eq!(defined.is_some(), entry.lacks.is_none(), "{}", entry.name);
                if let Some(mut defined) = defined {
                    let help = defined.render_help().to_string();
                    assert!(help.starts_with(&format!("Usage: {} {}", tool.name(), entry.name)));
                    assert!(help.contains("Examples:"), "{} has no examples", entry.name);
                }
            }
            whole(tool).debug_assert();
        }
    }

    #[test]
    fn options_may_follow_operands() {
        let parsed =
            command(Tool::Xm, "create").unwrap().try_get_matches_from(["create", "f.cfg", "-c"]);
        assert!(parsed.unwrap().get_flag("console_autoconnect"));
    }

    #[test]
    fn long_options_may_be_cut_short_and_repeated() {
        let parsed = command(Tool::Xm, "create")
            .unwrap()
            .try_get_matches_from(["create", "--defc=a", "-qq", "--quiet", "-fb"]);
        let parsed = parsed.unwrap();
        assert_eq!(parsed.get_one::<String>("defconfig").map(String::as_str), Some("b"));
        assert!(parsed.get_flag("quiet"));
    }
}
