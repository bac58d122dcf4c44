//! What there is to know of the host: read from `/proc` and `/sys`, and asked of `xendomain`,
//! which tries what only trying tells.

use std::fs;
use std::path::{Path, PathBuf};

use control::{Dirs, Hint, Probe};

use super::limits::Limits;
use crate::host::{self, Memory, Processors};

/// The facts that checks are made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// The processors.
    pub processors: Processors,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Memory.
    pub memory: Memory,
    /// What `xendomain` found, or why it could not be asked, with a hint.
    pub probe: Result<Probe, (String, String)>,
    /// Where it is.
    pub program: PathBuf,
    /// Limits of this process and of its control group.
    pub limits: Limits,
    /// Settings of the kernel below `/proc/sys`; empty where there is none.
    pub settings: Settings,
    /// The clock source that the kernel uses, and all that it would.
    pub clocks: (String, String),
    /// `[vsyscall]` in `/proc/self/maps`: its rights, empty without it.
    pub vsyscall: String,
    /// `NoNewPrivs` and `Seccomp` of `/proc/self/status`.
    pub confined: (String, String),
    /// Run-time and state directory, and what is wrong with them.
    pub directories: Result<Dirs, (String, String)>,
    /// Kernels in `/boot` that can be guests.
    pub kernels: Vec<PathBuf>,
    /// Device files that are there, and whether this user may use them.
    pub kvm: Option<bool>,
    /// `/dev/net/tun`.
    pub tun: Option<bool>,
    /// `lvcreate`, if it was found.
    pub lvm: Option<PathBuf>,
}

/// Settings of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: String,
    /// `kernel.unprivileged_userns_clone` (Debian's).
    pub unprivileged_userns_clone: String,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu's).
    pub apparmor_restrict: String,
    /// `kernel.seccomp.actions_avail`.
    pub seccomp_actions: String,
    /// `vm.overcommit_memory`.
    pub overcommit: String,
    /// `vm.max_map_count`.
    pub max_map_count: String,
    /// `vm.mmap_min_addr`.
    pub mmap_min_addr: String,
}

impl Settings {
    fn now() -> Self {
        let read = |name: &str| host::text(&format!("/proc/sys/{name}")).trim().to_owned();
        Self {
            max_user_namespaces: read("user/max_user_namespaces"),
            unprivileged_userns_clone: read("kernel/unprivileged_userns_clone"),
            apparmor_restrict: read("kernel/apparmor_restrict_unprivileged_userns"),
            seccomp_actions: read("kernel/seccomp/actions_avail"),
            overcommit: read("vm/overcommit_memory"),
            max_map_count: read("vm/max_map_count"),
            mmap_min_addr: read("vm/mmap_min_addr"),
        }
    }
}

impl Facts {
    /// Looks at everything now.
    pub fn now() -> Self {
        let (program, probe) = match control::probe() {
            Ok((program, probe)) => (program, Ok(probe)),
            Err(error) => {
                let hint = error.hint().unwrap_or_default();
                (PathBuf::new(), Err((error.to_string(), hint)))
            }
        };
        let sources = "/sys/devices/system/clocksource/clocksource0/";
        let clock = |name: &str| host::text(&format!("{sources}{name}")).trim().to_owned();
        let status = host::text("/proc/self/status");
        Self {
            release: host::text("/proc/sys/kernel/osrelease").trim().to_owned(),
            processors: Processors::now(),
            cpus: usable_cpus(),
            memory: Memory::now(),
            probe,
            program,
            limits: Limits::now(),
            settings: Settings::now(),
            clocks: (clock("current_clocksource"), clock("available_clocksource")),
            vsyscall: vsyscall(&host::text("/proc/self/maps")),
            confined: (field(&status, "NoNewPrivs"), field(&status, "Seccomp")),
            directories: directories(),
            kernels: kernels(Path::new("/boot")),
            kvm: device("/dev/kvm"),
            tun: device("/dev/net/tun"),
            lvm: find_lvm(),
        }
    }
}

fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The value of a field of `/proc/PID/status`.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or("").trim().to_owned()
}

/// The rights of the vsyscall page in a list of mappings.
fn vsyscall(maps: &str) -> String {
    let line = maps.lines().find(|line| line.ends_with("[vsyscall]"));
    line.and_then(|line| line.split(' ').nth(1)).unwrap_or("").to_owned()
}

fn directories() -> Result<Dirs, (String, String)> {
    let dirs = Dirs::from_environment();
    match dirs.create() {
        Ok(()) => Ok(dirs),
        Err(error) => Err((error.to_string(), error.hint().unwrap_or_default())),
    }
}

/// Kernels whose configuration beside them says that they can be Xen PV guests, or that have none.
fn kernels(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            let Some(version) = name.strip_prefix("vmlinuz-") else { return false };
            let config = host::text(&folder.join(format!("config-{version}")).to_string_lossy());
            config.is_empty() || config.lines().any(|line| line == "CONFIG_XEN_PV=y")
        })
        .collect();
    found.sort();
    found
}

/// Whether this user may read and write a device file; `None` if there is none.
fn device(path: &str) -> Option<bool> {
    fs::symlink_metadata(path).ok()?;
    let wanted = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    Some(rustix::fs::access(path, wanted).is_ok())
}

fn find_lvm() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(usual);
    folders.find_map(|folder| Some(folder.join("lvcreate")).filter(|file| file.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_mappings() {
        let status = "Name:\txm\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(
            (field(status, "NoNewPrivs"), field(status, "Seccomp")),
            ("1".into(), "2".into())
        );
        let maps = "7ffd000-7ffe000 rw-p 0 00:00 0 [stack]\n\
                    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
        assert_eq!(vsyscall(maps), "--xp");
        assert_eq!(vsyscall(""), "");
    }

    #[test]
    fn kernels_that_cannot_be_guests_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        for version in ["1", "2", "3"] {
            write(&format!("vmlinuz-{version}"), "");
        }
        write("config-1", "CONFIG_XEN=y\nCONFIG_XEN_PV=y\n");
        write("config-2", "# CONFIG_XEN_PV is not set\n");
        write("initrd.img-1", "");
        let names = ["vmlinuz-1", "vmlinuz-3"].map(|name| folder.path().join(name));
        assert_eq!(kernels(folder.path()), names);
    }

    #[test]
    fn facts_of_this_host_can_be_read() {
        let settings = Settings::now();
        assert!(settings.max_map_count.parse::<u64>().is_ok(), "{settings:?}");
        assert!(usable_cpus() > 0);
        assert_eq!(device("/dev/null"), Some(true));
        assert_eq!(device("/dev/there-is-none"), None);
    }
}
