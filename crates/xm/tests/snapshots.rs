//! What every command prints: text, both names where they differ, `--json`, its commonest error. The
//! expected texts are in `tests/snapshots`, a file for each command; they follow Xen's tools, and where
//! they do not, `docs/commands.md` says so.
//!
//! `UPDATE_GOLDEN=1 cargo test -p xm --test snapshots` writes them anew; look at the difference before
//! keeping it.

mod rig;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use rig::Host;

/// Command lines for each command. `{id}` is the number of the running domain, serv1. A line that
/// begins with `~` depends on the host: of its output only the shape is kept.
const CASES: &[(&str, &[&str])] = &[
    (
        "block-attach",
        &[
            "xm block-attach serv1 file:/srv/a.img xvdb w",
            "xl block-attach serv1 /srv/a.img,raw,xvdb,rw",
            "xm block-attach serv1",
            "xm block-attach serv1 file:/srv/a.img nodisk w",
            "xm block-attach ghost file:/srv/a.img xvdb w",
            "xm block-attach stored file:/srv/a.img xvdb w",
        ],
    ),
    (
        "block-configure",
        &[
            "xm block-configure serv1 file:/srv/b.iso xvdc:cdrom r",
            "xm block-configure serv1",
            "xm block-configure ghost file:/srv/b.iso xvdc r",
        ],
    ),
    (
        "block-detach",
        &[
            "xm block-detach serv1 xvdb",
            "xm block-detach -f serv1 51728",
            "xm block-detach serv1 nodisk",
            "xm block-detach ghost xvdb",
            "xm block-detach stored xvdb",
        ],
    ),
    (
        "block-list",
        &["xm block-list ghost", "xl block-list ghost", "xm block-list", "xm block-list stored"],
    ),
    ("block-refresh", &["xm block-refresh serv1 xvdb", "xm block-refresh ghost xvdb"]),
    (
        "block-resize",
        &[
            "xm block-resize serv1 xvdb +2G",
            "xl block-resize serv1 xvdb 20g",
            "xm block-resize serv1 xvdb 20GB",
            "xm block-resize serv1 nodisk 20G",
            "xm block-resize serv1 xvdb",
            "xm block-resize ghost xvdb 20G",
            "xl block-resize ghost xvdb 20G",
            "xm block-resize stored xvdb 20G",
        ],
    ),
    ("channel-list", &["xl channel-list", "xl channel-list ghost", "xm channel-list ghost"]),
    (
        "cp",
        &[
            "xm cp",
            "xm cp /etc/hosts",
            "xm cp /etc/hosts /tmp/hosts",
            "xm cp ghost:/etc/hosts .",
            "xl cp ghost:/etc/hosts .",
            "xm cp stored:/etc/hosts .",
        ],
    ),
    (
        "exec",
        &[
            "xm exec",
            "xm exec serv1",
            "xm exec ghost true",
            "xl exec ghost true",
            "xm exec stored true",
        ],
    ),
    (
        "cd-eject",
        &[
            "xl cd-eject serv1 xvdc",
            "xm cd-eject serv1 xvdc",
            "xl cd-eject serv1",
            "xl cd-eject ghost xvdc",
            "xl cd-eject stored xvdc",
        ],
    ),
    (
        "cd-insert",
        &[
            "xl cd-insert serv1 xvdc /srv/b.iso",
            "xl cd-insert serv1 nodisk /srv/b.iso",
            "xl cd-insert ghost xvdc /srv/b.iso",
        ],
    ),
    ("claims", &["xl claims", "xl claims --json", "xl claims serv1"]),
    (
        "config",
        &[
            "xm config check good.cfg",
            "xm config check bad.cfg",
            "xm config check --json bad.cfg",
            "xm config check missing.cfg",
            "xm config show good.cfg",
            "xm config show --format sxp good.cfg",
            "xm config edit ghost",
            "xm config",
        ],
    ),
    (
        "config-update",
        &[
            "xl config-update serv1 memory=72",
            "xm config-update stored memory=72",
            "xl config-update serv1 bad.cfg",
            "xl config-update serv1",
            "xl config-update ghost memory=72",
        ],
    ),
    (
        "console",
        &[
            "xm console ghost",
            "xl console ghost",
            "xm console -q ghost",
            "xm console -n 1 serv1",
            "xm console stored",
        ],
    ),
    ("crash-report", &["xm crash-report serv1", "xm crash-report ghost"]),
    (
        "create",
        &[
            "xm create -n good.cfg",
            "xl create -n good.cfg",
            "xm create good.cfg name=serv1",
            "xm create missing.cfg",
            "xm create bad.cfg",
            "xm create -q bad.cfg",
        ],
    ),
    (
        "debug-keys",
        &["xm debug-keys h", "xm debug-keys q serv1", "xm debug-keys", "xm debug-keys q stored"],
    ),
    ("delete", &["xm delete serv1", "xm delete ghost", "xm delete stored"]),
    (
        "destroy",
        &[
            "xm destroy ghost",
            "xl destroy ghost",
            "xm destroy 0",
            "xm destroy",
            "xl destroy",
            "xm destroy stored",
        ],
    ),
    ("dmesg", &["xm dmesg serv1", "xm dmesg", "xm dmesg -c", "xm dmesg ghost"]),
    ("doctor", &["~xm doctor --json", "xm doctor --frobnicate"]),
    (
        "domid",
        &[
            "xm domid serv1",
            "xm domid Domain-0",
            "xm domid ghost",
            "xl domid ghost",
            "xm domid stored",
        ],
    ),
    ("domname", &["xm domname {id}", "xm domname 0", "xm domname 999", "xl domname 999"]),
    (
        "domstate",
        &[
            "xm domstate serv1",
            "xm domstate --json serv1",
            "xm domstate ghost",
            "xm domstate stored",
        ],
    ),
    (
        "dump-core",
        &[
            "xm dump-core ghost",
            "xl dump-core serv1",
            "xm dump-core 0",
            "xm dump-core -C -R serv1",
            "xm dump-core stored",
        ],
    ),
    ("event-monitor", &["xm event-monitor -n 0", "xm event-monitor serv1"]),
    (
        "explain",
        &[
            "xm explain unknown-domain",
            "xm explain --json unknown-domain",
            "xm explain frobnicate",
            "xm explain",
        ],
    ),
    ("image", &["xm image list", "xm image frobnicate", "xm image build nosuch:1"]),
    ("info", &["~xm info", "~xl info", "~xm info --json", "xm info -n", "xm info serv1"]),
    (
        "list",
        &[
            "~xm list",
            "xm list serv1",
            "xl list serv1",
            "xm list stored",
            "xl list stored",
            "xm list --json serv1",
            "xm list --json stored",
            "xm list -l serv1",
            "xl list -l serv1",
            "xm list -l stored",
            "xm list --state=halted",
            "xm list --state=paused",
            "xm list --state=odd",
            "xm list --state=all serv1",
            "xm list -v serv1",
            "xm list --label",
            "xm list --pool=p",
            "xm list ghost",
            "xl list ghost",
        ],
    ),
    ("log", &["xm log serv1"]),
    ("logs", &["xm logs -n 0 serv1", "xm logs -n x"]),
    ("mem-max", &["xm mem-max serv1 256", "xm mem-max serv1 lots", "xm mem-max ghost 256"]),
    (
        "mem-set",
        &[
            "xm mem-set serv1 100",
            "xl mem-set serv1 100t",
            "xm mem-set serv1 100t",
            "xm mem-set 0 64",
            "xl mem-set ghost 64",
            "xl mem-set stored 64",
        ],
    ),
    (
        "network-attach",
        &[
            "xm network-attach serv1 vifname=x frob=1",
            "xm network-attach ghost",
            "xm network-attach stored",
        ],
    ),
    ("network-bridge", &["xm network-bridge frobnicate", "xm network-bridge"]),
    (
        "network-detach",
        &["xm network-detach serv1 0", "xm network-detach serv1 zero", "xm network-detach ghost 0"],
    ),
    ("network-list", &["xm network-list ghost", "xm network-list"]),
    ("new", &["xm new good.cfg", "xm new good.cfg", "xm new missing.cfg"]),
    ("pause", &["xm pause serv1", "xm pause ghost", "xm pause 0", "xm pause stored"]),
    ("reboot", &["xm reboot serv1", "xm reboot ghost", "xm reboot", "xm reboot -a serv1"]),
    (
        "rename",
        &[
            "xm rename serv1 web",
            "xm rename ghost web",
            "xm rename 0 web",
            "xm rename serv1",
            "xm rename serv1 stored",
            "xm rename stored web",
        ],
    ),
    ("reset", &["xm reset ghost", "xm reset 0", "xm reset stored"]),
    ("serve", &["xm serve serv1", "xm serve"]),
    ("shell", &["xm shell", "xm shell serv1"]),
    (
        "shutdown",
        &[
            "xm shutdown serv1",
            "xl shutdown serv1",
            "xm shutdown -H -R serv1",
            "xm shutdown ghost",
            "xm shutdown",
            "xm shutdown 0",
        ],
    ),
    ("start", &["xm start ghost", "xm start serv1", "xm start"]),
    ("stats", &["xm stats serv1", "~xm stats --json serv1", "xm stats ghost", "xm stats stored"]),
    ("sysrq", &["xm sysrq serv1 h", "xm sysrq serv1 hh", "xm sysrq ghost h", "xl sysrq stored h"]),
    ("top", &["~xm top -b -i 1", "~xm top --json -i 1", "xm top -d 0", "xm top --sort=odd"]),
    (
        "trigger",
        &[
            "xm trigger serv1 power",
            "xm trigger serv1 nmi",
            "xl trigger serv1 bang",
            "xm trigger ghost reset",
            "xm trigger stored reset",
        ],
    ),
    ("unpause", &["xm unpause serv1", "xm unpause ghost", "xl unpause ghost"]),
    (
        "uptime",
        &[
            "~xm uptime",
            "xm uptime serv1",
            "xm uptime --json serv1",
            "xm uptime ghost",
            "xm uptime stored",
        ],
    ),
    (
        "vcpu-list",
        &[
            "xm vcpu-list serv1",
            "xl vcpu-list serv1",
            "~xm vcpu-list --json serv1",
            "xm vcpu-list ghost",
            "xm vcpu-list stored",
        ],
    ),
    ("vcpu-set", &["xm vcpu-set serv1 1", "xm vcpu-set serv1 2", "xm vcpu-set ghost 1"]),
    ("vm-list", &["xl vm-list", "xl vm-list --json", "xl vm-list serv1"]),
    (
        "wait",
        &[
            "xm wait -t 1 --for=exists serv1",
            "xm wait --json -t 0.1 --for=paused serv1",
            "xm wait ghost",
            "xm wait --for=odd serv1",
        ],
    ),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")
}

/// A host with a running and a stored domain, and configurations.
fn host() -> Host {
    let host = Host::new();
    let write = |name: &str, text: &str| std::fs::write(host.path().join(name), text).unwrap();
    write("vmlinuz", "");
    write(
        "good.cfg",
        "kernel = 'vmlinuz'\nname = 'good'\nmemory = 64\ndisk = ['file:/srv/a.img,xvda,w']\n",
    );
    write("bad.cfg", "kernel = 'vmlinuz'\nname = 'bad'\nmemroy = 64\nvcpus = 'x'\n");
    let uuid = "uuid = '00000000-0000-0000-0000-00000000abcd'";
    write("stored.cfg", &format!("kernel = 'vmlinuz'\nname = 'stored'\nmemory = 64\n{uuid}\n"));
    assert_eq!(host.run(&["new", "-q", "stored.cfg"]).status.code(), Some(0));
    host
}

/// A command line with what it printed: standard error behind `! `, and its exit status.
fn run(host: &Host, line: &str) -> String {
    let (shape_only, line) = match line.strip_prefix('~') {
        Some(line) => (true, line),
        None => (false, line),
    };
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let mut command = host.xm();
    command
        .arg0(name)
        .args(words)
        .env_remove("COLUMNS")
        .env("EDITOR", "true")
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C");
    let output = command.output().unwrap();
    let (out, err) =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).into();
    let (out, err) = if shape_only {
        (shape(&out), err.into_owned())
    } else {
        (out.into_owned(), err.into_owned())
    };
    let mut text = format!("$ {line}\n");
    for line in out.lines() {
        writeln!(text, "{line}").unwrap();
    }
    for line in err.lines() {
        writeln!(text, "! {line}").unwrap();
    }
    match output.status.code() {
        Some(_) if shape_only => text.push('\n'),
        code => writeln!(text, "= {}\n", code.unwrap()).unwrap(),
    }
    text
}

/// Of JSON the keys, of other text the words without their figures.
fn shape(text: &str) -> String {
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        let mut keys = BTreeSet::new();
        keys_of(&value, "", &mut keys);
        return keys.iter().map(|key| format!("{key}\n")).collect();
    }
    let lines = text.lines().map(|line| match line.split_once(": ") {
        Some((key, _)) => format!("{key}: ..."),
        None => figures(line),
    });
    lines.map(|line| line + "\n").collect()
}

fn keys_of(value: &serde_json::Value, key: &str, keys: &mut BTreeSet<String>) {
    use serde_json::Value;
    match value {
        Value::Array(values) => {
            values.iter().for_each(|value| keys_of(value, &format!("{key}[]"), keys));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| keys_of(value, &format!("{key}.{name}"), keys));
        }
        _ => _ = keys.insert(key.to_owned()),
    }
}

/// The words of a line, with a # for each figure, and without the days that a host may have been up.
fn figures(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let is_figure = word.starts_with(|symbol: char| symbol.is_ascii_digit());
        if is_figure { "#" } else { word }
    });
    let text = words.collect::<Vec<_>>().join(" ");
    text.replace("# day, ", "").replace("# days, ", "")
}

/// Text that is the same on every host and at every time.
fn steady(text: &str, host: &Host, uuid: &str) -> String {
    let pid = format!("\"pid\": {}", std::process::id());
    let text = text
        .replace(host.path().to_str().unwrap(), "/BASE")
        .replace(uuid, "UUID-OF-SERV1")
        .replace(&pid, "\"pid\": PID")
        .replace(&format!("(pid {})", std::process::id()), "(pid PID)");
    let lines = text.lines().map(|line| {
        for key in ["\"started\": ", "(start_time ", "\"uptime_seconds\": "] {
            if let Some((before, _)) = line.split_once(key) {
                return format!("{before}{key}...");
            }
        }
        // The first minute of a domain.
        match line.split_once(" 0:00:") {
            Some((before, after)) => {
                format!("{before} 0:00:##{}", after.get(2..).unwrap_or_default())
            }
            None => line.to_owned(),
        }
    });
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn every_command_prints_what_it_did() {
    let mut differ = Vec::new();
    for (command, lines) in CASES {
        // Each begins with the same host.
        let host = host();
        let domain = host.domain("serv1", true);
        let found: String = lines
            .iter()
            .map(|line| run(&host, &line.replace("{id}", &domain.domid.to_string())))
            .collect();
        let uuid = host.registry.find("serv1").unwrap().uuid.to_string();
        let found = steady(&found, &host, &uuid);
        let path = folder().join(format!("{command}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, &found).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if expected != found {
            println!("== {} ==\n-- expected --\n{expected}\n-- found --\n{found}", path.display());
            differ.push(*command);
        }
    }
    assert!(differ.is_empty(), "other output: {differ:?}");
}

/// The commands that `docs/commands.md` says are there.
fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/commands.md");
    let text = std::fs::read_to_string(path).unwrap();
    let there = text.split("\n## There\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = there.lines().filter(|line| line.starts_with("| `"));
    let mut names: Vec<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(|name| name.split(' ').next().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_command_that_is_there_is_documented_and_has_a_snapshot() {
    let mut covered: Vec<&str> = CASES.iter().map(|(command, _)| *command).collect();
    covered.sort_unstable();
    assert_eq!(documented(), covered);
    for file in std::fs::read_dir(folder()).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(covered.contains(&name), "{} belongs to no command", file.display());
    }
}
