//! Names for guest kernel addresses, from a `System.map`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Largest `System.map` that is read, in bytes.
const MOST: u64 = 64 << 20;

/// Symbols by ascending address.
#[derive(Debug, Default)]
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads the map that belongs to the kernel file `kernel`, if it is there:
    /// `System.map-VERSION` next to `vmlinuz-VERSION`, or `System.map`.
    pub fn beside(kernel: &Path) -> Self {
        Self::candidates(kernel).iter().find_map(|path| Self::read(path)).unwrap_or_default()
    }

    fn candidates(kernel: &Path) -> Vec<PathBuf> {
        let name = kernel.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let versioned = name.split_once('-').map(|(_, version)| format!("System.map-{version}"));
        let names = versioned.into_iter().chain(["System.map".to_owned()]);
        names.map(|name| kernel.with_file_name(name)).collect()
    }

    fn read(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let lines = BufReader::new(file.take(MOST)).lines();
        let mut symbols: Vec<_> =
            lines.map_while(Result::ok).filter_map(|line| Self::line(&line)).collect();
        symbols.sort_by_key(|(address, _)| *address);
        (!symbols.is_empty()).then_some(Self(symbols))
    }

    fn line(line: &str) -> Option<(u64, String)> {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let kind = words.next()?;
        let name: String = words.next()?.chars().filter(|c| !c.is_control()).take(200).collect();
        // Per-CPU offsets look like low addresses.
        (matches!(kind, "t" | "T" | "w" | "W" | "d" | "D" | "b" | "B" | "r" | "R")
            && address >> 63 == 1)
            .then_some((address, name))
    }

    /// `name+0xoffset` for an address, or nothing if no symbol is near.
    pub fn name(&self, address: u64) -> Option<String> {
        let after = self.0.partition_point(|(start, _)| *start <= address);
        let (start, name) = self.0.get(after.checked_sub(1)?)?;
        let offset = address - start;
        (offset < 1 << 20).then(|| format!("{name}+{offset:#x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_names() {
        let base = tempfile::tempdir().unwrap();
        let map = "ffffffff81000000 T _text\nffffffff81000100 t helper\n\
                   0000000000001000 D per_cpu\nnonsense\nffffffff81000200 A absolute\n";
        std::fs::write(base.path().join("System.map-6.1"), map).unwrap();
        let symbols = Symbols::beside(&base.path().join("vmlinuz-6.1"));
        assert_eq!(symbols.name(0xffff_ffff_8100_0000).unwrap(), "_text+0x0");
        assert_eq!(symbols.name(0xffff_ffff_8100_0150).unwrap(), "helper+0x50");
        assert_eq!(symbols.name(0xffff_ffff_80ff_ffff), None);
        assert_eq!(symbols.name(0xffff_ffff_9100_0000), None, "too far away");
        assert!(Symbols::beside(Path::new("/nonexistent/vmlinuz")).name(u64::MAX).is_none());
    }
}
