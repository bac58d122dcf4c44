//! Definitions of what domains begin, end and are watched by: `create`, `shutdown`, `console` and the like.

use clap::builder::ValueHint;
use clap::{Arg, Command};

use super::{domain, examples, flag, wait};
use crate::tool::Tool;

/// The definition of one of these, or `None`.
pub(super) fn command(tool: Tool, name: &str) -> Option<Command> {
    Some(match name {
        "console" => console(tool),
        "create" => create(tool),
        "delete" => delete(tool),
        "destroy" => destroy(tool),
        "new" => new(tool),
        "pause" => pause(tool),
        "reboot" => reboot(tool),
        "shutdown" => shutdown(tool),
        "start" => start(tool),
        "unpause" => unpause(tool),
        _ => return None,
    })
}

fn create(tool: Tool) -> Command {
    let command = Command::new("create")
        .about("Create a domain from a configuration file and start it")
        .arg(flag("console_autoconnect", Some('c'), "Attach the console from its first byte on"))
        .arg(flag("paused", Some('p'), "Leave the domain paused after it was created"))
        .arg(flag("dryrun", Some('n'), "Print the resulting configuration; create nothing"));
    configuration(tool, command).after_help(examples(
        tool,
        &[
            ("create serv1.cfg", "Start the domain that serv1.cfg describes"),
            ("create -c serv1.cfg", "The same, and watch it boot"),
            ("create serv1.cfg memory=256", "With 256 MiB, whatever the file says"),
            ("create -n serv1.cfg", "Check the file; start nothing"),
        ],
    ))
}

/// The operands and options that name a configuration.
fn configuration(tool: Tool, command: Command) -> Command {
    let path = match tool {
        Tool::Xm => ".:/etc/xen",
        Tool::Xl => ".",
    };
    command
        .arg(flag("quiet", Some('q'), "Do not say which file is used and what was started"))
        .arg(
            Arg::new("defconfig")
                .short('f')
                .long("defconfig")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .help("Configuration file; the same as giving it as an operand"),
        )
        .arg(
            Arg::new("path")
                .long("path")
                .value_name("A:B")
                .help(format!("Directories to search for the file [default: {path}]")),
        )
        .arg(
            Arg::new("words")
                .value_name("ConfigFile] [key=value")
                .value_hint(ValueHint::FilePath)
                .num_args(0..)
                .help("Configuration file [default: xmdefconfig]; settings that override it"),
        )
}

fn new(tool: Tool) -> Command {
    let command = Command::new("new").about("Store a domain, which 'start' then starts");
    configuration(tool, command).after_help(examples(
        tool,
        &[
            ("new serv1.cfg", "It is listed from now on, and outlives the host's reboots"),
            ("start serv1", "Whenever it is wanted"),
        ],
    ))
}

fn start(tool: Tool) -> Command {
    Command::new("start")
        .about("Start a stored domain")
        .arg(flag("console_autoconnect", Some('c'), "Attach the console from its first byte on"))
        .arg(flag("paused", Some('p'), "Leave the domain paused after it was started"))
        .arg(domain().required(true))
        .after_help(examples(tool, &[("start serv1", "What 'new' stored")]))
}

fn delete(tool: Tool) -> Command {
    Command::new("delete")
        .about("Delete a stored domain that does not run; its disks are left alone")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("delete serv1", "It is not listed any more")]))
}

fn console(tool: Tool) -> Command {
    Command::new("console")
        .about("Attach to a domain's console; leave it with Ctrl+] (Ctrl+5)")
        .arg(flag("quiet", Some('q'), "Print nothing but what the domain prints"))
        .arg(
            Arg::new("num")
                .short('n')
                .long("num")
                .value_name("N")
                .value_parser(clap::value_parser!(u32))
                .help("Number of the console; every domain has one, number 0"),
        )
        .arg(domain().required(true))
        .after_help(examples(
            tool,
            &[
                ("console serv1", "Output so far, then live"),
                ("console serv1 < cmds > out", "Relay a file; ends with the domain"),
            ],
        ))
}

fn shutdown(tool: Tool) -> Command {
    let command = Command::new("shutdown")
        .about("Ask a domain to shut down; its own system does the work")
        .arg(flag("all", Some('a'), "All domains except Domain-0"))
        .arg(wait("Wait until the domains are gone"));
    let command = match tool {
        Tool::Xl => command,
        Tool::Xm => command
            .arg(flag("halt", Some('H'), "Ask to halt instead of to power off"))
            .arg(flag("reboot", Some('R'), "Ask to reboot instead of to power off")),
    };
    command.arg(domain()).after_help(examples(
        tool,
        &[
            ("shutdown serv1", "Ask, and return at once"),
            ("shutdown -w serv1", "Ask, and wait for the end"),
            ("shutdown -a -w", "All domains"),
        ],
    ))
}

fn reboot(tool: Tool) -> Command {
    Command::new("reboot")
        .about("Ask a domain to reboot; its own system does the work")
        .arg(flag("all", Some('a'), "All domains except Domain-0"))
        .arg(wait("Wait until the domains have started again"))
        .arg(domain())
        .after_help(examples(tool, &[("reboot -w serv1", "Ask, and wait for the new start")]))
}

fn destroy(tool: Tool) -> Command {
    Command::new("destroy")
        .about("End a domain at once, without asking it")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("destroy serv1", "As if its power cord was pulled")]))
}

fn pause(tool: Tool) -> Command {
    Command::new("pause")
        .about("Stop a domain's virtual CPUs; it keeps its memory and devices")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("pause serv1", "Until: unpause serv1")]))
}

fn unpause(tool: Tool) -> Command {
    Command::new("unpause")
        .about("Let a paused domain go on")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("unpause serv1", "Go on where it was paused")]))
}
