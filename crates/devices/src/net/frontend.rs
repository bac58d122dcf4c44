//! What a frontend says of itself in xenstore: hostile text.

use super::netif::{Gso, GsoKind};
use crate::wire::Nodes;
use std::str::FromStr;

/// Most queues that a frontend may have.
pub const MOST_QUEUES: usize = 4;

/// Why a frontend cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// A node is missing.
    #[error("the frontend wrote no `{0}`")]
    Missing(String),
    /// A node holds something else than a number.
    #[error("the frontend's `{node}` is `{value}`, which is not a number from 0 to {most}")]
    Number {
        /// Its name.
        node: String,
        /// The start of what it holds.
        value: String,
        /// The largest number.
        most: u32,
    },
    /// It wants pages exchanged.
    #[error("the frontend does not ask for packets to be copied (`request-rx-copy` = 1)")]
    NoCopy,
    /// Too many queues, or none.
    #[error("the frontend wants {0} queues: 1 to {MOST_QUEUES} are possible")]
    Queues(u32),
}

/// The rings and ports of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueNodes {
    /// Grant reference of the transmit ring.
    pub tx_ring: u32,
    /// Grant reference of the receive ring.
    pub rx_ring: u32,
    /// Notified when packets were taken from the guest.
    pub tx_port: u32,
    /// Notified when packets are there for the guest.
    pub rx_port: u32,
}

/// What a frontend can receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent features, a node each")]
pub struct Features {
    /// Packets in several pages.
    pub scatter: bool,
    /// Blank checksums of IPv4.
    pub blank4: bool,
    /// Blank checksums of IPv6.
    pub blank6: bool,
    /// TCP over IPv4 yet to be cut into segments.
    pub gso4: bool,
    /// TCP over IPv6 yet to be cut into segments.
    pub gso6: bool,
}

impl Features {
    /// Whether it can receive packets that are to be cut in this way.
    pub fn takes(&self, gso: Gso) -> bool {
        match gso.kind {
            GsoKind::Tcp4 => self.gso4,
            GsoKind::Tcp6 => self.gso6,
        }
    }
}

/// A frontend's nodes, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// At least one.
    pub queues: Vec<QueueNodes>,
    /// What it can receive.
    pub features: Features,
}

fn number<T: FromStr>(nodes: &Nodes, node: &str, most: u32) -> Result<Option<T>, FrontendError> {
    let Some(value) = nodes.get(node) else { return Ok(None) };
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = value.parse::<u32>().ok().filter(|number| digits && *number <= most);
    let number = parsed.and_then(|_| value.parse().ok());
    number.map(Some).ok_or_else(|| FrontendError::Number {
        node: node.to_owned(),
        value: value.chars().take(32).collect(),
        most,
    })
}

fn flag(nodes: &Nodes, node: &str) -> Result<bool, FrontendError> {
    Ok(number::<u32>(nodes, node, u32::MAX)?.unwrap_or(0) != 0)
}

impl QueueNodes {
    fn parse(nodes: &Nodes, prefix: &str) -> Result<Self, FrontendError> {
        let get = |name: &str, most| number::<u32>(nodes, &format!("{prefix}{name}"), most);
        let need = |name: &str, most| {
            get(name, most)?.ok_or_else(|| FrontendError::Missing(format!("{prefix}{name}")))
        };
        const PORTS: u32 = boundary::CHANNEL_WORDS as u32 * 64 - 1;
        let (tx_port, rx_port) = match get("event-channel", PORTS)? {
            Some(port) => (port, port),
            None => (need("event-channel-tx", PORTS)?, need("event-channel-rx", PORTS)?),
        };
        let ring = |name| need(name, u32::MAX);
        Ok(Self { tx_ring: ring("tx-ring-ref")?, rx_ring: ring("rx-ring-ref")?, tx_port, rx_port })
    }
}

impl Frontend {
    /// Reads a frontend's directory.
    ///
    /// # Errors
    /// As [`FrontendError`] says.
    pub fn parse(nodes: &Nodes) -> Result<Self, FrontendError> {
        if !flag(nodes, "request-rx-copy")? {
            return Err(FrontendError::NoCopy);
        }
        let count = number(nodes, "multi-queue-num-queues", u32::MAX)?.unwrap_or(1);
        if count == 0 || count as usize > MOST_QUEUES {
            return Err(FrontendError::Queues(count));
        }
        let queues = if count == 1 && !nodes.contains_key("queue-0/tx-ring-ref") {
            vec![QueueNodes::parse(nodes, "")?]
        } else {
            (0..count)
                .map(|queue| QueueNodes::parse(nodes, &format!("queue-{queue}/")))
                .collect::<Result<_, _>>()?
        };
        let scatter = flag(nodes, "feature-sg")?;
        let blank4 = !flag(nodes, "feature-no-csum-offload")?;
        let blank6 = flag(nodes, "feature-ipv6-csum-offload")?;
        let features = Features {
            scatter,
            blank4,
            blank6,
            // What is to be cut has a blank checksum and is large.
            gso4: scatter && blank4 && flag(nodes, "feature-gso-tcpv4")?,
            gso6: scatter && blank6 && flag(nodes, "feature-gso-tcpv6")?,
        };
        Ok(Self { queues, features })
    }
}

/// What this backend can do, for its directory.
pub fn advertised() -> Nodes {
    let queues = MOST_QUEUES.to_string();
    let nodes = [
        ("feature-rx-copy", "1"),
        ("feature-rx-flip", "0"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
        ("feature-split-event-channels", "1"),
        ("multi-queue-max-queues", queues.as_str()),
    ];
    nodes.map(|(node, value)| (node.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(list: &[(&str, &str)]) -> Nodes {
        list.iter().map(|(node, value)| ((*node).to_owned(), (*value).to_owned())).collect()
    }

    const ONE: [(&str, &str); 5] = [
        ("request-rx-copy", "1"),
        ("tx-ring-ref", "8"),
        ("rx-ring-ref", "9"),
        ("event-channel", "12"),
        ("feature-gso-tcpv4", "1"),
    ];

    #[test]
    fn linux_writes_one_queue_or_several() {
        let one = Frontend::parse(&nodes(&ONE)).unwrap();
        let queue = QueueNodes { tx_ring: 8, rx_ring: 9, tx_port: 12, rx_port: 12 };
        assert_eq!(one.queues, [queue]);
        assert!(one.features.blank4 && !one.features.gso4, "nothing large without scatter-gather");

        let mut two = nodes(&[("request-rx-copy", "1"), ("multi-queue-num-queues", "2")]);
        for (name, value) in [("tx-ring-ref", 1), ("rx-ring-ref", 2), ("event-channel-tx", 3)] {
            two.insert(format!("queue-0/{name}"), value.to_string());
            two.insert(format!("queue-1/{name}"), (value + 10).to_string());
        }
        let missing = FrontendError::Missing("queue-0/event-channel-rx".into());
        assert_eq!(Frontend::parse(&two), Err(missing));
        two.insert("queue-0/event-channel-rx".into(), "4".into());
        two.insert("queue-1/event-channel-rx".into(), "14".into());
        let last = QueueNodes { tx_ring: 11, rx_ring: 12, tx_port: 13, rx_port: 14 };
        assert_eq!(Frontend::parse(&two).unwrap().queues[1], last);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let with = |node: &str, value: &str| {
            let mut nodes = nodes(&ONE);
            nodes.insert(node.into(), value.into());
            Frontend::parse(&nodes).unwrap_err().to_string()
        };
        assert!(with("tx-ring-ref", "+8").contains("`tx-ring-ref` is `+8`"));
        assert!(with("rx-ring-ref", "4294967296").contains("not a number"));
        assert!(with("event-channel", "4096").contains("0 to 4095"));
        assert!(with("multi-queue-num-queues", "5").contains("wants 5 queues"));
        assert!(with("multi-queue-num-queues", "0").contains("wants 0 queues"));
        assert!(with("feature-sg", &"x".repeat(4000)).len() < 150);
        assert_eq!(Frontend::parse(&Nodes::new()), Err(FrontendError::NoCopy));
    }
}
