//! Definitions of `block-...`, `cd-...`, `channel-list` and `network-...`: a running domain's devices.

use clap::builder::ValueHint;
use clap::{Arg, Command};

use super::{domain, examples, flag, json};
use crate::tool::Tool;

/// The definition of one of these, or `None`.
pub(super) fn command(tool: Tool, name: &str) -> Option<Command> {
    Some(match name {
        "block-attach" => block_attach(tool),
        "block-configure" => block_configure(tool),
        "block-detach" => block_detach(tool),
        "block-list" => block_list(tool),
        "block-refresh" => block_refresh(tool),
        "block-resize" => block_resize(tool),
        "cd-eject" => cd_eject(tool),
        "cd-insert" => cd_insert(tool),
        "channel-list" => channel_list(tool),
        "network-attach" => network_attach(tool),
        "network-detach" => network_detach(tool),
        "network-list" => network_list(tool),
        _ => return None,
    })
}

fn device(help: &'static str) -> Arg {
    Arg::new("device").value_name("DevId").required(true).help(help)
}

fn drive() -> Arg {
    Arg::new("device")
        .value_name("VirtualDev")
        .required(true)
        .help("Name of the drive in the guest")
}

fn block_attach(tool: Tool) -> Command {
    let words = Arg::new("words").required(true).num_args(1..=4).value_hint(ValueHint::FilePath);
    let words = match tool {
        Tool::Xm => words.value_name("BackDev FrontDev Mode").help(
            "Backing (file:/path, phy:/dev/x, tap:qcow2:/path), name in the guest, r or w or w!; \
             or one disk specification as in a configuration",
        ),
        Tool::Xl => words.value_name("DISK").help("Disk specification as in a configuration"),
    };
    let line = match tool {
        Tool::Xm => "block-attach serv1 file:/srv/a.img xvdb w",
        Tool::Xl => "block-attach serv1 /srv/a.img,raw,xvdb,rw",
    };
    Command::new("block-attach")
        .about("Give a running domain another disk")
        .arg(domain().required(true))
        .arg(words)
        .after_help(examples(tool, &[(line, "As its second disk")]))
}

/// What is the same for all changes of a medium.
const MEDIA: &str = "The guest must let go of the drive: unmount it there first. (Linux lets go of mounted \
    drives too from 5.14 on, and what is mounted reads no more.) The drive is away for a moment and \
    comes again under the same name. If the new medium cannot be used, or the guest does not let go, it \
    keeps the one it has.";

fn block_configure(tool: Tool) -> Command {
    Command::new("block-configure")
        .about("Put another medium into a drive of a running domain")
        .arg(domain().required(true))
        .arg(
            Arg::new("words")
                .required(true)
                .num_args(3..=4)
                .value_hint(ValueHint::FilePath)
                .value_name("BackDev FrontDev Mode")
                .help("As with block-attach: file:/path or phy:/dev/x, name in the guest, r"),
        )
        .after_help(format!(
            "{MEDIA}\n\n{}",
            examples(tool, &[("block-configure serv1 file:/srv/b.iso xvdc r", "Another disc")])
        ))
}

fn cd_insert(tool: Tool) -> Command {
    Command::new("cd-insert")
        .about("Put a disc into a CD drive of a running domain")
        .arg(domain().required(true))
        .arg(drive())
        .arg(
            Arg::new("medium")
                .value_name("Disc")
                .required(true)
                .value_hint(ValueHint::FilePath)
                .help("Image file, or phy:/dev/x"),
        )
        .after_help(format!(
            "{MEDIA}\n\n{}",
            examples(tool, &[("cd-insert serv1 xvdc /srv/b.iso", "In place of what is in it")])
        ))
}

fn cd_eject(tool: Tool) -> Command {
    Command::new("cd-eject")
        .about("Take the disc out of a CD drive of a running domain")
        .arg(domain().required(true))
        .arg(drive())
        .after_help(format!(
            "The drive stays, empty: a disk of no size.\n\n{MEDIA}\n\n{}",
            examples(tool, &[("cd-eject serv1 xvdc", "Until: cd-insert serv1 xvdc /srv/b.iso")])
        ))
}

fn block_detach(tool: Tool) -> Command {
    Command::new("block-detach")
        .about("Take a disk away from a running domain")
        .arg(domain().required(true))
        .arg(device("Name of the disk in the guest, or its number"))
        .arg(flag("force", Some('f'), "Even if the guest uses it"))
        .after_help(examples(tool, &[("block-detach serv1 xvdb", "Once the guest lets go of it")]))
}

fn block_refresh(tool: Tool) -> Command {
    Command::new("block-refresh")
        .about("Show a running domain the new size of a disk whose image has grown")
        .arg(domain().required(true))
        .arg(device("Name of the disk in the guest, or its number"))
        .after_help(examples(tool, &[("block-refresh serv1 xvdb", "After: truncate -s +1G image")]))
}

fn block_resize(tool: Tool) -> Command {
    Command::new("block-resize")
        .about("Make a disk of a running domain larger; the guest sees it at once")
        .arg(domain().required(true))
        .arg(device("Name of the disk in the guest, or its number"))
        .arg(
            Arg::new("size")
                .value_name("Size")
                .required(true)
                .help("Bytes, or with K, M, G or T behind it; with + before it, what is added"),
        )
        .after_help(format!(
            "Image files can grow, raw and qcow2, whose domain may write them and has them for \
             itself (mode w). No disk becomes smaller. A volume grows by the host's means \
             (lvextend), and block-refresh shows it. In the guest, the file system still has to \
             be told: resize2fs, xfs_growfs.\n\n{}",
            examples(
                tool,
                &[
                    ("block-resize serv1 xvdb +2G", "2 GiB more"),
                    ("block-resize serv1 xvdb 20G", "20 GiB in all"),
                ],
            )
        ))
}

fn list_of(tool: Tool, name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .arg(flag("long", Some('l'), "Everything known, as JSON"))
        .arg(json())
        .arg(domain().required(true))
        .after_help(examples(tool, &[(&format!("{name} serv1"), "One line each")]))
}

fn block_list(tool: Tool) -> Command {
    list_of(tool, "block-list", "List a domain's disks")
}

fn channel_list(tool: Tool) -> Command {
    list_of(tool, "channel-list", "List a domain's channels to programs in it")
}

fn network_list(tool: Tool) -> Command {
    list_of(tool, "network-list", "List a domain's network interfaces")
}

fn network_attach(tool: Tool) -> Command {
    Command::new("network-attach")
        .about("Give a running domain another network interface")
        .arg(domain().required(true))
        .arg(Arg::new("words").value_name("key=value").num_args(0..).help(
            "As in a configuration's vif: mac=, bridge=, ip=, antispoof=, script=, vifname=, rate=, ports=",
        ))
        .after_help(examples(
            tool,
            &[
                ("network-attach serv1", "To the user-mode network"),
                ("network-attach serv1 bridge=xenbr0", "To a bridge"),
            ],
        ))
}

fn network_detach(tool: Tool) -> Command {
    Command::new("network-detach")
        .about("Take a network interface away from a running domain")
        .arg(domain().required(true))
        .arg(device("Number of the interface, or its MAC address"))
        .arg(flag("force", Some('f'), "Even if the guest uses it"))
        .after_help(examples(tool, &[("network-detach serv1 0", "Its first interface")]))
}
