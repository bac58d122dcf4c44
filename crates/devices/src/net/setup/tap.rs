//! A tap on a bridge of the host's.

use super::links::{self, Change, Link};
use super::netlink::Netlink;
use super::{SetupError, script::Script};
use crate::net::ioctl;
use kill_point::kill_point;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The address of the host's end: it cannot lend itself to the bridge, being the largest.
const MAC: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];
/// Longest name of a device (`IFNAMSIZ` with its zero).
const LONGEST_NAME: usize = 15;

/// Makes a tap that lasts until its last descriptor is closed. With a `script`, that does the rest;
/// without, the tap joins `bridge` and goes up.
pub(super) fn create(
    name: &str,
    bridge: &str,
    mtu: Option<u16>,
    script: Option<&Script>,
) -> Result<(OwnedFd, u32), SetupError> {
    let mut netlink = Netlink::open().map_err(SetupError::Netlink)?;
    let target = if script.is_some() { None } else { Some(find_bridge(&mut netlink, bridge)?) };
    let mtu = mtu.map(u32::from).or(target.as_ref().map(|bridge| bridge.mtu)).unwrap_or(1500);
    let fd = open(name)?;
    kill_point("tap.made");
    let link = links::named(&mut netlink, name).map_err(SetupError::Netlink)?;
    let link = link.ok_or_else(|| SetupError::Netlink(io::ErrorKind::NotFound.into()))?;
    let change = Change::of(link.index).mac(&MAC).mtu(mtu).without_addresses();
    change.make(&mut netlink).map_err(|source| SetupError::of_tap(name, source))?;
    kill_point("tap.changed");
    match (script, target) {
        (Some(script), _) => script.run("online")?,
        (None, Some(target)) => {
            let change = Change::of(link.index).master(target.index).up();
            change.make(&mut netlink).map_err(|source| SetupError::of_tap(name, source))?;
        }
        (None, None) => {}
    }
    kill_point("tap.joined");
    Ok((fd, mtu))
}

fn find_bridge(netlink: &mut Netlink, name: &str) -> Result<Link, SetupError> {
    let all = links::all(netlink).map_err(SetupError::Netlink)?;
    if let Some(link) = all.iter().find(|link| link.name == name) {
        return if link.is_bridge() {
            Ok(link.clone())
        } else {
            Err(SetupError::NotABridge { name: name.to_owned() })
        };
    }
    let bridges = all.into_iter().filter(Link::is_bridge).map(|link| link.name).collect();
    Err(SetupError::NoBridge { name: name.to_owned(), bridges })
}

fn open(name: &str) -> Result<OwnedFd, SetupError> {
    let valid = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'%');
    if !valid || name.is_empty() || name.len() > LONGEST_NAME {
        return Err(SetupError::Name { name: name.to_owned() });
    }
    let wrong = |source| SetupError::of_tap(name, source);
    let mut netlink = Netlink::open().map_err(SetupError::Netlink)?;
    // A tap that lasts and belongs to somebody would be taken over.
    if links::named(&mut netlink, name).map_err(SetupError::Netlink)?.is_some() {
        return Err(SetupError::NameInUse { name: name.to_owned() });
    }
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(wrong)?;
    let c_name = CString::new(name).map_err(|_| SetupError::Name { name: name.to_owned() })?;
    ioctl::make_tap(file.as_fd(), &c_name).map_err(wrong)?;
    rustix::io::ioctl_fionbio(&file, true).map_err(|error| wrong(error.into()))?;
    Ok(file.into())
}
