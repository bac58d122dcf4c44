//! What is set up on the host for a network interface, by the domain process: outside the backend's
//! walls, with the rights and names of whoever started the domain.

pub mod bridge;
mod error;
pub mod links;
mod mac;
pub mod netlink;
mod script;
mod tap;
mod user;

pub use error::SetupError;
pub use mac::Mac;

use crate::net::Subnet;
use crate::wire::{NetConfig, NetLink};
use config::Vif;
use mac::Lease;
use script::Script;
use std::os::fd::OwnedFd;
use std::path::Path;
use user::User;

/// The domain whose interface it is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its UUID as text: addresses are made up of it.
    pub uuid: &'a str,
    /// Its number.
    pub domid: u32,
    /// The run-time directory of this user's domains.
    pub runtime: &'a Path,
}

/// What holds an interface on the host.
#[derive(Debug)]
enum Held {
    Tap { script: Option<Script> },
    User(User),
}

/// An interface that is set up. Dropped, it leaves nothing behind (once the backend has closed the
/// link).
#[derive(Debug)]
pub struct Interface {
    /// For the backend.
    pub config: NetConfig,
    vif: Vif,
    held: Held,
    _lease: Lease,
}

impl Interface {
    /// Sets up interface `device`; gives the descriptor for the backend too.
    ///
    /// # Errors
    /// As [`SetupError`] says; nothing is left then.
    pub fn set_up(owner: Owner<'_>, device: u32, vif: &Vif) -> Result<(Self, OwnedFd), SetupError> {
        let fixed = vif.mac.map(|mac| mac.0);
        let names = (owner.name, owner.uuid);
        let (mac, lease) = Lease::take(&owner.runtime.join("macs"), fixed, names, device)?;
        let antispoof = antispoof(vif)?;
        let mut config = NetConfig { mac, link: NetLink::Stream, mtu: 1500, rate: None, antispoof };
        config.rate = vif.rate.map(|rate| {
            let bytes =
                u128::from(rate.bytes_per_second) * u128::from(rate.interval_us) / 1_000_000;
            (u64::try_from(bytes).unwrap_or(u64::MAX).max(1), rate.interval_us.into())
        });
        let (held, fd) = if let Some(bridge) = &vif.bridge {
            if !vif.ports.is_empty() {
                return Err(SetupError::PortsWithBridge);
            }
            let (held, fd, mtu) = set_up_tap(owner, device, vif, mac, bridge)?;
            (config.link, config.mtu) = (NetLink::Tap, u16::try_from(mtu).unwrap_or(u16::MAX));
            (held, fd)
        } else {
            let without = [
                ("script", vif.script.is_some()),
                ("vifname", vif.vifname.is_some()),
                ("antispoof", vif.link.antispoof.is_some()),
            ];
            if let Some((key, _)) = without.iter().find(|(_, is_set)| *is_set) {
                return Err(SetupError::WithoutBridge(key));
            }
            let (user, fd) = User::start(mac, vif.link.mtu, &vif.ports)?;
            config.mtu = vif.link.mtu.unwrap_or(LARGEST_MTU);
            (Held::User(user), fd)
        };
        Ok((Self { config, vif: vif.clone(), held, _lease: lease }, fd))
    }

    /// The process of its user-mode network.
    pub fn engine(&self) -> Option<u32> {
        match &self.held {
            Held::Tap { .. } => None,
            Held::User(user) => Some(user.id()),
        }
    }

    /// A new link in the place of one that is gone, where that is possible: a user-mode network is
    /// started anew. A tap that somebody removed stays away.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub fn renew(&mut self) -> Result<Option<OwnedFd>, SetupError> {
        let Held::User(user) = &mut self.held else { return Ok(None) };
        // Its ports are free once it has ended.
        user.end();
        let (new, fd) = User::start(self.config.mac, self.vif.link.mtu, &self.vif.ports)?;
        self.held = Held::User(new);
        Ok(Some(fd))
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        if let Held::Tap { script: Some(script) } = &self.held {
            let _said_in_its_output = script.run("offline");
        }
    }
}

/// What `passt` tells guests by DHCP: the largest packet, so that few of them are needed.
const LARGEST_MTU: u16 = 65520;

/// The addresses that a guest is held to, if it is.
fn antispoof(vif: &Vif) -> Result<Option<Vec<Subnet>>, SetupError> {
    if vif.link.antispoof != Some(true) {
        return Ok(None);
    }
    let parse =
        |text: &String| Subnet::parse(text).ok_or_else(|| SetupError::Address(text.clone()));
    vif.ip.iter().map(parse).collect::<Result<_, _>>().map(Some)
}

fn set_up_tap(
    owner: Owner<'_>,
    device: u32,
    vif: &Vif,
    mac: Mac,
    bridge: &str,
) -> Result<(Held, OwnedFd, u32), SetupError> {
    let name = vif.vifname.clone().unwrap_or_else(|| format!("vif{}.{device}", owner.domid));
    let environment = vec![
        ("vif", name.clone()),
        ("bridge", bridge.to_owned()),
        ("mac", mac::text(mac)),
        ("ip", vif.ip.join(" ")),
        ("domid", owner.domid.to_string()),
        ("domain", owner.name.to_owned()),
        ("XENBUS_PATH", format!("backend/vif/{}/{device}", owner.domid)),
    ];
    let script = Script::find(vif.script.as_deref(), environment)?;
    let (fd, mtu) = tap::create(&name, bridge, vif.link.mtu, script.as_ref())?;
    Ok((Held::Tap { script }, fd, mtu))
}
