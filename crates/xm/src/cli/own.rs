//! Definitions of `config`, `config-update`, `dump-core` and `top`.

use clap::builder::ValueHint;
use clap::{Arg, Command, value_parser};

use super::{domain, examples, flag, json};
use crate::tool::Tool;
use crate::top::SORT_WORDS;

/// The definition of one of these, or `None`.
pub(super) fn command(tool: Tool, name: &str) -> Option<Command> {
    Some(match name {
        "config" => config(tool),
        "config-update" => config_update(tool),
        "dump-core" => dump_core(tool),
        "top" => top(tool),
        _ => return None,
    })
}

fn config(tool: Tool) -> Command {
    Command::new("config")
        .about("Check, show or edit configurations; show the host's settings")
        .arg(
            Arg::new("action")
                .value_name("check|show|edit|host")
                .required(true)
                .value_parser(["check", "show", "edit", "host"])
                .hide_possible_values(true)
                .help("Look for faults, print the whole configuration with its defaults, edit a stored domain's, or print the host's settings"),
        )
        .arg(
            Arg::new("words")
                .value_name("File] [key=value")
                .value_hint(ValueHint::FilePath)
                .num_args(1..)
                .help("Files (with show: one, or a running domain; with edit: a stored domain; with host: none, or an old xend-config.sxp to translate); settings that override them"),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(["cfg", "sxp", "json"])
                .hide_possible_values(true)
                .help("With show: cfg (as a file has it; default), sxp or json"),
        )
        .arg(json())
        .after_help(format!(
            "Nothing is started. Each fault is told with its file, line and column, and what to do \
             about it; an unknown key with the nearest that there is.\nThe exit status of check is 1 \
             if a file has errors; warnings do not count.\n\nedit runs the editor that VISUAL or EDITOR \
             names. The text is checked like a file, and stored if it has no faults and nobody else \
             has changed the configuration meanwhile; else it is kept in a file, whose name is told. \
             It holds from the domain's next start on.\n\nThe host's settings are in \
             /etc/xen/xenolith.toml for root, and in ~/.config/xenolith/xenolith.toml for others:\n\n  \
             [network]\n  bridge = \"xenbr0\"   # for interfaces that name no bridge\n  [memory]\n  \
             reserve = 512         # MiB that no domain gets\n  [daemon]\n  \
             idle = 5              # seconds that xend stays when nobody needs it\n  [log]\n  level = \"info\"        # error, warning, info or debug; XENOLITH_LOG goes before it\n  format = \"text\"       # text or json; XENOLITH_LOG_FORMAT goes before it\n\n{}",
            examples(
                tool,
                &[
                    ("config check *.cfg", "All faults of all files"),
                    ("config show serv1.cfg memory=512", "What create would take"),
                    ("config show serv1", "What the running domain was started with"),
                    ("config edit serv1", "Change what 'new' stored"),
                    ("config host", "The settings that hold for all domains"),
                    ("config host /etc/xen/xend-config.sxp", "An old host's settings, for xenolith.toml"),
                ],
            )
        ))
}

fn config_update(tool: Tool) -> Command {
    Command::new("config-update")
        .about("Give a domain another configuration for its next start")
        .arg(domain().required(true))
        .arg(
            Arg::new("words")
                .value_name("ConfigFile] [key=value")
                .value_hint(ValueHint::FilePath)
                .num_args(0..)
                .help("The new configuration, without it the present one; settings that override it"),
        )
        .after_help(format!(
            "A running domain goes on as it is and restarts (on_reboot, on_crash, reset) with the new \
             configuration; a stored domain keeps it, and starts with it. Name and UUID stay.\n\n{}",
            examples(
                tool,
                &[
                    ("config-update serv1 serv1.cfg", "What the file says now"),
                    ("config-update serv1 memory=512", "The same as before, with 512 MiB"),
                ],
            )
        ))
}

fn dump_core(tool: Tool) -> Command {
    let command = Command::new("dump-core")
        .about("Write a domain's memory and registers into a core file")
        .arg(domain().required(true));
    let file = Arg::new("file").value_name("File").value_hint(ValueHint::FilePath);
    let command = match tool {
        Tool::Xl => command.arg(file.required(true).help("The file to write")),
        Tool::Xm => command
            .arg(file.help("The file to write [default: one in the directory of logs, below dump]"))
            .arg(flag("live", Some('L'), "Let the domain run meanwhile"))
            .arg(flag("crash", Some('C'), "Destroy the domain afterwards"))
            .arg(flag("reset", Some('R'), "Reset the domain afterwards").conflicts_with("crash")),
    };
    command.after_help(format!(
        "The domain stands still until the file is written, unless with -L. The file has its name \
         only when it is whole; memory that the domain never used takes no room in it.\ngdb, crash \
         and readelf read it, and what reads Xen's own format finds its sections.\n\n{}",
        examples(tool, &[("dump-core serv1 serv1.core", "Then: crash vmlinux serv1.core")])
    ))
}

fn top(tool: Tool) -> Command {
    Command::new("top")
        .about("Watch domains: CPU time, memory, disks, networks")
        .arg(flag("batch", Some('b'), "Print text instead of a full screen"))
        .arg(
            Arg::new("delay")
                .short('d')
                .long("delay")
                .value_name("SECONDS")
                .value_parser(value_parser!(f64))
                .help("Seconds between two looks [default: 3]"),
        )
        .arg(
            Arg::new("iterations")
                .short('i')
                .long("iterations")
                .value_name("N")
                .value_parser(value_parser!(u64))
                .help("End after so many looks"),
        )
        .arg(flag("networks", Some('n'), "A line for each network interface"))
        .arg(flag("vbds", Some('x'), "A line for each disk"))
        .arg(flag("vcpus", Some('v'), "A line for the virtual CPUs"))
        .arg(flag("full-name", Some('f'), "Do not cut names"))
        .arg(
            Arg::new("sort")
                .long("sort")
                .value_name("WORD")
                .value_parser(SORT_WORDS)
                .hide_possible_values(true)
                .help("id (default), name, cpu-time, cpu, memory, network or disk"),
        )
        .arg(json().help("Print a JSON object for each look, for programs"))
        .after_help(format!(
            "Keys: q ends it; d, then a number and Enter, sets the delay; n, b and v show networks, \
             disks and virtual CPUs; s sorts by the next column; f shows full names; arrows scroll.\n\
             Without a terminal it prints as with -b. CPU(%) is of one CPU, and 0 at the first look.\
             \n\n{}",
            examples(
                tool,
                &[
                    ("top", "The full screen"),
                    ("top -b -i 2 -d 1", "Two looks, a second apart"),
                    ("top --json -i 1", "For programs"),
                ],
            )
        ))
}
