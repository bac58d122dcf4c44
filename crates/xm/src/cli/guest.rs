//! Definitions of `cp` and `exec`.

use clap::builder::ValueHint;
use clap::{Arg, ArgAction, Command, value_parser};

use super::{domain, examples, flag};
use crate::tool::Tool;

/// The definition of one of these, or `None`.
pub(super) fn command(tool: Tool, name: &str) -> Option<Command> {
    Some(match name {
        "cp" => cp(tool),
        "exec" => exec(tool),
        _ => return None,
    })
}

/// How a guest gets the agent that both commands need.
const AGENT: &str = "The guest needs an agent, but no network. Guests of 'image build' have it. Into another \
    Linux guest copy the program xenguest (on this host beside xendomain, as a rule in \
    /usr/local/libexec/xenolith), as /usr/local/sbin/xenguest, and have it started at boot as root: by a \
    unit of systemd with ExecStart=/usr/local/sbin/xenguest and Restart=always, or by the line \
    '::respawn:/usr/local/sbin/xenguest' in the inittab of busybox.";

fn timeout() -> Arg {
    Arg::new("timeout")
        .long("timeout")
        .value_name("SECONDS")
        .value_parser(value_parser!(f64))
        .help("How long to wait for the guest's agent to answer [default: 10]")
}

fn exec(tool: Tool) -> Command {
    Command::new("exec")
        .about("Run a command in a guest, as root and without a network")
        .arg(flag("tty", Some('t'), "Give it a terminal, which is yours"))
        .arg(flag("no-stdin", Some('n'), "Leave this command's input alone (for loops)"))
        .arg(
            Arg::new("env")
                .short('e')
                .long("env")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .help("Add to its environment; any number of times"),
        )
        .arg(
            Arg::new("workdir")
                .short('w')
                .long("workdir")
                .value_name("DIR")
                .help("Where it runs [default: root's home]"),
        )
        .arg(timeout())
        .arg(domain().required(true))
        .arg(
            Arg::new("command")
                .value_name("Command")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("The program and its arguments; no shell looks at them"),
        )
        .after_help(format!(
            "Input, output and error output are this command's own, each for itself. With -t they are \
             one terminal. SIGINT and SIGTERM go to the command; a second one ends this one. When this \
             one ends, the command gets SIGHUP.\n\nThe exit code is the command's, 128 and more for one that a signal \
             killed, 127 if there is no such command, 126 if it cannot be executed, and 125 if the \
             domain, its agent or the channel is at fault.\n\n{AGENT}\n\n{}",
            examples(
                tool,
                &[
                    ("exec serv1 uname -a", "One command"),
                    ("exec -t serv1 bash", "A shell"),
                    ("exec serv1 sh -c 'df -h | tail -1'", "With a shell's pipes"),
                    ("exec serv1 tar c /etc >etc.tar", "Output into a file here"),
                ]
            )
        ))
}

fn cp(tool: Tool) -> Command {
    let end = |name: &'static str, shown: &'static str, help: &'static str| {
        let arg = Arg::new(name).value_name(shown).required(true).help(help);
        arg.value_hint(ValueHint::AnyPath)
    };
    Command::new("cp")
        .about("Copy files and directories into a guest or out of it, without a network")
        .arg(flag("quiet", Some('q'), "Show no progress on a terminal"))
        .arg(timeout())
        .arg(end("source", "Source", "A file or directory: PATH here, or Domain:PATH"))
        .arg(end("target", "Target", "Where to: Domain:PATH, or PATH here; a directory takes it in"))
        .after_help(format!(
            "One of the two is in a guest. Relative paths there begin at root's home; a path of this host \
             that has a colon begins with / or ./.\nModes and times come along, links stay links, owners \
             do not come along (nor, out of a guest, setuid bits). A copy gets its name once it is whole: a file takes the place of \
             another one then, a directory of nothing.\n\n{AGENT}\n\n{}",
            examples(
                tool,
                &[
                    ("cp index.html serv1:/var/www/html/", "A file into a directory"),
                    ("cp serv1:/var/log .", "A whole directory"),
                ]
            )
        ))
}
