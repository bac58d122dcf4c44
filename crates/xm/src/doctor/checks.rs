//! From facts to what they mean. Nothing here looks at the host.

use control::Probe;

use super::facts::Facts;
use super::walls;
use super::{Check, Group, State};

/// Syscall User Dispatch, without which nothing runs.
const OLDEST_KERNEL: (u64, u64) = (5, 11);
/// What a space maps beside the guest's memory, in bytes: the arena (`boundary::at`) and tables.
const ADDRESS_SPACE: u64 = 10 << 30;
/// `boundary::at::SITES`: the lowest address that a space maps.
const LOWEST_ADDRESS: u64 = 0x6_0000;
/// Memory that a small guest wants, in MiB.
const SMALL_GUEST: u64 = 192;
/// What Linux allows a process by default (mm.h, `DEFAULT_MAX_MAP_COUNT`).
const USUAL_MAPPINGS: u64 = 65530;
/// Processes of a busy domain.
const PROCESSES: u64 = 140;

/// All checks.
pub fn all(facts: &Facts) -> Vec<Group> {
    let group = |title, checks| Group { title, checks };
    let mut groups = vec![
        group("Kernel", kernel(facts)),
        group("Processor", processor(facts)),
        group("Memory and limits", memory(facts)),
    ];
    if let Ok(probe) = &facts.probe {
        groups.push(group("Jail", walls::checks(probe, facts)));
    }
    groups.push(group("Xenolith", installation(facts)));
    groups.push(group("Devices", devices(facts)));
    groups
}

fn probed(facts: &Facts) -> Option<&Probe> {
    facts.probe.as_ref().ok()
}

/// Major and minor number at the start of a release.
fn version(release: &str) -> (u64, u64) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        Check::that(
            version(&facts.release) >= OLDEST_KERNEL,
            State::Failure,
            "Linux",
            &facts.release,
        )
        .or("Domains need Linux 5.11 or newer.", "Use a newer kernel."),
    ];
    if let Some(probe) = probed(facts) {
        checks.push(
            Check::that(
                probe.dispatch,
                State::Failure,
                "Syscall User Dispatch",
                there(probe.dispatch),
            )
            .or(
                "System calls of guest programs cannot be told from the monitor's own.",
                "Use Linux 5.11 or newer, outside of sandboxes that replace it (gVisor, WSL 1) \
                     or forbid prctl.",
            ),
        );
    }
    let trap = facts.settings.seccomp_actions.split(' ').any(|action| action == "trap");
    checks.push(Check::that(trap, State::Failure, "seccomp filters", there(trap)).or(
        "Spaces do not start without their filter of system calls.",
        "Use a kernel with CONFIG_SECCOMP_FILTER, and mount /proc.",
    ));
    let (no_new_privileges, mode) = (&facts.confined.0, &facts.confined.1);
    let filtered = mode == "2";
    let found = match (no_new_privileges.as_str(), filtered) {
        (_, true) => "set; a filter is on this process already",
        ("1", false) => "set already",
        _ => "can be set",
    };
    checks.push(Check::new("no_new_privs", State::Ok, found));
    let page = match facts.vsyscall.as_str() {
        "" => "none",
        "--xp" => "execute only",
        _ => "readable",
    };
    checks.push(Check::new("vsyscall page", State::Note, page));
    if let Some(probe) = probed(facts) {
        let found = if probe.io_uring { "there" } else { "not there, or forbidden" };
        checks.push(Check::new("io_uring", State::Note, found).because("It is not needed."));
    }
    checks
}

fn there(is: bool) -> &'static str {
    if is { "there" } else { "not there" }
}

fn processor(facts: &Facts) -> Vec<Check> {
    let has = |flag: &str| facts.processors.flags.iter().any(|known| known == flag);
    let missing: Vec<&str> =
        ["fsgsbase", "bmi2", "xsave", "avx"].into_iter().filter(|f| !has(f)).collect();
    let found = if missing.is_empty() {
        "fsgsbase, bmi2, xsave, avx".to_owned()
    } else {
        format!("without {}", missing.join(", "))
    };
    let mut checks = vec![Check::that(missing.is_empty(), State::Failure, "Features", found).or(
        "The engine needs all of them.",
        "Use an Intel processor since Haswell or an AMD processor since Zen; in a virtual \
             machine, one that passes them on (QEMU: -cpu host).",
    )];
    let keys = probed(facts).is_some_and(|probe| probe.isolation == "protection keys");
    if let Some(probe) = probed(facts) {
        checks.push(isolation(probe, keys));
    }
    checks.push(cpus(facts, keys));
    let faulting = has("cpuid_fault");
    let found = if faulting { "there" } else { "not there" };
    let check = Check::new("CPUID faulting", State::Note, found);
    checks.push(if faulting {
        check
    } else {
        check.because("Guest programs see the host's CPUID; guest kernels do not.")
    });
    checks.push(time(facts, has("constant_tsc") && has("nonstop_tsc")));
    checks
}

fn isolation(probe: &Probe, keys: bool) -> Check {
    if keys {
        return Check::new("Protection keys", State::Ok, "used");
    }
    let found = if probe.keys { "there, but not usable" } else { "not there" };
    let fix = if probe.keys {
        "Use Linux 6.12 or newer."
    } else {
        "Use a processor with them (ospke in /proc/cpuinfo), in a virtual machine one that passes \
         them on."
    };
    Check::new("Protection keys", State::Warning, found).or(
        "Guest programs run in processes of their own: just as safe, but a null system call of \
         theirs costs about three times what it costs the host, instead of about the same, and a \
         busy domain wants two CPUs.",
        fix,
    )
}

fn cpus(facts: &Facts, keys: bool) -> Check {
    let allowed = facts.limits.group_cpus;
    let mut found = facts.cpus.to_string();
    if let Some(hundredths) = allowed {
        found.push_str(&format!(
            ", for {}.{:02} CPUs' worth of time",
            hundredths / 100,
            hundredths % 100
        ));
    }
    let enough = keys || facts.cpus > 1 && allowed.is_none_or(|hundredths| hundredths >= 200);
    Check::that(enough, State::Warning, "CPUs", found).or(
        "Without protection keys a domain's kernel and its programs wait for each other awake, which \
         needs two CPUs; with one, system calls of guests are several times slower.",
        "Give this host, or this control group (cpu.max), two CPUs.",
    )
}

fn time(facts: &Facts, steady: bool) -> Check {
    let (current, available) = &facts.clocks;
    // The kernel takes the TSC out of the list when it finds it wrong.
    let synchronised = available.split(' ').any(|source| source == "tsc");
    let found = match (steady, synchronised) {
        (true, true) => format!("constant, synchronised (the kernel's clock is {current})"),
        (false, _) => "not constant".to_owned(),
        (_, false) => format!("not trusted by the kernel (its clock is {current})"),
    };
    Check::that(steady && synchronised, State::Warning, "TSC", found).or(
        "Clocks of guests may run unevenly or jump when a domain changes its CPU.",
        "In a virtual machine, ask for an invariant TSC.",
    )
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn memory(facts: &Facts) -> Vec<Check> {
    let (limits, settings) = (&facts.limits, &facts.settings);
    let in_group = limits.group_memory.map_or(u64::MAX, |bytes| bytes >> 20);
    let most = facts.memory.free_mib.min(in_group);
    let mut found = format!("{} MiB, {} MiB free", facts.memory.total_mib, facts.memory.free_mib);
    if let Some(bytes) = limits.group_memory {
        found.push_str(&format!(", at most {} in this control group", mib(bytes)));
    }
    let mut checks = vec![
        Check::that(most >= SMALL_GUEST, State::Warning, "Memory", found)
            .or("Hardly enough for a small guest.", "Free some, or raise memory.max."),
    ];
    let found = match settings.overcommit.as_str() {
        "0" => "by estimate",
        "1" => "always",
        "2" => "never",
        other => other,
    };
    checks.push(Check::that(settings.overcommit != "2", State::Warning, "Overcommit", found).or(
        "Starting the processes of a guest may be refused while memory is free.",
        "sysctl vm.overcommit_memory=0",
    ));
    let count: u64 = settings.max_map_count.parse().unwrap_or(USUAL_MAPPINGS);
    checks.push(
        Check::that(count >= USUAL_MAPPINGS, State::Warning, "vm.max_map_count", count.to_string())
            .or(
                "Guest programs with many mappings are slowed down.",
                "sysctl vm.max_map_count=65530",
            ),
    );
    let lowest: u64 = settings.mmap_min_addr.parse().unwrap_or(0);
    checks.push(
        Check::that(
            lowest <= LOWEST_ADDRESS,
            State::Failure,
            "vm.mmap_min_addr",
            lowest.to_string(),
        )
        .or("Spaces map a table at 0x60000.", "sysctl vm.mmap_min_addr=65536"),
    );
    let space = limits.address_space;
    checks.push(
        Check::that(
            space.is_none_or(|bytes| bytes >= ADDRESS_SPACE),
            State::Failure,
            "Address space",
            space.map_or("no limit".to_owned(), mib),
        )
        .or(
            "Spaces reserve some 9 GiB of addresses, and twice the guest's memory.",
            "ulimit -v unlimited",
        ),
    );
    let processes = match (limits.processes, limits.group_processes) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    };
    checks.push(
        Check::that(
            processes.is_none_or(|count| count >= PROCESSES),
            State::Warning,
            "Processes",
            processes.map_or("no limit".to_owned(), |count| format!("at most {count}")),
        )
        .or(
            "A busy domain has up to 130; with fewer its programs take turns in them.",
            "Raise ulimit -u, or pids.max of this control group.",
        ),
    );
    let locked = limits.locked.map_or("no limit".to_owned(), mib);
    checks.push(Check::new("Locked memory", State::Note, locked).because("None is needed."));
    checks
}

fn installation(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    match &facts.probe {
        Err((what, hint)) => {
            checks.push(Check::new("xendomain", State::Failure, "does not work").or(what, hint));
        }
        Ok(probe) => {
            let shown = facts.program.display().to_string();
            checks.push(Check::new("xendomain", State::Ok, shown));
            let check = Check::that(
                probe.failure.is_none(),
                State::Failure,
                "space",
                match probe.failure {
                    None => "starts in its jail",
                    Some(_) => "does not start",
                },
            );
            let fix = "It must be installed beside xendomain, and be readable and executable for everybody.";
            checks.push(check.or(probe.failure.as_deref().unwrap_or(""), fix));
        }
    }
    match &facts.directories {
        Ok(dirs) => {
            for (name, path) in
                [("Run-time directory", &dirs.runtime), ("State directory", &dirs.state)]
            {
                checks.push(Check::new(name, State::Ok, path.display().to_string()));
            }
        }
        Err((what, hint)) => {
            checks.push(Check::new("Directories", State::Failure, "not usable").or(what, hint));
        }
    }
    let names: Vec<String> = facts.kernels.iter().map(|path| path.display().to_string()).collect();
    let found = if names.is_empty() { "none in /boot".to_owned() } else { names.join(" ") };
    checks.push(Check::that(!names.is_empty(), State::Warning, "Kernels for guests", found).or(
        "A domain's configuration has to name one that can be a Xen PV guest (CONFIG_XEN_PV).",
        "Install one (Debian: linux-image-cloud-amd64), or take any such file.",
    ));
    checks
}

fn devices(facts: &Facts) -> Vec<Check> {
    let state = |device: Option<bool>| match device {
        None => "not there",
        Some(true) => "usable",
        Some(false) => "closed to this user",
    };
    let lvm = facts.lvm.as_ref().map_or("not found".to_owned(), |path| path.display().to_string());
    vec![
        Check::new("/dev/kvm", State::Note, state(facts.kvm)).because("It is not needed."),
        Check::new("/dev/net/tun", State::Note, state(facts.tun))
            .because("Only network interfaces on a bridge of the host need it."),
        Check::new("LVM (lvcreate)", State::Note, lvm)
            .because("Only disks on logical volumes (phy:) want it."),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::doctor::facts::Settings;
    use crate::doctor::limits::Limits;
    use crate::host::{Memory, Processors};
    use control::{Dirs, WallProbe};
    use std::path::PathBuf;

    /// A host where all is well.
    pub fn good() -> Facts {
        let flags = "fsgsbase bmi2 xsave avx constant_tsc nonstop_tsc cpuid_fault";
        let walls =
            walls::KNOWN.iter().map(|(name, _)| WallProbe { name: (*name).into(), holds: true });
        let probe = Probe {
            dispatch: true,
            keys: true,
            isolation: "protection keys".into(),
            landlock: 7,
            io_uring: true,
            walls: walls.collect(),
            failure: None,
        };
        Facts {
            release: "6.12.9+deb12".into(),
            processors: Processors {
                flags: flags.split(' ').map(str::to_owned).collect(),
                ..Processors::default()
            },
            cpus: 4,
            memory: Memory { total_mib: 8000, free_mib: 4000 },
            probe: Ok(probe),
            program: PathBuf::from("/usr/libexec/xenolith/xendomain"),
            limits: Limits::default(),
            settings: Settings {
                max_user_namespaces: "1000".into(),
                seccomp_actions: "kill_process trap errno".into(),
                overcommit: "0".into(),
                max_map_count: "65530".into(),
                mmap_min_addr: "65536".into(),
                ..Settings::default()
            },
            clocks: ("tsc".into(), "tsc hpet".into()),
            vsyscall: "--xp".into(),
            confined: ("0".into(), "0".into()),
            directories: Ok(Dirs {
                runtime: "/run/xenolith".into(),
                state: "/var/log/xenolith".into(),
            }),
            kernels: vec!["/boot/vmlinuz-6.1".into()],
            kvm: None,
            tun: Some(true),
            lvm: None,
        }
    }

    /// The checks that are not well: name and state.
    pub fn bad(facts: &Facts) -> Vec<(String, State)> {
        let groups = all(facts);
        let checks = groups.into_iter().flat_map(|group| group.checks);
        let bad = checks.filter(|check| matches!(check.state, State::Warning | State::Failure));
        bad.inspect(|check| assert!(check.why.is_some() && check.fix.is_some(), "{check:?}"))
            .map(|check| (check.name, check.state))
            .collect()
    }

    fn one(name: &str, state: State) -> Vec<(String, State)> {
        vec![(name.to_owned(), state)]
    }

    #[test]
    fn a_good_host_has_nothing_to_complain_of() {
        assert_eq!(bad(&good()), []);
    }

    #[test]
    fn each_failure_is_told_alone() {
        let with = |change: fn(&mut Facts)| {
            let mut facts = good();
            change(&mut facts);
            bad(&facts)
        };
        assert_eq!(with(|f| f.release = "5.10.0-30".into()), one("Linux", State::Failure));
        assert_eq!(
            with(|f| f.settings.seccomp_actions = "kill".into()),
            one("seccomp filters", State::Failure)
        );
        assert_eq!(
            with(|f| f.processors.flags.retain(|flag| flag != "bmi2")),
            one("Features", State::Failure)
        );
        assert_eq!(
            with(|f| f.settings.mmap_min_addr = "1048576".into()),
            one("vm.mmap_min_addr", State::Failure)
        );
        assert_eq!(
            with(|f| f.limits.address_space = Some(4 << 30)),
            one("Address space", State::Failure)
        );
        assert_eq!(
            with(|f| f.directories = Err(("no".into(), "chmod".into()))),
            one("Directories", State::Failure)
        );
        assert_eq!(with(|f| f.settings.overcommit = "2".into()), one("Overcommit", State::Warning));
        assert_eq!(with(|f| f.limits.group_processes = Some(20)), one("Processes", State::Warning));
        assert_eq!(with(|f| f.limits.group_memory = Some(1 << 20)), one("Memory", State::Warning));
        assert_eq!(with(|f| f.clocks.1 = "hpet acpi_pm".into()), one("TSC", State::Warning));
        assert_eq!(with(|f| f.kernels.clear()), one("Kernels for guests", State::Warning));
    }

    #[test]
    fn without_keys_one_cpu_is_too_few() {
        let mut facts = good();
        facts.cpus = 1;
        assert_eq!(bad(&facts), []);
        facts.probe = facts.probe.map(|probe| Probe {
            keys: false,
            isolation: "processes (...)".into(),
            ..probe
        });
        let names: Vec<String> = bad(&facts).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Protection keys", "CPUs"]);
        facts.cpus = 2;
        facts.limits.group_cpus = Some(150);
        assert_eq!(bad(&facts).len(), 2);
    }

    #[test]
    fn a_missing_program_is_told_with_its_hint() {
        let mut facts = good();
        facts.probe = Err(("xendomain was not found".into(), "Install it.".into()));
        assert_eq!(bad(&facts), one("xendomain", State::Failure));
        let mut facts = good();
        facts.probe = facts.probe.map(|probe| Probe { failure: Some("no".into()), ..probe });
        assert_eq!(bad(&facts), one("space", State::Failure));
    }

    #[test]
    fn versions() {
        assert_eq!(version("6.12.9+deb12"), (6, 12));
        assert_eq!(version("what"), (0, 0));
    }
}
