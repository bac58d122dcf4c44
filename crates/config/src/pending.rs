//! Keys that are understood but whose feature is not there yet.
//!
//! This is the one place that says so: when a feature arrives, its line goes.
//! Nothing in a configuration is passed over in silence, so callers print
//! every [`Pending`] to standard error.

use serde::Serialize;

use crate::eval::value::{Data, Value};

/// A key of the file that has no effect yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The key as written.
    pub key: &'static str,
    /// One line: what does not happen.
    pub note: &'static str,
}

impl std::fmt::Display for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` has no effect yet: {}", self.key, self.note)
    }
}

/// When a key that is present asks for the missing feature.
#[derive(Clone, Copy)]
enum When {
    /// It says anything but nothing: not None, 0, '' or [].
    Set,
    /// Its number is not this one.
    Not(i64),
    /// Its word is not this one.
    NotWord(&'static str),
}

const HVM: &str = "it belongs to assisted (HVM) guests; this domain is paravirtual";
const XL_DEVICE: &str = "devices of this kind are not provided";
const PORTS: &str = "access to the host's I/O ports, memory and interrupts is not provided";
const DRIVER_DOMAIN: &str = "driver domains are not provided";

const TABLE: &[(&str, When, &str)] = &[
    ("nics", When::Set, "list the network interfaces in `vif`"),
    ("pci", When::Set, "PCI devices are not passed through"),
    ("vfb", When::Set, "there is no virtual frame buffer"),
    ("vtpm", When::Set, "there is no virtual TPM"),
    ("vcpus", When::Not(1), "the domain starts with one vCPU"),
    ("maxvcpus", When::Not(1), "the domain has one vCPU"),
    ("vcpu_avail", When::Set, "vCPUs are not switched on and off"),
    ("cpu", When::Not(-1), "vCPUs are not pinned"),
    ("cpus", When::NotWord("all"), "vCPUs are not pinned"),
    ("cpus_soft", When::NotWord("all"), "vCPUs are not pinned"),
    ("cpu_weight", When::Not(256), "the scheduler knows no weights"),
    ("cpu_cap", When::Not(0), "the scheduler knows no caps"),
    ("cap", When::Not(0), "the scheduler knows no caps"),
    ("pool", When::NotWord("Pool-0"), "there are no CPU pools"),
    ("nfs_server", When::Set, "it only becomes part of the kernel command line"),
    ("nfs_root", When::Set, "it only becomes part of the kernel command line"),
    ("bootloader", When::Set, "no boot loader is run; `kernel` is used"),
    ("bootargs", When::Set, "no boot loader is run"),
    ("bootloader_args", When::Set, "no boot loader is run"),
    ("access_control", When::Set, "security labels are not enforced"),
    ("seclabel", When::Set, "security labels are not enforced"),
    ("on_watchdog", When::Set, "there is no watchdog"),
    ("on_soft_reset", When::Set, "there is no soft reset"),
    ("on_xend_stop", When::NotWord("ignore"), "xendomains(8) stops domains with the host"),
    ("features", When::Set, "the features a guest sees are fixed"),
    ("target", When::Set, "stub domains are not provided"),
    ("nomigrate", When::Set, "migration is not restricted per domain"),
    ("tsc_mode", When::NotWord("default"), "the time stamp counter is not emulated"),
    ("localtime", When::Set, "the guest's clock starts in UTC"),
    ("rtc_timeoffset", When::Set, "the guest's clock has no offset"),
    ("shadow_memory", When::Set, "there is no shadow memory pool to size"),
    ("bootentry", When::Set, "no boot loader is run"),
    ("blkif", When::Set, DRIVER_DOMAIN),
    ("netif", When::Set, DRIVER_DOMAIN),
    ("tpmif", When::Set, DRIVER_DOMAIN),
    ("vhpt", When::Set, "it is for Itanium"),
    ("machine_address_size", When::Set, "machine addresses are not restricted"),
    ("suppress_spurious_page_faults", When::Set, "page faults are delivered as they come"),
    ("superpages", When::Set, "guest memory is not built from superpages"),
    ("ioports", When::Set, PORTS),
    ("irq", When::Set, PORTS),
    ("irqs", When::Set, PORTS),
    ("iomem", When::Set, PORTS),
    ("vscsi", When::Set, XL_DEVICE),
    ("vusb", When::Set, XL_DEVICE),
    ("vif2", When::Set, XL_DEVICE),
    ("p9", When::Set, XL_DEVICE),
    ("usbctrl", When::Set, XL_DEVICE),
    ("usbdev", When::Set, XL_DEVICE),
    ("vkb", When::Set, XL_DEVICE),
    ("vdispl", When::Set, XL_DEVICE),
    ("vsnd", When::Set, XL_DEVICE),
    ("virtio", When::Set, XL_DEVICE),
    ("pvcalls", When::Set, XL_DEVICE),
    ("dtdev", When::Set, XL_DEVICE),
    ("device_model", When::Set, HVM),
    ("loader", When::Set, HVM),
    ("boot", When::Set, HVM),
    ("acpi", When::Set, HVM),
    ("apic", When::Set, HVM),
    ("pae", When::Set, HVM),
    ("hpet", When::Set, HVM),
    ("viridian", When::Set, HVM),
    ("stdvga", When::Set, HVM),
    ("videoram", When::Set, HVM),
    ("sdl", When::Set, HVM),
    ("vnc", When::Set, HVM),
    ("vnclisten", When::Set, HVM),
    ("vncdisplay", When::Set, HVM),
    ("vncunused", When::Set, HVM),
    ("vncpasswd", When::Set, HVM),
    ("vncconsole", When::Set, HVM),
    ("opengl", When::Set, HVM),
    ("display", When::Set, HVM),
    ("xauthority", When::Set, HVM),
    ("usb", When::Set, HVM),
    ("usbdevice", When::Set, HVM),
    ("serial", When::Set, HVM),
    ("parallel", When::Set, HVM),
    ("monitor", When::Set, HVM),
    ("soundhw", When::Set, HVM),
    ("keymap", When::Set, HVM),
    ("nographic", When::Set, HVM),
    ("timer_mode", When::Set, HVM),
    ("vpt_align", When::Set, HVM),
    ("hap", When::Set, HVM),
    ("oos", When::Set, HVM),
    ("xen_platform_pci", When::Set, HVM),
    ("gfx_passthru", When::Set, HVM),
    ("cpuid_check", When::Set, HVM),
    ("memory_sharing", When::Set, HVM),
    ("fda", When::Set, HVM),
    ("fdb", When::Set, HVM),
    ("isa", When::Set, HVM),
];

/// The keys among those `lookup` knows that have no effect yet.
pub(crate) fn pending<'a>(lookup: impl Fn(&str) -> Option<&'a Value>) -> Vec<Pending> {
    let asked = |(key, when, note): &(&'static str, When, &'static str)| {
        let value = lookup(key)?;
        let wanted = match (when, &value.data) {
            (_, Data::None) => false,
            (When::Set, _) => value.truth() && !is_zero_text(value),
            (When::Not(neutral), _) => number(value) != Some(*neutral),
            (When::NotWord(neutral), Data::Text(text)) => {
                !text.as_str().is_empty() && text.as_str() != *neutral
            }
            (When::NotWord(_), _) => value.truth(),
        };
        wanted.then_some(Pending { key, note })
    };
    TABLE.iter().filter_map(asked).collect()
}

fn number(value: &Value) -> Option<i64> {
    match &value.data {
        Data::Text(text) => text.as_str().trim().parse().ok(),
        _ => value.integer(),
    }
}

/// `vnc = "0"` asks for nothing.
fn is_zero_text(value: &Value) -> bool {
    matches!(&value.data, Data::Text(text) if text.as_str().trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    #[test]
    fn every_line_names_a_key_once() {
        for (index, (key, ..)) in TABLE.iter().enumerate() {
            assert!(keys::kind(key).is_some(), "{key}");
            assert!(TABLE[..index].iter().all(|(other, ..)| other != key), "{key}");
        }
    }

    /// A key that is neither read into the model nor listed here would be
    /// passed over in silence.
    #[test]
    fn every_key_is_read_or_pending() {
        let read = crate::read::keys_read();
        for (key, _) in keys::KEYS {
            let listed = TABLE.iter().any(|(other, ..)| other == key);
            assert!(listed || read.contains(key), "{key}");
        }
    }
}
