//! The names that mean something in a domain configuration.

/// How a bare `key=value` word from the command line is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it stands.
    Text,
    /// As an integer.
    Number,
    /// As one element; repeated words append.
    List,
}

use Kind::{List, Number, Text};

/// Every key of xm and xl, the common ones first: that is the order in which
/// equally near names are proposed.
pub(crate) const KEYS: &[(&str, Kind)] = &[
    ("name", Text),
    ("memory", Number),
    ("kernel", Text),
    ("ramdisk", Text),
    ("root", Text),
    ("extra", Text),
    ("disk", List),
    ("vif", List),
    ("vcpus", Number),
    ("builder", Text),
    ("type", Text),
    ("uuid", Text),
    ("description", Text),
    ("maxmem", Number),
    ("maxvcpus", Number),
    ("vcpu_avail", Number),
    ("cpu", Number),
    ("cpus", Text),
    ("cpus_soft", Text),
    ("cpu_weight", Number),
    ("cpu_cap", Number),
    ("cap", Number),
    ("pool", Text),
    ("cpuid", List),
    ("on_poweroff", Text),
    ("on_reboot", Text),
    ("on_crash", Text),
    ("restart", Text),
    ("on_xend_start", Text),
    ("onboot", Text),
    ("cmdline", Text),
    ("bootloader", Text),
    ("bootargs", Text),
    ("bootloader_args", Text),
    ("ip", Text),
    ("netmask", Text),
    ("gateway", Text),
    ("hostname", Text),
    ("interface", Text),
    ("dhcp", Text),
    ("nfs_server", Text),
    ("nfs_root", Text),
    ("nics", Number),
    ("pci", List),
    ("vfb", List),
    ("vtpm", List),
    ("access_control", List),
    // Understood, but listed in `pending`.
    ("on_watchdog", Text),
    ("on_soft_reset", Text),
    ("on_xend_stop", Text),
    ("seclabel", Text),
    ("features", Text),
    ("target", Text),
    ("nomigrate", Number),
    ("tsc_mode", Text),
    ("localtime", Number),
    ("rtc_timeoffset", Number),
    ("shadow_memory", Number),
    ("bootentry", Text),
    ("blkif", Number),
    ("netif", Number),
    ("tpmif", Number),
    ("vhpt", Number),
    ("machine_address_size", Number),
    ("suppress_spurious_page_faults", Number),
    ("superpages", Number),
    ("ioports", List),
    ("irq", List),
    ("irqs", List),
    ("iomem", List),
    ("vscsi", List),
    ("vusb", List),
    ("vif2", List),
    ("channel", List),
    ("p9", List),
    ("usbctrl", List),
    ("usbdev", List),
    ("vkb", List),
    ("vdispl", List),
    ("vsnd", List),
    ("virtio", List),
    ("pvcalls", List),
    ("dtdev", List),
    // For assisted (HVM) guests only.
    ("device_model", Text),
    ("loader", Text),
    ("boot", Text),
    ("acpi", Number),
    ("apic", Number),
    ("pae", Number),
    ("hpet", Number),
    ("viridian", Number),
    ("stdvga", Number),
    ("videoram", Number),
    ("sdl", Number),
    ("vnc", Number),
    ("vnclisten", Text),
    ("vncdisplay", Number),
    ("vncunused", Number),
    ("vncpasswd", Text),
    ("vncconsole", Number),
    ("opengl", Number),
    ("display", Text),
    ("xauthority", Text),
    ("usb", Number),
    ("usbdevice", Text),
    ("serial", Text),
    ("parallel", Text),
    ("monitor", Number),
    ("soundhw", Text),
    ("keymap", Text),
    ("nographic", Number),
    ("timer_mode", Number),
    ("vpt_align", Number),
    ("hap", Number),
    ("oos", Number),
    ("xen_platform_pci", Number),
    ("gfx_passthru", Number),
    ("cpuid_check", List),
    ("memory_sharing", Number),
    ("fda", Text),
    ("fdb", Text),
    ("isa", Number),
];

/// The kind of the key `name`, `None` if it is not a key.
pub(crate) fn kind(name: &str) -> Option<Kind> {
    KEYS.iter().find(|(key, _)| *key == name).map(|(_, kind)| *kind)
}

/// The key that `name` was probably meant to be.
pub(crate) fn nearest_key(name: &str) -> Option<&'static str> {
    nearest(name, KEYS.iter().map(|(key, _)| *key))
}

/// The candidate nearest to `name`: at most two edits away, one if the name
/// has three letters, none below (otherwise every short name would be near).
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    /// Longer than every key by more than two.
    const LONGEST: usize = 40;
    let count = name.chars().count();
    let limit = match count {
        0..=2 => 0,
        3 => 1,
        4..LONGEST => 2,
        _ => return None,
    };
    let lower = name.to_lowercase();
    let measured = candidates.into_iter().map(|key| (distance(&lower, key), key));
    let best = measured.filter(|(edits, _)| *edits <= limit).min_by_key(|(edits, _)| *edits);
    best.map(|(_, key)| key)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a`
/// into `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, right) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut cost = at(&last, j) + usize::from(left != right);
            cost = cost.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped =
                i > 0 && j > 0 && a.get(i - 1) == Some(right) && b.get(j - 1) == Some(left);
            if swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, edits) in [
            ("memory", "memory", 0),
            ("memry", "memory", 1),
            ("memroy", "memory", 1),
            ("krnl", "kernel", 2),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn proposals() {
        assert_eq!(nearest_key("memroy"), Some("memory"));
        assert_eq!(nearest_key("Memory"), Some("memory"));
        assert_eq!(nearest_key("MEMORY"), Some("memory"));
        assert_eq!(nearest_key("vcpu"), Some("vcpus"));
        assert_eq!(nearest_key("vfi"), Some("vif"));
        assert_eq!(nearest_key("vm"), None);
        assert_eq!(nearest_key("backup_host"), None);
        assert_eq!(nearest_key(&"x".repeat(100_000)), None);
    }

    #[test]
    fn no_key_is_listed_twice() {
        for (index, (key, _)) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|(other, _)| other != key), "{key}");
        }
    }
}
