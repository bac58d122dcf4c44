//! Virtual CPUs: how many, where they may run, their share.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::CpuidMask;
use super::spec::pieces;
use crate::error::SpecError;

/// Most entries of a CPU list.
const MAX_ITEMS: usize = 256;
/// Highest pCPU or node number that can be named.
const MAX_CPU: u32 = 4095;

/// Virtual CPUs of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus {
    /// vCPUs online at start (`vcpus`), 1 to [`Cpus::MOST`].
    pub online: u32,
    /// vCPUs the domain has (`maxvcpus`), not below `online`.
    pub maximum: u32,
    /// Bit mask of vCPUs that start online (`vcpu_avail`).
    pub available: Option<u64>,
    /// Where they may run (`cpus`, or the old `cpu` for vCPU 0).
    pub affinity: Option<Affinity>,
    /// Where they prefer to run (`cpus_soft`).
    pub soft_affinity: Option<Affinity>,
    /// Credit scheduler parameters.
    pub scheduling: Scheduling,
    /// What the domain sees of the processor.
    #[serde(default)]
    pub cpuid: CpuidMask,
}

impl Cpus {
    /// Most vCPUs of a domain.
    pub const MOST: u32 = 128;
}

/// Allowed pCPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// One list for every vCPU.
    All(CpuList),
    /// One list per vCPU, from vCPU 0.
    PerVcpu(Vec<CpuList>),
}

/// Share of pCPU time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `cpu_weight`, 1 to 65535.
    pub weight: u32,
    /// `cpu_cap` or `cap`: percent of one pCPU, 0 for no limit.
    pub cap: u32,
    /// CPU pool.
    pub pool: Option<String>,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self { weight: Self::DEFAULT_WEIGHT, cap: 0, pool: None }
    }
}

impl Scheduling {
    /// Weight of a domain whose file does not say.
    pub const DEFAULT_WEIGHT: u32 = 256;
}

/// One entry of a CPU list; entries act from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuItem {
    /// `all`.
    All,
    /// `2` or `0-3`; `^` takes them away.
    Range {
        /// First pCPU.
        first: u32,
        /// Last pCPU, included.
        last: u32,
        /// Written with `^`.
        exclude: bool,
    },
    /// `node:1`: the pCPUs of a NUMA node; `^` takes them away.
    Node {
        /// Node number.
        node: u32,
        /// Written with `^`.
        exclude: bool,
    },
}

/// pCPUs in the syntax `0-3,5,^1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuList(Vec<CpuItem>);

impl CpuList {
    /// Reads `all`, `3`, `0-3,5,^1`, `node:0,^node:1`.
    ///
    /// # Errors
    /// Points at the entry that is none of these.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut items = Vec::new();
        for piece in pieces(text) {
            if items.len() >= MAX_ITEMS {
                return Err(SpecError::new(0..text.len(), format!("Over {MAX_ITEMS} entries")));
            }
            items.push(item(piece.text).ok_or_else(|| {
                SpecError::new(piece.range(), format!("`{}` names no CPUs", piece.text))
                    .help("write a list such as 0-3,5,^1, or all, or node:0")
            })?);
        }
        Ok(Self(items))
    }

    /// A list of the single pCPU `cpu`.
    pub fn single(cpu: u32) -> Self {
        Self(vec![CpuItem::Range { first: cpu, last: cpu, exclude: false }])
    }

    /// The entries, to be applied from left to right.
    pub fn items(&self) -> &[CpuItem] {
        &self.0
    }
}

fn item(text: &str) -> Option<CpuItem> {
    if text == "all" {
        return Some(CpuItem::All);
    }
    let (exclude, text) = match text.strip_prefix('^') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let number = |digits: &str| {
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|n| plain && *n <= MAX_CPU)
    };
    if let Some(node) = text.strip_prefix("node:") {
        return number(node).map(|node| CpuItem::Node { node, exclude });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first.trim_end())?, number(last.trim_start())?);
    (first <= last).then_some(CpuItem::Range { first, last, exclude })
}

impl fmt::Display for CpuItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Range { exclude: true, .. } | Self::Node { exclude: true, .. } => {
                f.write_str("^")?;
                self.included().fmt(f)
            }
            Self::Range { first, last, .. } if first == last => write!(f, "{first}"),
            Self::Range { first, last, .. } => write!(f, "{first}-{last}"),
            Self::Node { node, .. } => write!(f, "node:{node}"),
        }
    }
}

impl CpuItem {
    fn included(self) -> Self {
        match self {
            Self::All => self,
            Self::Range { first, last, .. } => Self::Range { first, last, exclude: false },
            Self::Node { node, .. } => Self::Node { node, exclude: false },
        }
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{item}")?;
        }
        Ok(())
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> Self {
        list.to_string()
    }
}

impl TryFrom<String> for CpuList {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_and_print() {
        for text in ["0", "0-3,5,^1", "all", "node:0,^node:1", "all,^3-4"] {
            assert_eq!(CpuList::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(CpuList::parse(" 0 - 3 , ^ 1 ").unwrap().to_string(), "0-3,^1");
        for bad in ["", "a", "3-1", "1,,2", "^all", "-1", "+1", "99999", "^^1"] {
            assert!(CpuList::parse(bad).is_err(), "{bad}");
        }
    }
}
