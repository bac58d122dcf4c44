//! What front end and back end tell each other through xenstore (xen-vbd-interface(7), blkif.h).

use super::image::Geometry;
use super::protocol::{MOST_INDIRECT, SECTOR};
use crate::ring::MOST_PAGES;
use crate::wire::{BlockConfig, Nodes};

/// Most queues of a disk.
pub const MOST_QUEUES: usize = 4;

/// `VDISK_*` bits of `info`.
mod info {
    pub const CDROM: u32 = 1;
    pub const READ_ONLY: u32 = 4;
}

/// A ring and its event channel, as the frontend names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingNodes {
    /// Grants of the ring's pages.
    pub references: Vec<u32>,
    /// Event channel.
    pub port: u32,
}

/// What the frontend wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// A ring for each queue.
    pub rings: Vec<RingNodes>,
    /// Its grants stay as they are between requests.
    pub persistent: bool,
}

impl Frontend {
    /// Reads the frontend's nodes.
    ///
    /// # Errors
    /// A sentence on what is wrong with them.
    pub fn parse(nodes: &Nodes) -> Result<Self, String> {
        match nodes.get("protocol").map(String::as_str) {
            None | Some("x86_64-abi") => {}
            Some("x86_32-abi") => {
                return Err("the frontend is a 32-bit one (protocol x86_32-abi); only 64-bit \
                            guests are served"
                    .into());
            }
            Some(other) => {
                return Err(format!("the frontend's protocol is {}, not x86_64-abi", cut(other)));
            }
        }
        let order = optional(nodes, "ring-page-order")?.unwrap_or(0);
        let most = MOST_PAGES.ilog2();
        if order > most {
            return Err(format!("ring-page-order is {order}; at most {most} is offered"));
        }
        let queues = optional(nodes, "multi-queue-num-queues")?;
        let rings = match queues {
            None => vec![ring(nodes, "", order)?],
            Some(count) if (1..=MOST_QUEUES as u32).contains(&count) => {
                // A frontend with one queue may still use the flat names.
                let is_flat = count == 1 && !nodes.contains_key("queue-0/event-channel");
                let prefix = |i| if is_flat { String::new() } else { format!("queue-{i}/") };
                (0..count).map(|i| ring(nodes, &prefix(i), order)).collect::<Result<_, _>>()?
            }
            Some(count) => {
                return Err(format!(
                    "multi-queue-num-queues is {count}; 1 to {MOST_QUEUES} are offered"
                ));
            }
        };
        let persistent = optional(nodes, "feature-persistent")?.unwrap_or(0) != 0;
        Ok(Self { rings, persistent })
    }
}

fn ring(nodes: &Nodes, prefix: &str, order: u32) -> Result<RingNodes, String> {
    let port = number(nodes, &format!("{prefix}event-channel"))?;
    let plain = format!("{prefix}ring-ref");
    let references = if nodes.contains_key("ring-page-order") && !nodes.contains_key(&plain) {
        (0..1u32 << order)
            .map(|i| number(nodes, &format!("{prefix}ring-ref{i}")))
            .collect::<Result<_, _>>()?
    } else if order == 0 {
        vec![number(nodes, &plain)?]
    } else {
        return Err(format!("{plain} is there beside ring-page-order {order}"));
    };
    Ok(RingNodes { references, port })
}

fn optional(nodes: &Nodes, name: &str) -> Result<Option<u32>, String> {
    let Some(text) = nodes.get(name) else { return Ok(None) };
    let number = text.parse().map_err(|_| format!("{name} is `{}`, not a number", cut(text)))?;
    Ok(Some(number))
}

fn number(nodes: &Nodes, name: &str) -> Result<u32, String> {
    optional(nodes, name)?.ok_or_else(|| format!("the frontend's node {name} is missing"))
}

/// What may be shown of a hostile text.
fn cut(text: &str) -> String {
    text.chars().take(32).flat_map(char::escape_default).collect()
}

/// What we offer, before the frontend looks.
pub fn features(config: &BlockConfig, geometry: &Geometry) -> Nodes {
    let mut nodes = Nodes::new();
    let mut put = |name: &str, value: u64| nodes.insert(name.into(), value.to_string());
    put("feature-flush-cache", u64::from(config.writable));
    put("feature-barrier", u64::from(config.writable));
    put("feature-persistent", u64::from(config.persistent));
    put("feature-max-indirect-segments", MOST_INDIRECT as u64);
    put("multi-queue-max-queues", MOST_QUEUES as u64);
    put("max-ring-page-order", u64::from(MOST_PAGES.ilog2()));
    let discards = config.writable && config.discard;
    put("feature-discard", u64::from(discards));
    if discards {
        put("discard-granularity", geometry.discard_granularity.into());
        put("discard-alignment", 0);
        put("discard-secure", 0);
    }
    nodes
}

/// What the disk is, before the state becomes Connected.
pub fn properties(config: &BlockConfig, geometry: &Geometry) -> Nodes {
    let cdrom = if config.cdrom { info::CDROM } else { 0 };
    let read_only = if config.writable { 0 } else { info::READ_ONLY };
    let mut nodes = size(geometry);
    let mut put = |name: &str, value: u32| nodes.insert(name.into(), value.to_string());
    put("info", cdrom | read_only);
    put("sector-size", geometry.sector_size);
    put("physical-sector-size", geometry.physical_sector_size);
    nodes
}

/// What changes when the disk is resized.
pub fn size(geometry: &Geometry) -> Nodes {
    Nodes::from([("sectors".into(), (geometry.bytes / SECTOR).to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(list: &[(&str, &str)]) -> Nodes {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn one_queue_of_one_page() {
        let found = Frontend::parse(&nodes(&[
            ("ring-ref", "8"),
            ("event-channel", "15"),
            ("protocol", "x86_64-abi"),
            ("feature-persistent", "1"),
        ]));
        let ring = RingNodes { references: vec![8], port: 15 };
        assert_eq!(found, Ok(Frontend { rings: vec![ring], persistent: true }));
    }

    #[test]
    fn several_queues_of_several_pages() {
        let found = Frontend::parse(&nodes(&[
            ("multi-queue-num-queues", "2"),
            ("ring-page-order", "1"),
            ("queue-0/ring-ref0", "8"),
            ("queue-0/ring-ref1", "9"),
            ("queue-0/event-channel", "15"),
            ("queue-1/ring-ref0", "10"),
            ("queue-1/ring-ref1", "11"),
            ("queue-1/event-channel", "16"),
        ]));
        let rings = vec![
            RingNodes { references: vec![8, 9], port: 15 },
            RingNodes { references: vec![10, 11], port: 16 },
        ];
        assert_eq!(found, Ok(Frontend { rings, persistent: false }));
    }

    #[test]
    fn hostile_nodes_are_refused_with_a_sentence() {
        let good = [("ring-ref", "8"), ("event-channel", "15")];
        for (name, value, part) in [
            ("protocol", "x86_32-abi", "32-bit"),
            ("protocol", "\u{1b}[31m", "\\u{1b}"),
            ("ring-ref", "-8", "not a number"),
            ("ring-ref", "99999999999", "not a number"),
            ("ring-page-order", "5", "at most 4"),
            ("ring-page-order", "2", "beside"),
            ("multi-queue-num-queues", "0", "1 to 4"),
            ("multi-queue-num-queues", "4294967295", "1 to 4"),
            ("multi-queue-num-queues", "2", "queue-0/event-channel is missing"),
        ] {
            let mut all = nodes(&good);
            all.insert(name.into(), value.into());
            let why = Frontend::parse(&all).unwrap_err();
            assert!(why.contains(part), "{name}={value}: {why}");
        }
        assert!(Frontend::parse(&nodes(&[])).unwrap_err().contains("event-channel is missing"));
    }
}
