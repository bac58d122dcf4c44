//! Sizes of files: as the user writes them, and how large a disk has to be.

use std::fmt;
use std::str::FromStr;

const MIB: u64 = 1 << 20;

/// A whole number of MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    mib: u64,
}

impl Size {
    /// The largest that may be asked for: 8 TiB, far below what ext4 and file systems of hosts
    /// hold, so that no later sum overflows.
    pub const MOST: Self = Self { mib: 8 << 20 };

    /// So many MiB.
    pub const fn mib(mib: u64) -> Self {
        Self { mib }
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.mib * MIB
    }

    /// In KiB, the unit that mke2fs takes.
    pub const fn kib(self) -> u64 {
        self.mib * 1024
    }

    /// What a disk needs to hold the files of an archive of `tar` bytes: the files, half of a
    /// block lost on each, inodes, a journal, and a little to start with.
    pub const fn needed(tar: u64) -> Self {
        Self { mib: tar.div_ceil(MIB) * 11 / 10 + 48 }
    }

    /// A disk with room to work: half as much again as is needed, and some, in steps of 64 MiB.
    pub const fn comfortable(tar: u64) -> Self {
        let mib = Self::needed(tar).mib * 3 / 2 + 256;
        Self { mib: mib.next_multiple_of(64) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mib >= 1024 && self.mib.is_multiple_of(1024) {
            write!(f, "{}G", self.mib / 1024)
        } else {
            write!(f, "{}M", self.mib)
        }
    }
}

impl FromStr for Size {
    type Err = String;

    /// Reads `700M`, `2G`, `700` (MiB), `1T`; the letters in either case, `MiB` and `MB` too.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a size; write 700M or 2G (M = MiB, G = GiB)");
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let unit = unit.to_ascii_lowercase();
        let factor = match unit.trim_end_matches('b').trim_end_matches('i') {
            "" if unit.is_empty() => 1,
            "m" => 1,
            "g" => 1024,
            "t" => 1024 * 1024,
            _ => return Err(wrong()),
        };
        match number.checked_mul(factor).map(Self::mib) {
            Some(Self { mib: 0 }) => Err(format!("{wrong}; it cannot be 0", wrong = wrong())),
            Some(size) if size <= Self::MOST => Ok(size),
            _ => Err(format!("'{text}' is more than the most that is taken, 8T")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, mib) in [
            ("700M", 700),
            ("700", 700),
            ("2G", 2048),
            ("1g", 1024),
            ("64MiB", 64),
            ("1T", 1 << 20),
        ] {
            assert_eq!(text.parse(), Ok(Size::mib(mib)), "{text}");
        }
        for text in [
            "",
            "0",
            "0G",
            "-1",
            "1.5G",
            "700X",
            "M",
            "9T",
            "99999999999999999999",
            "7 M",
            "ib",
            "5k",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn shown_as_they_are_read() {
        assert_eq!(Size::mib(700).to_string(), "700M");
        assert_eq!(Size::mib(2048).to_string(), "2G");
        assert_eq!((Size::mib(2).bytes(), Size::mib(2).kib()), (2 << 20, 2048));
    }

    #[test]
    fn a_disk_holds_its_files_with_room() {
        let tar = 350 << 20;
        assert!(Size::needed(tar) > Size::mib(400) && Size::needed(tar) < Size::mib(450));
        let roomy = Size::comfortable(tar);
        assert!(roomy > Size::mib(800) && roomy.bytes().is_multiple_of(64 << 20), "{roomy}");
        assert_eq!(Size::needed(0), Size::mib(48));
    }
}
