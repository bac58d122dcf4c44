//! A bridge over the host's uplink, as the old `network-bridge` script made it: guests on it are
//! stations of the host's own network.
//!
//! The uplink becomes a port of the bridge, which takes over its Ethernet address, its addresses and
//! its routes. What was moved is written to a file before anything is touched, so that it can be
//! moved back whatever happens: after a crash at any step, the next `start` or `stop` first does that.

mod addresses;
mod state;

pub use addresses::{Address, Route};
pub use state::State;

use super::links::{self, Change, Link};
use super::netlink::Netlink;
use kill_point::kill_point;
use state::Phase;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Name of a bridge when none is given.
pub const DEFAULT_NAME: &str = "xenbr0";

/// Why a bridge cannot be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// No default route.
    #[error("this host has no default route: name the device to be bridged, as `netdev=eth0`")]
    NoUplink,
    /// No such device.
    #[error("this host has no network device `{0}`")]
    NoDevice(String),
    /// It cannot be a port.
    #[error("`{name}` cannot be a port of a bridge: {why}")]
    Unfit {
        /// The device.
        name: String,
        /// Why.
        why: String,
    },
    /// The bridge's name is taken.
    #[error("this host has a network device `{0}` already, which `network-bridge` did not make")]
    NameInUse(String),
    /// A route could not be put back.
    #[error(
        "the route `{0}` is shared with other devices and could not be put back as it is: nothing was changed"
    )]
    SharedRoute(Route),
    /// It is there.
    #[error("the bridge `{bridge}` over `{uplink}` is there already")]
    Started {
        /// The bridge.
        bridge: String,
        /// Its uplink.
        uplink: String,
    },
    /// It is not there.
    #[error("`network-bridge` has made no bridge `{0}`")]
    NotStarted(String),
    /// Guests use it.
    #[error("the bridge `{bridge}` is in use by {}: shut these domains down or detach their interfaces first", ports.join(", "))]
    InUse {
        /// The bridge.
        bridge: String,
        /// Its ports.
        ports: Vec<String>,
    },
    /// A step failed.
    #[error("{step}: {source}")]
    Step {
        /// What was done.
        step: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something could not be found out.
    #[error("the host's network cannot be looked at: {0}")]
    Look(#[from] io::Error),
    /// The record.
    #[error("the record {}: {source}", path.display())]
    Record {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A step of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write down what is going to be done.
    Record(State),
    /// Make the bridge.
    Create,
    /// Lead a route through the uplink no more.
    Unroute(Route),
    /// Take an address from the uplink.
    Take(Address),
    /// Make the uplink a port.
    Join,
    /// Give an address to the bridge.
    Address(Address),
    /// Lead a route through the bridge.
    Route(Route),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(state) => write!(f, "record what is changed ({})", state.phase),
            Self::Create => f.write_str("make the bridge, with the uplink's MAC address"),
            Self::Unroute(route) => write!(f, "take the route {route} from the uplink"),
            Self::Take(address) => write!(f, "take the address {address} from the uplink"),
            Self::Join => f.write_str("make the uplink a port of the bridge"),
            Self::Address(address) => write!(f, "give the address {address} to the bridge"),
            Self::Route(route) => write!(f, "lead the route {route} through the bridge"),
        }
    }
}

/// The bridges of this host, recorded in a directory.
#[derive(Debug)]
pub struct Bridges<'a> {
    netlink: Netlink,
    directory: &'a Path,
}

impl<'a> Bridges<'a> {
    /// Records are in `directory`.
    ///
    /// # Errors
    /// When the network cannot be looked at.
    pub fn open(directory: &'a Path) -> Result<Self, BridgeError> {
        Ok(Self { netlink: Netlink::open()?, directory })
    }

    /// What has been recorded of a bridge.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn state(&self, bridge: &str) -> Result<Option<State>, BridgeError> {
        State::load(self.directory, bridge)
    }

    /// The bridge and its ports, if it is there.
    ///
    /// # Errors
    /// When the network cannot be looked at.
    pub fn ports(&mut self, bridge: &str) -> Result<Option<(Link, Vec<String>)>, BridgeError> {
        let all = links::all(&mut self.netlink)?;
        let Some(link) = all.iter().find(|link| link.name == bridge) else { return Ok(None) };
        let ports = all.iter().filter(|port| port.master == Some(link.index));
        Ok(Some((link.clone(), ports.map(|port| port.name.clone()).collect())))
    }

    /// The steps that make `bridge` over `uplink`, or over the device of the default route. A start
    /// or stop that was broken off is undone first, unless it is only `dry`.
    ///
    /// # Errors
    /// When it is not possible; nothing was changed then.
    pub fn plan(
        &mut self,
        bridge: &str,
        uplink: Option<&str>,
        dry: bool,
    ) -> Result<(State, Vec<Step>), BridgeError> {
        match self.state(bridge)? {
            Some(state) if state.phase == Phase::Running => {
                let State { bridge, uplink, .. } = state;
                return Err(BridgeError::Started { bridge, uplink });
            }
            Some(state) if !dry => self.restore(&state)?,
            _ => {}
        }
        let link = self.find_uplink(uplink)?;
        if !dry {
            // Changes nothing, but is refused to who may not.
            let allowed = Change::of(link.index).make(&mut self.netlink);
            let step = format!("change the network device `{}`", link.name);
            allowed.map_err(|source| BridgeError::Step { step, source })?;
        }
        if links::named(&mut self.netlink, bridge)?.is_some() {
            return Err(BridgeError::NameInUse(bridge.to_owned()));
        }
        let state = self.look(bridge, &link, link.index, Phase::Starting)?;
        let mut steps = vec![Step::Record(state.clone()), Step::Create];
        steps.extend(state.routes.iter().rev().cloned().map(Step::Unroute));
        steps.extend(state.addresses.iter().cloned().map(Step::Take));
        steps.push(Step::Join);
        steps.extend(state.addresses.iter().cloned().map(Step::Address));
        steps.extend(state.routes.iter().cloned().map(Step::Route));
        steps.push(Step::Record(State { phase: Phase::Running, ..state.clone() }));
        Ok((state, steps))
    }

    fn find_uplink(&mut self, name: Option<&str>) -> Result<Link, BridgeError> {
        let all = links::all(&mut self.netlink)?;
        let link = match name {
            Some(name) => {
                let link = all.into_iter().find(|link| link.name == name);
                link.ok_or_else(|| BridgeError::NoDevice(name.to_owned()))?
            }
            None => {
                let index = addresses::uplink(&mut self.netlink)?.ok_or(BridgeError::NoUplink)?;
                let link = all.into_iter().find(|link| link.index == index);
                link.ok_or(BridgeError::NoUplink)?
            }
        };
        let unfit = |why: &str| BridgeError::Unfit { name: link.name.clone(), why: why.to_owned() };
        if link.is_bridge() {
            return Err(unfit("it is a bridge itself; guests can use it as it is"));
        }
        if link.master.is_some() {
            return Err(unfit("it belongs to another device"));
        }
        if link.mac.len() != 6 || link.mac.iter().all(|byte| *byte == 0) {
            return Err(unfit("it has no Ethernet address"));
        }
        if Path::new("/sys/class/net").join(&link.name).join("wireless").exists() {
            return Err(unfit("it is wireless, and access points take no frames of others"));
        }
        Ok(link)
    }

    /// What is on device `index` now.
    fn look(
        &mut self,
        bridge: &str,
        uplink: &Link,
        index: u32,
        phase: Phase,
    ) -> Result<State, BridgeError> {
        let routes = Route::of(&mut self.netlink, index).map_err(|error| match error {
            Ok(route) => BridgeError::SharedRoute(route),
            Err(error) => BridgeError::Look(error),
        })?;
        Ok(State {
            phase,
            bridge: bridge.to_owned(),
            uplink: uplink.name.clone(),
            was_up: uplink.is_up,
            addresses: Address::of(&mut self.netlink, index)?,
            routes,
        })
    }

    /// Does one step.
    ///
    /// # Errors
    /// As the system says.
    pub fn run(&mut self, state: &State, step: &Step) -> Result<(), BridgeError> {
        let failed = |source| BridgeError::Step { step: step.to_string(), source };
        if let Step::Record(state) = step {
            return state.save(self.directory);
        }
        let netlink = &mut self.netlink;
        let index = |netlink: &mut Netlink, name: &str| {
            let link = links::named(netlink, name).map_err(failed)?;
            link.ok_or_else(|| BridgeError::NoDevice(name.to_owned()))
        };
        let uplink = index(netlink, &state.uplink)?;
        if *step == Step::Create {
            links::add_bridge(netlink, &state.bridge, &uplink.mac).map_err(failed)?;
            kill_point("bridge.made");
            let bridge = index(netlink, &state.bridge)?;
            return Change::of(bridge.index).mtu(uplink.mtu).up().make(netlink).map_err(failed);
        }
        let bridge = index(netlink, &state.bridge)?.index;
        match step {
            Step::Record(_) | Step::Create => Ok(()),
            Step::Unroute(route) => route.take(netlink, uplink.index),
            Step::Take(address) => address.take(netlink, uplink.index),
            Step::Join => Change::of(uplink.index).master(bridge).up().make(netlink),
            Step::Address(address) => address.give(netlink, bridge),
            Step::Route(route) => route.give(netlink, bridge),
        }
        .map_err(failed)
    }

    /// Makes a bridge. If a step fails, all is put back.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn start(&mut self, bridge: &str, uplink: Option<&str>) -> Result<State, BridgeError> {
        let (state, steps) = self.plan(bridge, uplink, false)?;
        for step in &steps {
            if let Err(error) = self.run(&state, step) {
                self.restore(&state)?;
                return Err(error);
            }
            match step {
                Step::Record(_) => kill_point("bridge.recorded"),
                Step::Create => kill_point("bridge.up"),
                Step::Unroute(_) => kill_point("bridge.route-taken"),
                Step::Take(_) => kill_point("bridge.address-taken"),
                Step::Join => kill_point("bridge.joined"),
                Step::Address(_) => kill_point("bridge.address-given"),
                Step::Route(_) => kill_point("bridge.route-led"),
            }
        }
        Ok(state)
    }

    /// Removes a bridge and puts back what it had taken over: what it has now, as leases may have been
    /// renewed meanwhile.
    ///
    /// # Errors
    /// When guests use it, or the system does not want.
    pub fn stop(&mut self, bridge: &str) -> Result<State, BridgeError> {
        let recorded = self.state(bridge)?;
        let mut state = recorded.ok_or_else(|| BridgeError::NotStarted(bridge.to_owned()))?;
        if let Some((link, mut ports)) = self.ports(bridge)? {
            ports.retain(|port| *port != state.uplink);
            if !ports.is_empty() {
                return Err(BridgeError::InUse { bridge: bridge.to_owned(), ports });
            }
            let uplink = links::named(&mut self.netlink, &state.uplink)?;
            if let (Phase::Running, Some(uplink)) = (state.phase, uplink) {
                let was_up = state.was_up;
                state = self.look(bridge, &uplink, link.index, Phase::Stopping)?;
                state.was_up = was_up;
                state.save(self.directory)?;
                kill_point("bridge.stopping");
            }
        }
        self.restore(&state)?;
        Ok(state)
    }

    /// Puts everything back, from wherever it was broken off.
    fn restore(&mut self, state: &State) -> Result<(), BridgeError> {
        let failed = |what: &str| {
            let step =
                format!("{what} (`network-bridge stop bridge={}` tries again)", state.bridge);
            move |source| BridgeError::Step { step, source }
        };
        let netlink = &mut self.netlink;
        let uplink = links::named(netlink, &state.uplink)?;
        // Ours has the uplink's address. One that somebody made after a start was broken off has not.
        let is_ours = |bridge: &Link| {
            bridge.is_bridge() && uplink.as_ref().is_none_or(|uplink| uplink.mac == bridge.mac)
        };
        let bridge = links::named(netlink, &state.bridge)?.filter(is_ours);
        if let Some(uplink) = &uplink {
            let joined =
                uplink.master.is_some() && uplink.master == bridge.as_ref().map(|b| b.index);
            if joined {
                let leave = Change::of(uplink.index).master(0);
                leave.make(netlink).map_err(failed("take the uplink out of the bridge"))?;
                kill_point("bridge.left");
            }
        }
        if let Some(bridge) = &bridge {
            links::remove(netlink, bridge.index).map_err(failed("remove the bridge"))?;
            kill_point("bridge.removed");
        }
        if let Some(uplink) = &uplink {
            if state.was_up {
                Change::of(uplink.index).up().make(netlink).map_err(failed("set the uplink up"))?;
            }
            for address in &state.addresses {
                let what = format!("give the address {address} back to `{}`", uplink.name);
                address.give(netlink, uplink.index).map_err(failed(&what))?;
                kill_point("bridge.address-back");
            }
            for route in &state.routes {
                let what = format!("lead the route {route} through `{}` again", uplink.name);
                route.give(netlink, uplink.index).map_err(failed(&what))?;
                kill_point("bridge.route-back");
            }
        }
        State::remove(self.directory, &state.bridge)
    }
}
