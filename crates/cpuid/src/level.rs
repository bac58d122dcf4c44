//! Named levels: the same features on every host that has them.

use core::fmt;

/// What a policy starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// All that the host has and guests may have.
    #[default]
    Host = 0,
    /// x86-64-v2 of the psABI: SSE4.2, POPCNT, CMPXCHG16B.
    V2 = 2,
    /// x86-64-v3: AVX2, BMI, FMA.
    V3 = 3,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    V4 = 4,
}

impl Level {
    /// All levels.
    pub const ALL: [Level; 4] = [Level::Host, Level::V2, Level::V3, Level::V4];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Level::Host => "host",
            Level::V2 => "x86-64-v2",
            Level::V3 => "x86-64-v3",
            Level::V4 => "x86-64-v4",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The level of that number; [`Level::Host`] if there is none.
    pub fn from_number(number: u32) -> Level {
        Level::ALL.into_iter().find(|level| *level as u32 == number).unwrap_or_default()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
