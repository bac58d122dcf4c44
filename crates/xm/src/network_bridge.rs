//! `network-bridge`: a bridge over the host's uplink for guests with `bridge=xenbr0`, as xend's
//! script of that name made it.

use clap::ArgMatches;
use control::Dirs;
use devices::net::setup::bridge::{BridgeError, Bridges, DEFAULT_NAME, State};

use crate::error::Error;
use crate::output::put;

const COMMAND: &str = "network-bridge";

/// The settings behind the action.
struct Settings {
    bridge: String,
    netdev: Option<String>,
}

impl Settings {
    fn read(words: &[String]) -> Result<Self, Error> {
        let mut settings = Self { bridge: DEFAULT_NAME.to_owned(), netdev: None };
        for word in words {
            match word.split_once('=') {
                Some((_, "")) | None => {
                    return Err(Error::usage(COMMAND, format!("'{word}' is not KEY=NAME.")));
                }
                Some(("bridge", name)) => name.clone_into(&mut settings.bridge),
                Some(("netdev", name)) => settings.netdev = Some(name.to_owned()),
                Some((key, _)) => {
                    let text = format!("Unknown setting '{key}': there are bridge and netdev.");
                    return Err(Error::usage(COMMAND, text));
                }
            }
        }
        Ok(settings)
    }
}

/// Runs the command.
pub fn network_bridge(matches: &ArgMatches) -> Result<(), Error> {
    let action = matches.get_one::<String>("action").map_or("status", String::as_str);
    let settings = Settings::read(&crate::words(matches, "setting"))?;
    let dirs = Dirs::from_environment();
    dirs.create()?;
    let mut bridges = Bridges::open(&dirs.runtime)?;
    let Settings { bridge, netdev } = settings;
    match action {
        "start" if matches.get_flag("dry-run") => {
            let (state, steps) = bridges.plan(&bridge, netdev.as_deref(), true)?;
            let steps: String = steps.iter().map(|step| format!("  {step}\n")).collect();
            put(&format!("{} over {}:\n{steps}", state.bridge, state.uplink))?;
        }
        "start" => {
            let state = bridges.start(&bridge, netdev.as_deref())?;
            put(&format!("{} is over {} now{}\n", state.bridge, state.uplink, moved(&state)))?;
        }
        "stop" => {
            let state = bridges.stop(&bridge)?;
            put(&format!("{} is as before{}\n", state.uplink, moved(&state)))?;
        }
        _ => return status(&mut bridges, &bridge),
    }
    Ok(())
}

/// What went to and fro.
fn moved(state: &State) -> String {
    let addresses: Vec<String> = state.addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() { String::new() } else { format!(", with {}", addresses.join(", ")) }
}

fn status(bridges: &mut Bridges<'_>, bridge: &str) -> Result<(), Error> {
    let recorded = bridges.state(bridge)?;
    let there = bridges.ports(bridge)?;
    let text = match (recorded, there) {
        (Some(state), there) => {
            let uplink = &state.uplink;
            let ports = there.map_or_else(Vec::new, |(_, ports)| ports);
            let guests: Vec<String> = ports.into_iter().filter(|port| port != uplink).collect();
            let guests = if guests.is_empty() { "none".to_owned() } else { guests.join(", ") };
            format!("{bridge}: {}, over {uplink}; other ports: {guests}\n", state.phase)
        }
        (None, Some(_)) => format!("{bridge}: there, but not made by {COMMAND}\n"),
        (None, None) => format!("{bridge}: not there\n"),
    };
    put(&text)
}

/// What the user can do about a failure.
pub fn hint(tool: &str, error: &BridgeError) -> Option<String> {
    let denied = |source: &std::io::Error| source.kind() == std::io::ErrorKind::PermissionDenied;
    match error {
        BridgeError::Step { source, .. } if denied(source) => {
            Some("Only root (CAP_NET_ADMIN) may change the host's network.".to_owned())
        }
        BridgeError::Started { bridge, .. } => {
            Some(format!("'{tool} {COMMAND} stop bridge={bridge}' removes it."))
        }
        BridgeError::NotStarted(_) => {
            Some(format!("'{tool} {COMMAND} status' tells what is there."))
        }
        _ => None,
    }
}
