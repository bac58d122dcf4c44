//! `block-attach`, `-detach`, `-list`, `-refresh` and `network-attach`, `-detach`, `-list`.

use clap::ArgMatches;
use config::{Disk, HostConfig, Mac, Vif};
use control::{ClientError, DeviceSpec, ErrorCode, Request, kill_point};
use serde_json::Value;

use crate::daemon::{Subject, connect, daemon};
use crate::error::Error;
use crate::output::{harmless, put};
use crate::words;

/// A kind of devices and its columns: header, width, node of the frontend (`/`: of the backend).
struct Kind {
    class: &'static str,
    header: &'static str,
    columns: &'static [(&'static str, usize)],
}

const DISKS: Kind = Kind {
    class: "vbd",
    header: "Vdev  BE handle state evt-ch ring-ref BE-path",
    columns: &[
        ("id", 5),
        ("backend-id", 2),
        ("handle", 6),
        ("state", 5),
        ("event-channel", 6),
        ("ring-ref", 8),
    ],
};
const INTERFACES: Kind = Kind {
    class: "vif",
    header: "Idx BE     MAC Addr.     handle state evt-ch tx-/rx-ring-ref BE-path",
    columns: &[
        ("id", 3),
        ("backend-id", 2),
        ("mac", 17),
        ("handle", 6),
        ("state", 5),
        ("event-channel", 6),
        ("rings", 15),
    ],
};

const CHANNELS: Kind = Kind {
    class: "console",
    header: "Idx BE state evt-ch ring-ref connection params                         name",
    columns: &[("id", 3), ("backend-id", 2), ("state", 5), ("port", 6), ("ring-ref", 8)],
};

fn domain(matches: &ArgMatches) -> &str {
    crate::word(matches, "domain")
}

pub fn device(matches: &ArgMatches) -> &str {
    matches.get_one::<String>("device").map_or("", String::as_str)
}

fn order(word: &str, verb: &'static str, request: &Request) -> Result<(), Error> {
    let (_, mut client) = connect(word, verb)?;
    kill_point("xm.device.connected");
    Ok(client.order(request)?)
}

/// An order about a device, which is named as the user did if the domain does not have it.
fn order_about(matches: &ArgMatches, verb: &'static str, request: &Request) -> Result<(), Error> {
    order(domain(matches), verb, request).map_err(|error| match error {
        Error::Client(ClientError::Refused(failure)) if failure.code == ErrorCode::NotFound => {
            Error::NoDevice { device: device(matches).to_owned() }
        }
        error => error,
    })
}

/// `block-attach D BackDev FrontDev Mode` as xm had it, or `D SPEC` as xl has it.
///
/// # Errors
///
/// When a word is wrong, the domain cannot be reached or refuses; so for all of these.
pub fn block_attach(matches: &ArgMatches) -> Result<(), Error> {
    let command = "block-attach";
    let words = words(matches, "words");
    let spec = match words.as_slice() {
        [spec] => spec.clone(),
        [back, front, mode] => format!("{back},{front},{mode}"),
        [back, front, mode, domain] => format!("{back},{front},{mode},backend={domain}"),
        _ => return Err(Error::usage(command, "Give a disk's backing, its name and its mode.")),
    };
    let mut disk = Disk::parse(&spec)
        .map_err(|error| Error::usage(command, format!("Disk '{spec}': {error}")))?;
    disk.make_absolute();
    let device = Box::new(DeviceSpec::Disk(disk));
    order(domain(matches), "attach a disk to", &Request::DeviceAttach { device })
}

/// `network-attach D [key=value...]`.
///
/// # Errors
///
/// As [`block_attach`].
pub fn network_attach(matches: &ArgMatches) -> Result<(), Error> {
    let command = "network-attach";
    let spec = words(matches, "words").join(",");
    let mut vif = Vif::parse(&spec)
        .map_err(|error| Error::usage(command, format!("Interface '{spec}': {error}")))?;
    HostConfig::load()?.apply_to_vif(&mut vif);
    if vif.link.devid.is_none() {
        vif.link.devid = Some(free_number(domain(matches))?);
    }
    let device = Box::new(DeviceSpec::Vif(Box::new(vif)));
    order(domain(matches), "attach a network interface to", &Request::DeviceAttach { device })
}

/// The lowest number that no interface of the domain has.
fn free_number(word: &str) -> Result<u16, Error> {
    let used: Vec<u16> = listed(word, &INTERFACES)?
        .iter()
        .filter_map(|device| text(device, "id").parse().ok())
        .collect();
    Ok((0..u16::MAX).find(|number| !used.contains(number)).unwrap_or(u16::MAX))
}

/// `block-detach D DevId [-f]`.
///
/// # Errors
///
/// As [`block_attach`].
pub fn block_detach(matches: &ArgMatches) -> Result<(), Error> {
    let number = disk_number(matches, "block-detach")?;
    detach(matches, &DISKS, number)
}

/// `block-refresh D DevId`.
///
/// # Errors
///
/// As [`block_attach`].
pub fn block_refresh(matches: &ArgMatches) -> Result<(), Error> {
    let number = disk_number(matches, "block-refresh")?;
    order_about(matches, "refresh a disk of", &Request::DeviceRefresh { number })
}

pub fn disk_number(matches: &ArgMatches, command: &'static str) -> Result<u32, Error> {
    let word = device(matches);
    let name = word.strip_prefix("/dev/").unwrap_or(word);
    config::vbd_number(name).map_err(|error| Error::usage(command, format!("{error}.")))
}

/// `network-detach D DevId|MAC [-f]`.
///
/// # Errors
///
/// As [`block_attach`].
pub fn network_detach(matches: &ArgMatches) -> Result<(), Error> {
    let word = device(matches);
    let number = match (word.parse::<u32>(), Mac::parse(word)) {
        (Ok(number), _) => Some(number),
        (_, Ok(_)) => listed(domain(matches), &INTERFACES)?
            .iter()
            .find(|device| text(device, "mac").eq_ignore_ascii_case(word))
            .and_then(|device| text(device, "id").parse().ok()),
        _ => {
            let text = format!("'{word}' is neither the number nor the MAC of an interface.");
            return Err(Error::usage("network-detach", text));
        }
    };
    let missing = || Error::NoDevice { device: word.to_owned() };
    detach(matches, &INTERFACES, number.ok_or_else(missing)?)
}

fn detach(matches: &ArgMatches, kind: &Kind, number: u32) -> Result<(), Error> {
    let class = kind.class.to_owned();
    let force = matches.get_flag("force");
    let request = Request::DeviceDetach { class, number, force };
    order_about(matches, "detach a device from", &request)
}

/// `block-list D... [-l] [--json]`.
///
/// # Errors
///
/// As [`block_attach`].
pub fn block_list(matches: &ArgMatches) -> Result<(), Error> {
    list(matches, &DISKS)
}

/// `network-list D... [-l] [--json]`.
///
/// # Errors
///
/// As [`block_attach`].
pub fn network_list(matches: &ArgMatches) -> Result<(), Error> {
    list(matches, &INTERFACES)
}

/// `channel-list D [-l] [--json]`.
///
/// # Errors
///
/// As [`block_attach`].
pub fn channel_list(matches: &ArgMatches) -> Result<(), Error> {
    list(matches, &CHANNELS)
}

fn list(matches: &ArgMatches, kind: &Kind) -> Result<(), Error> {
    let devices = listed(domain(matches), kind)?;
    if matches.get_flag("json") || matches.get_flag("long") {
        return put(&format!("{}\n", serde_json::to_string_pretty(&devices)?));
    }
    if devices.is_empty() {
        return Ok(());
    }
    put(&table(kind, &devices))
}

/// The devices as the two tools list them.
fn table(kind: &Kind, devices: &[Value]) -> String {
    let mut out = format!("{}\n", kind.header);
    for device in devices {
        for (column, width) in kind.columns {
            let value = match *column {
                "rings" => format!(
                    "{:>7} /{:>6}",
                    or_dash(&text(device, "tx-ring-ref")),
                    or_dash(&text(device, "rx-ring-ref"))
                ),
                column => or_dash(&text(device, column)),
            };
            let value = harmless(&value);
            match *column {
                "id" => out.push_str(&format!("{value:<width$} ")),
                _ => out.push_str(&format!("{value:>width$} ")),
            }
        }
        let last = match kind.class {
            // What is at its other end, where that is, and its name.
            "console" => {
                let behind = device.get("backend-nodes").unwrap_or(&Value::Null);
                let place = [text(behind, "path"), text(behind, "tty")].concat();
                let (kind, name) = (text(behind, "connection"), text(behind, "name"));
                format!("{kind:<10} {:<30} {name}", or_dash(&place))
            }
            _ => text(device, "backend"),
        };
        out.push_str(&format!("{}\n", harmless(&last)));
    }
    out
}

fn or_dash(value: &str) -> String {
    if value.is_empty() { "-".to_owned() } else { value.to_owned() }
}

fn text(device: &Value, key: &str) -> String {
    device.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What the store says of a domain's devices.
fn listed(word: &str, kind: &Kind) -> Result<Vec<Value>, Error> {
    let daemon = daemon();
    match Subject::find(&daemon, word)? {
        Subject::Host => Ok(Vec::new()),
        Subject::Domain(domain) => {
            let devices = daemon.devices(&domain.uuid.to_string(), kind.class)?;
            Ok(devices.into_iter().map(Value::Object).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tables_are_those_of_the_reference() {
        let disk = json!({
            "id": "51712", "backend-id": "0", "handle": "0", "state": "4", "event-channel": "8",
            "ring-ref": "16\u{1b}[2J", "backend": "/local/domain/0/backend/vbd/3/51712",
        });
        let empty = json!({"id": "51744", "backend-id": "0", "handle": "0", "state": "1"});
        let expected = "\
Vdev  BE handle state evt-ch ring-ref BE-path
51712  0      0     4      8 16\\x1b[2J /local/domain/0/backend/vbd/3/51712
51744  0      0     1      -        - 
";
        assert_eq!(table(&DISKS, &[disk, empty]), expected);
        let interface = json!({
            "id": "0", "backend-id": "0", "mac": "00:16:3e:00:00:01", "handle": "0", "state": "4",
            "event-channel": "9", "tx-ring-ref": "17", "rx-ring-ref": "18",
            "backend": "/local/domain/0/backend/vif/3/0",
        });
        let expected = "\
Idx BE     MAC Addr.     handle state evt-ch tx-/rx-ring-ref BE-path
0    0 00:16:3e:00:00:01      0     4      9      17 /    18 /local/domain/0/backend/vif/3/0
";
        assert_eq!(table(&INTERFACES, &[interface]), expected);
    }
}
