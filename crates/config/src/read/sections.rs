//! The sections of a configuration, one function each.

use super::device_lists;
use super::fields::Fields;
use crate::error::SpecError;
use crate::model::{
    AccessControl, Action, Affinity, Boot, BootNetwork, Bootloader, CpuList, CpuidMask, Cpus,
    DomainConfig, Events, General, MAX_COMMAND_LINE, Memory, Scheduling, Uuid, check_name,
};
use crate::source::Fault;

pub(super) fn domain(fields: &mut Fields<'_>, default_name: &str) -> Option<DomainConfig> {
    guest_kind(fields);
    let general = general(fields, default_name);
    let memory = memory(fields);
    let cpus = cpus(fields);
    let events = events(fields);
    let boot = boot(fields);
    let devices = device_lists::devices(fields);
    let access_control = access_control(fields);
    Some(DomainConfig { general: general?, memory, cpus, events, boot, devices, access_control })
}

/// Only paravirtual guests can be built.
fn guest_kind(fields: &mut Fields<'_>) {
    for key in ["builder", "type"] {
        let Some(word) = fields.word(key) else { continue };
        let help = "leave it out or write builder = 'linux', with a kernel that has Xen PV support";
        let fault = match word.as_str() {
            "linux" | "generic" | "pv" => continue,
            kind @ ("hvm" | "vmx" | "pvh") => word.fault(format!(
                "`{key} = '{kind}'` asks for an assisted guest; only paravirtual (PV) guests \
                 can be built"
            )),
            kind => word.fault(format!("Invalid domain type `{kind}`")),
        };
        fields.refuse(fault.help(help));
    }
}

fn general(fields: &mut Fields<'_>, default_name: &str) -> Option<General> {
    let checked = |text: &str| check_name(text).map(|()| text.to_owned());
    let name = match fields.value("name") {
        Some(value) if value.truth() => fields.parsed("name", checked),
        Some(value) => {
            let fault = Fault::at(value.span, "Missing domain name");
            fields.refuse(fault.help("write name = \"serv1\""));
            None
        }
        None => {
            let outcome = checked(default_name).map_err(|error| {
                Fault::nowhere(format!("There is no `name`, and the file's cannot serve: {error}"))
                    .help("add a line such as name = \"serv1\"")
            });
            fields.keep(outcome)
        }
    };
    let uuid = fields.parsed("uuid", Uuid::parse);
    let description = fields.line("description");
    Some(General { name: name?, uuid, description })
}

/// Turns a number that was checked to be in range into another type.
fn fit<T: TryFrom<i64>>(number: i64, fallback: T) -> T {
    T::try_from(number).unwrap_or(fallback)
}

fn memory(fields: &mut Fields<'_>) -> Memory {
    let bounds = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (least, most) = (bounds(Memory::LEAST), bounds(Memory::MOST));
    let what = "a number of MiB";
    let initial = fields.number("memory", least..=most, what);
    let initial = initial.map_or(Memory::DEFAULT, |n| fit(n, Memory::DEFAULT));
    let maximum = fields.number("maxmem", 0..=most, what).map_or(0, |n| fit(n, 0));
    let maximum = if maximum == 0 { initial } else { maximum };
    if maximum < initial {
        let message = format!("`maxmem` ({maximum} MiB) is below `memory` ({initial} MiB)");
        let fault = Fault { span: fields.place("maxmem"), message, help: None };
        fields.refuse(fault);
    }
    Memory { initial, maximum }
}

fn cpus(fields: &mut Fields<'_>) -> Cpus {
    let most = i64::from(Cpus::MOST);
    let what = "a number of vCPUs";
    let online = fields.number("vcpus", 1..=most, what);
    let maximum = fields.number("maxvcpus", 1..=most, what);
    let online_count = online.or(maximum).unwrap_or(1);
    let maximum_count = maximum.unwrap_or(online_count);
    if maximum_count < online_count {
        let message = format!("`maxvcpus` ({maximum_count}) is below `vcpus` ({online_count})");
        let span = fields.place("maxvcpus");
        fields.refuse(Fault { span, message, help: None });
    }
    let available = fields.number("vcpu_avail", 1..=i64::MAX, "a bit mask of vCPUs");
    let first = fields.number("cpu", -1..=4095, "a CPU number (-1 for any)");
    let affinity = affinity(fields, "cpus").or_else(|| {
        let cpu = u32::try_from(first?).ok()?;
        Some(Affinity::PerVcpu(vec![CpuList::single(cpu)]))
    });
    Cpus {
        online: fit(online_count, 1),
        maximum: fit(maximum_count, 1),
        available: available.and_then(|mask| u64::try_from(mask).ok()),
        affinity,
        soft_affinity: self::affinity(fields, "cpus_soft"),
        scheduling: scheduling(fields),
        cpuid: cpuid(fields),
    }
}

/// A string, or a list of them that act one after the other.
fn cpuid(fields: &mut Fields<'_>) -> CpuidMask {
    use crate::eval::value::Data;
    let words = match fields.value("cpuid").map(|value| &value.data) {
        Some(Data::List(_) | Data::Tuple(_)) => fields.words("cpuid"),
        Some(_) => fields.word("cpuid").into_iter().collect(),
        None => Vec::new(),
    };
    let mut mask = CpuidMask::default();
    for word in &words {
        if fields.keep(word.parse(|text| mask.add(text))).is_none() {
            return mask;
        }
    }
    if let (Err(why), Some(last)) = (mask.check(), words.last()) {
        fields.refuse(last.fault(why));
    }
    mask
}

/// A string for all vCPUs or a list with one entry per vCPU.
fn affinity(fields: &mut Fields<'_>, key: &'static str) -> Option<Affinity> {
    use crate::eval::value::Data;
    match fields.value(key)?.data {
        Data::List(_) | Data::Tuple(_) => {
            let words = fields.words(key);
            let lists: Vec<_> =
                words.iter().filter_map(|w| fields.keep(w.parse(CpuList::parse))).collect();
            (!lists.is_empty()).then_some(Affinity::PerVcpu(lists))
        }
        _ => fields.parsed(key, CpuList::parse).map(Affinity::All),
    }
}

fn scheduling(fields: &mut Fields<'_>) -> Scheduling {
    let weight = fields.number("cpu_weight", 1..=65535, "a weight");
    let most = i64::from(Cpus::MOST) * 100;
    let caps = ["cpu_cap", "cap"].map(|key| fields.number(key, 0..=most, "a percentage"));
    let [old, new] = caps;
    if old.is_some() && new.is_some() && old != new {
        let span = fields.place("cap");
        let message = "`cap` and `cpu_cap` mean the same but differ".to_owned();
        fields.refuse(Fault { span, message, help: None });
    }
    Scheduling {
        weight: weight.map_or(Scheduling::DEFAULT_WEIGHT, |n| fit(n, Scheduling::DEFAULT_WEIGHT)),
        cap: fit(old.or(new).unwrap_or(0), 0),
        pool: fields.atom("pool"),
    }
}

fn events(fields: &mut Fields<'_>) -> Events {
    let mode = fields.parsed("restart", |word| {
        Events::from_restart_mode(word).ok_or_else(|| {
            SpecError::new(0..word.len(), format!("`{word}` is not a restart mode")).help(
                "use on_poweroff, on_reboot and on_crash; the old words are onreboot, \
                       always and never",
            )
        })
    });
    let base = mode.unwrap_or_default();
    let mut action = |key, default| {
        fields
            .parsed(key, |word| Action::from_word(word).ok_or_else(|| bad_action(word)))
            .unwrap_or(default)
    };
    Events {
        poweroff: action("on_poweroff", base.poweroff),
        reboot: action("on_reboot", base.reboot),
        crash: action("on_crash", base.crash),
        starts_with_host: starts_with_host(fields),
    }
}

/// `on_xend_start` is for stored domains, `onboot` for these and for files in /etc/xen/auto, where
/// xendomains(8) looks for it as well.
fn starts_with_host(fields: &mut Fields<'_>) -> bool {
    let stored = fields.parsed("on_xend_start", |word| match word {
        "start" => Ok(true),
        "ignore" => Ok(false),
        _ => Err(unknown_choice(word, "use start or ignore")),
    });
    let any = fields.parsed("onboot", |word| match word.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" | "1" => Ok(true),
        "no" | "off" | "false" | "0" => Ok(false),
        _ => Err(unknown_choice(word, "use yes or no")),
    });
    any.or(stored).unwrap_or_default()
}

fn unknown_choice(word: &str, choices: &str) -> SpecError {
    SpecError::new(0..word.len(), format!("`{word}` is not known here")).help(choices)
}

fn bad_action(word: &str) -> SpecError {
    let error = SpecError::new(0..word.len(), format!("`{word}` is not an action"));
    let words = Action::ALL.map(Action::as_str);
    match crate::keys::nearest(word, words) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("use {}", words.join(", "))),
    }
}

fn boot(fields: &mut Fields<'_>) -> Boot {
    let root = fields.line("root").map(|root| strip_root(&root).to_owned());
    let boot = Boot {
        kernel: fields.text("kernel"),
        ramdisk: fields.text("ramdisk"),
        root: root.filter(|root| !root.is_empty()),
        extra: fields.line("extra"),
        cmdline: fields.line("cmdline"),
        bootloader: bootloader(fields),
        network: network(fields),
    };
    if boot.kernel.is_none() && boot.bootloader.is_none() {
        no_kernel(fields);
    }
    let length = boot.command_line().len();
    if length > MAX_COMMAND_LINE {
        let message = format!(
            "The kernel command line has {length} bytes; at most {MAX_COMMAND_LINE} are possible"
        );
        let key = ["cmdline", "extra", "root"].into_iter().find_map(|key| fields.place(key));
        fields.refuse(Fault { span: key, message, help: None });
    }
    replaced_by_cmdline(fields, &boot);
    boot
}

/// Refuses a domain without a kernel, unless what is wrong with it was said already.
fn no_kernel(fields: &mut Fields<'_>) {
    let help = "add a line such as kernel = \"/boot/vmlinuz\"";
    match fields.value("kernel") {
        None => fields.refuse(Fault::nowhere("There is no `kernel`").help(help)),
        Some(value) if !value.truth() => {
            fields.refuse(Fault::at(value.span, "`kernel` is empty").help(help));
        }
        Some(_) => {}
    }
}

/// A leading `root=` is superfluous and, as in xend, taken off.
fn strip_root(root: &str) -> &str {
    let mut root = root;
    while let Some(rest) = root.strip_prefix("root=") {
        root = rest;
    }
    root
}

fn replaced_by_cmdline(fields: &mut Fields<'_>, boot: &Boot) {
    if boot.cmdline.is_none() {
        return;
    }
    let parts = [
        ("root", boot.root.is_some()),
        ("extra", boot.extra.is_some()),
        ("ip", boot.network.ip.is_some()),
        ("nfs_root", boot.network.nfs_root.is_some()),
    ];
    for (key, _) in parts.into_iter().filter(|(_, given)| *given) {
        let message = format!("`{key}` has no effect, because `cmdline` replaces it");
        let span = fields.place(key);
        fields.remark(Fault { span, message, help: None });
    }
}

fn bootloader(fields: &mut Fields<'_>) -> Option<Bootloader> {
    use crate::eval::value::Data;
    let program = fields.text("bootloader");
    let mut args: Vec<String> = fields.line("bootargs").into_iter().collect();
    let list = fields.value("bootloader_args").map(|value| &value.data);
    match list {
        Some(Data::Text(_)) => args.extend(fields.line("bootloader_args")),
        _ => {
            let words = fields.words("bootloader_args");
            args.extend(words.iter().map(|word| word.as_str().to_owned()));
        }
    }
    Some(Bootloader { program: program?, args })
}

fn network(fields: &mut Fields<'_>) -> BootNetwork {
    let network = BootNetwork {
        ip: fields.atom("ip"),
        netmask: fields.atom("netmask"),
        gateway: fields.atom("gateway"),
        hostname: fields.atom("hostname"),
        interface: fields.atom("interface"),
        dhcp: fields.atom("dhcp"),
        nfs_server: fields.atom("nfs_server"),
        nfs_root: fields.atom("nfs_root"),
    };
    if network.nfs_root.is_some() && network.nfs_server.is_none() {
        let message = "`nfs_root` needs `nfs_server`".to_owned();
        let help = Some("add a line such as nfs_server = '10.0.0.1'".to_owned());
        let span = fields.place("nfs_root");
        fields.refuse(Fault { span, message, help });
    }
    network
}

fn access_control(fields: &mut Fields<'_>) -> Option<AccessControl> {
    let words = fields.words("access_control");
    let mut labels = words.iter().map(|word| word.parse(AccessControl::parse));
    let first = fields.keep(labels.next()?);
    if let Some(second) = words.get(1) {
        fields.refuse(second.fault("`access_control` takes one label"));
    }
    first
}
