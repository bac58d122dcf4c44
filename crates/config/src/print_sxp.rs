//! A configuration as the S-expression that `xm create -n` and `xm list -l` show.

use crate::model::{Affinity, Channel, CpuidMask, Disk, DiskAccess, DiskDevice, DomainConfig, Vif};
use crate::model::{DiskBacking, DiskFormat};
use crate::sxp::Sxp;

impl DomainConfig {
    /// What `xm create -n` prints: `(vm (name ..) (memory ..) .. (image ..)
    /// (device (vbd ..)) ..)`.
    pub fn to_sxp(&self) -> Sxp {
        Sxp::list("vm", self.sxp_items())
    }

    /// What `xm list -l` prints: `(domain (domid ..) ..)`. `before` are facts
    /// shown ahead of the configuration (domid), `after` behind it (state,
    /// online_vcpus, store_mfn and the like); each is a key and its value.
    pub fn to_domain_sxp(&self, before: &[(&str, String)], after: &[(&str, String)]) -> Sxp {
        let pairs = |facts: &[(&str, String)]| {
            facts.iter().map(|(key, value)| Sxp::pair(key, value.clone())).collect::<Vec<_>>()
        };
        let mut items = pairs(before);
        items.extend(self.sxp_items());
        items.extend(pairs(after));
        Sxp::list("domain", items)
    }

    fn sxp_items(&self) -> Vec<Sxp> {
        let (general, cpus) = (&self.general, &self.cpus);
        let mut items = vec![
            Sxp::pair("name", &general.name),
            Sxp::pair("memory", self.memory.initial.to_string()),
            Sxp::pair("maxmem", self.memory.maximum.to_string()),
            Sxp::pair("on_poweroff", self.events.poweroff.as_str()),
            Sxp::pair("on_reboot", self.events.reboot.as_str()),
            Sxp::pair("on_crash", self.events.crash.as_str()),
            Sxp::pair("vcpus", cpus.maximum.to_string()),
        ];
        let available = match cpus.available {
            None if cpus.online < cpus.maximum => {
                Some(u128::MAX.checked_shr(128 - cpus.online).unwrap_or(0))
            }
            mask => mask.map(u128::from),
        };
        let with_host = self.events.starts_with_host.then(|| "start".to_owned());
        let optional = [
            ("on_xend_start", with_host),
            ("vcpu_avail", available.map(|mask| mask.to_string())),
            ("uuid", general.uuid.map(|uuid| uuid.to_string())),
            ("description", general.description.clone()),
            ("pool_name", cpus.scheduling.pool.clone()),
            ("cpuid", (cpus.cpuid != CpuidMask::default()).then(|| cpus.cpuid.to_string())),
        ];
        items.extend(optional.into_iter().filter_map(|(k, v)| Some(Sxp::pair(k, v?))));
        items.extend(cpus.affinity.as_ref().map(|affinity| affinity_sxp("cpus", affinity)));
        items.extend(cpus.soft_affinity.as_ref().map(|soft| affinity_sxp("cpus_soft", soft)));
        items.push(Sxp::pair("cpu_weight", cpus.scheduling.weight.to_string()));
        items.push(Sxp::pair("cpu_cap", cpus.scheduling.cap.to_string()));
        if let Some(bootloader) = &self.boot.bootloader {
            items.push(Sxp::pair("bootloader", &bootloader.program));
            let args = bootloader.args.join(" ");
            items.push(Sxp::pair("bootloader_args", if args.is_empty() { "-q" } else { &args }));
        }
        items.push(self.image_sxp());
        items.extend(self.device_sxps());
        if let Some(label) = &self.access_control {
            let (policy, name) = (&label.policy, &label.label);
            let inner = [Sxp::pair("policy", policy), Sxp::pair("label", name)];
            items.push(Sxp::list("security", [Sxp::list("access_control", inner)]));
        }
        items
    }

    fn image_sxp(&self) -> Sxp {
        let boot = &self.boot;
        let nfs = match (&boot.network.nfs_server, &boot.network.nfs_root) {
            (Some(server), Some(path)) => Some(format!("nfsroot={server}:{path}")),
            _ => None,
        };
        // As xm does, `nfsroot=` becomes part of the arguments.
        let args: Vec<_> = nfs.into_iter().chain(boot.extra.clone()).collect();
        let args = (!args.is_empty()).then(|| args.join(" "));
        let (ip, root, args) = match &boot.cmdline {
            Some(cmdline) => (None, None, Some(cmdline.clone())),
            None => (boot.network.ip_argument(), boot.root.clone(), args),
        };
        let keys = [
            ("kernel", boot.kernel.clone()),
            ("ramdisk", boot.ramdisk.clone()),
            ("ip", ip),
            ("root", root),
            ("args", args),
        ];
        let inner = keys.into_iter().filter_map(|(key, value)| Some(Sxp::pair(key, value?)));
        Sxp::list("image", [Sxp::list("linux", inner)])
    }

    fn device_sxps(&self) -> Vec<Sxp> {
        let devices = &self.devices;
        let mut list: Vec<Sxp> = devices.disks.iter().map(disk_sxp).collect();
        let pci = devices.pci.iter().map(|device| {
            let mut inner = vec![
                Sxp::pair("domain", format!("{:#06x}", device.segment)),
                Sxp::pair("bus", format!("{:#04x}", device.bus)),
                Sxp::pair("slot", format!("{:#04x}", device.slot)),
                Sxp::pair("func", format!("{:#x}", device.function)),
            ];
            inner.extend(device.virtual_slot.map(|slot| Sxp::pair("vslot", format!("{slot:#x}"))));
            inner.extend(device.options.iter().map(|(key, value)| Sxp::pair(key, value)));
            Sxp::list("dev", inner)
        });
        if !devices.pci.is_empty() {
            list.push(Sxp::list("pci", pci.collect::<Vec<_>>()));
        }
        list.extend(devices.vifs.iter().map(vif_sxp));
        list.extend(devices.channels.iter().map(channel_sxp));
        list.extend(devices.vtpm.iter().map(|spec| raw_sxp("vtpm", spec)));
        list.extend(devices.vfb.iter().map(|spec| raw_sxp("vfb", spec)));
        list.into_iter().map(|device| Sxp::list("device", [device])).collect()
    }
}

fn affinity_sxp(key: &str, affinity: &Affinity) -> Sxp {
    match affinity {
        Affinity::All(list) => Sxp::pair(key, list.to_string()),
        Affinity::PerVcpu(lists) => {
            let atoms = lists.iter().map(|list| Sxp::Atom(list.to_string())).collect();
            Sxp::List(vec![Sxp::Atom(key.to_owned()), Sxp::List(atoms)])
        }
    }
}

fn disk_sxp(disk: &Disk) -> Sxp {
    let device = match disk.device {
        DiskDevice::Disk => disk.vdev.to_string(),
        other => format!("{}:{}", disk.vdev, other.as_str()),
    };
    let mode = match disk.access {
        DiskAccess::ReadOnly => "r",
        DiskAccess::ReadWrite => "w",
        DiskAccess::ForcedWrite => "w!",
    };
    let mut inner =
        vec![Sxp::pair("uname", uname(disk)), Sxp::pair("dev", device), Sxp::pair("mode", mode)];
    let optional = [("backend", &disk.backend), ("protocol", &disk.protocol)];
    inner.extend(optional.into_iter().filter_map(|(k, v)| Some(Sxp::pair(k, v.clone()?))));
    Sxp::list("vbd", inner)
}

/// The xm name of what is behind a disk, such as `file:/x` or `tap:qcow2:/x`.
fn uname(disk: &Disk) -> String {
    let Some(target) = &disk.target else {
        return String::new();
    };
    if let Some(script) = &disk.script {
        let kind = script.strip_prefix("block-").unwrap_or(script);
        return format!("{kind}:{target}");
    }
    match (disk.backing, disk.format) {
        (DiskBacking::Phy, _) => format!("phy:{target}"),
        (DiskBacking::File, _) => format!("file:{target}"),
        (DiskBacking::Tap, DiskFormat::Raw) => format!("tap:aio:{target}"),
        // xl's guess: a device is used as it is, an image through a loop device.
        (_, DiskFormat::Raw) if target.starts_with("/dev/") => format!("phy:{target}"),
        (_, DiskFormat::Raw) => format!("file:{target}"),
        (_, format) => format!("tap:{}:{target}", format.as_str()),
    }
}

fn vif_sxp(vif: &Vif) -> Sxp {
    Sxp::list("vif", vif.properties().into_iter().map(|(key, value)| Sxp::pair(key, value)))
}

fn channel_sxp(channel: &Channel) -> Sxp {
    let pairs = channel.properties().into_iter();
    Sxp::list("channel", pairs.map(|(key, value)| Sxp::pair(key, value)))
}

/// A device that is kept as written: its `key=value` pieces.
fn raw_sxp(kind: &str, spec: &str) -> Sxp {
    let pairs = spec.split(',').map(str::trim).filter(|piece| !piece.is_empty());
    Sxp::list(
        kind,
        pairs.map(|piece| match piece.split_once('=') {
            Some((key, value)) => Sxp::pair(key.trim(), value.trim()),
            None => Sxp::Atom(piece.to_owned()),
        }),
    )
}
