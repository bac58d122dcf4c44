//! Limits of this process and of its control group.

use crate::host;

/// Limits; `None` is no limit, or none that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS` in bytes.
    pub address_space: Option<u64>,
    /// `RLIMIT_NPROC`.
    pub processes: Option<u64>,
    /// `RLIMIT_MEMLOCK` in bytes.
    pub locked: Option<u64>,
    /// `RLIMIT_NOFILE`.
    pub files: Option<u64>,
    /// `memory.max` in bytes.
    pub group_memory: Option<u64>,
    /// `pids.max`.
    pub group_processes: Option<u64>,
    /// `cpu.max` in hundredths of a CPU.
    pub group_cpus: Option<u64>,
}

impl Limits {
    /// Reads them now.
    pub fn now() -> Self {
        let mut limits = Self::parse(&host::text("/proc/self/limits"));
        let group = group_of(&host::text("/proc/self/cgroup"));
        let read = |path: &str, name: &str| host::text(&format!("/sys/fs/cgroup{path}/{name}"));
        for path in ancestors(&group) {
            // Of the limits on the way to the top the lowest counts.
            lower(&mut limits.group_memory, number(&read(&path, "memory.max")));
            lower(&mut limits.group_processes, number(&read(&path, "pids.max")));
            lower(&mut limits.group_cpus, share(&read(&path, "cpu.max")));
        }
        limits
    }

    /// `/proc/PID/limits`: the soft limits.
    fn parse(text: &str) -> Self {
        let soft = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
            number(rest.split_ascii_whitespace().next()?)
        };
        Self {
            address_space: soft("Max address space"),
            processes: soft("Max processes"),
            locked: soft("Max locked memory"),
            files: soft("Max open files"),
            ..Self::default()
        }
    }
}

/// A number; words such as `max` and `unlimited` are none.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `cpu.max`: microseconds in a period of microseconds, in hundredths of a CPU.
fn share(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    number(quota)?.checked_mul(100)?.checked_div(number(period)?)
}

fn lower(limit: &mut Option<u64>, other: Option<u64>) {
    *limit = match (*limit, other) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    };
}

/// The group in the one hierarchy of cgroup v2 (cgroups(7)).
fn group_of(text: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("").to_owned()
}

/// A path and all above it, up to the empty one.
fn ancestors(path: &str) -> Vec<String> {
    let mut found = vec![path.trim_end_matches('/').to_owned()];
    while let Some((above, _)) = found.last().and_then(|last| last.rsplit_once('/')) {
        let above = above.to_owned();
        found.push(above);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_process() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             96365                96365                processes \n\
                    Max open files            1024                 1048576              files     \n\
                    Max locked memory         8388608              8388608              bytes     \n\
                    Max address space         unlimited            unlimited            bytes     \n";
        let limits = Limits::parse(text);
        assert_eq!((limits.processes, limits.files), (Some(96365), Some(1024)));
        assert_eq!((limits.locked, limits.address_space), (Some(8_388_608), None));
    }

    #[test]
    fn limits_of_a_group() {
        assert_eq!((number("max\n"), number("4096\n")), (None, Some(4096)));
        assert_eq!((share("max 100000\n"), share("150000 100000\n")), (None, Some(150)));
        assert_eq!(share("1 0"), None);
        assert_eq!(group_of("1:name=x:/y\n0::/a/b\n"), "/a/b");
        assert_eq!(ancestors("/a/b"), ["/a/b", "/a", ""]);
        assert_eq!(ancestors("/"), [""]);
        let mut limit = None;
        lower(&mut limit, Some(7));
        lower(&mut limit, None);
        lower(&mut limit, Some(5));
        assert_eq!(limit, Some(5));
    }
}
