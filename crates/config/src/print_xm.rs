//! A configuration as a file that reads back as the same configuration.

use std::fmt::Write;

use crate::error::Error;
use crate::load::parse_str;
use crate::model::{Affinity, CpuidMask, DomainConfig, Scheduling};

impl DomainConfig {
    /// A configuration file in xm syntax that [`parse_str`] reads back as
    /// this configuration.
    pub fn to_xm(&self) -> String {
        let mut file = FileText::default();
        self.print_general(&mut file);
        self.print_cpus(&mut file);
        self.print_boot(&mut file);
        file.list("disk", self.devices.disks.iter().map(ToString::to_string));
        file.list("vif", self.devices.vifs.iter().map(ToString::to_string));
        file.list("channel", self.devices.channels.iter().map(ToString::to_string));
        file.list("pci", self.devices.pci.iter().map(ToString::to_string));
        file.list("vfb", self.devices.vfb.iter().cloned());
        file.list("vtpm", self.devices.vtpm.iter().cloned());
        file.list("access_control", self.access_control.iter().map(ToString::to_string));
        file.text
    }

    /// Checks a configuration that came from elsewhere, such as a saved
    /// domain, by the rules for files.
    ///
    /// # Errors
    /// What the reader has to say, or [`Error::Inconsistent`] if the reader
    /// would have understood something else.
    pub fn validate(&self) -> Result<(), Error> {
        let loaded = parse_str("domain configuration", &self.to_xm(), &[])?;
        if loaded.config == *self { Ok(()) } else { Err(Error::Inconsistent) }
    }

    fn print_general(&self, file: &mut FileText) {
        file.string("name", &self.general.name);
        file.option("uuid", self.general.uuid.map(|uuid| uuid.to_string()).as_ref());
        file.option("description", self.general.description.as_ref());
        file.string("builder", "linux");
        file.number("memory", self.memory.initial);
        if self.memory.maximum != self.memory.initial {
            file.number("maxmem", self.memory.maximum);
        }
        file.string("on_poweroff", self.events.poweroff.as_str());
        file.string("on_reboot", self.events.reboot.as_str());
        file.string("on_crash", self.events.crash.as_str());
        if self.events.starts_with_host {
            file.string("on_xend_start", "start");
        }
    }

    fn print_cpus(&self, file: &mut FileText) {
        let cpus = &self.cpus;
        file.number("vcpus", cpus.online.into());
        if cpus.maximum != cpus.online {
            file.number("maxvcpus", cpus.maximum.into());
        }
        if let Some(mask) = cpus.available {
            file.number("vcpu_avail", mask);
        }
        for (key, affinity) in [("cpus", &cpus.affinity), ("cpus_soft", &cpus.soft_affinity)] {
            match affinity {
                Some(Affinity::All(list)) => file.string(key, &list.to_string()),
                Some(Affinity::PerVcpu(lists)) => {
                    file.list(key, lists.iter().map(ToString::to_string));
                }
                None => {}
            }
        }
        if cpus.scheduling.weight != Scheduling::DEFAULT_WEIGHT {
            file.number("cpu_weight", cpus.scheduling.weight.into());
        }
        if cpus.scheduling.cap != 0 {
            file.number("cpu_cap", cpus.scheduling.cap.into());
        }
        file.option("pool", cpus.scheduling.pool.as_ref());
        if cpus.cpuid != CpuidMask::default() {
            file.string("cpuid", &cpus.cpuid.to_string());
        }
    }

    fn print_boot(&self, file: &mut FileText) {
        let (boot, network) = (&self.boot, &self.boot.network);
        let keys = [
            ("kernel", &boot.kernel),
            ("ramdisk", &boot.ramdisk),
            ("root", &boot.root),
            ("extra", &boot.extra),
            ("cmdline", &boot.cmdline),
            ("ip", &network.ip),
            ("netmask", &network.netmask),
            ("gateway", &network.gateway),
            ("hostname", &network.hostname),
            ("interface", &network.interface),
            ("dhcp", &network.dhcp),
            ("nfs_server", &network.nfs_server),
            ("nfs_root", &network.nfs_root),
        ];
        for (key, value) in keys {
            file.option(key, value.as_ref());
        }
        if let Some(bootloader) = &boot.bootloader {
            file.string("bootloader", &bootloader.program);
            file.list("bootloader_args", bootloader.args.iter().cloned());
        }
    }
}

/// Lines of a configuration file.
#[derive(Default)]
struct FileText {
    text: String,
}

impl FileText {
    fn line(&mut self, key: &str, value: &str) {
        self.text.push_str(key);
        self.text.push_str(" = ");
        self.text.push_str(value);
        self.text.push('\n');
    }

    fn number(&mut self, key: &str, value: u64) {
        self.line(key, &value.to_string());
    }

    fn string(&mut self, key: &str, value: &str) {
        self.line(key, &quoted(value));
    }

    fn option(&mut self, key: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    /// A list; an empty one is left out.
    fn list(&mut self, key: &str, items: impl Iterator<Item = String>) {
        let items: Vec<_> = items.map(|item| quoted(&item)).collect();
        match items.as_slice() {
            [] => {}
            [one] => self.line(key, &format!("[{one}]")),
            many => self.line(key, &format!("[\n    {},\n]", many.join(",\n    "))),
        }
    }
}

/// `text` as a string literal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_ascii_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
