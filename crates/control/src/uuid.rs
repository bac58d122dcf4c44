//! Domain UUIDs.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::str::FromStr;

/// A domain's UUID in the order of its text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(pub [u8; 16]);

/// A text that is no UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no UUID: expected 32 hexadecimal digits as 8-4-4-4-12")]
pub struct UuidError(pub String);

impl Uuid {
    /// A random UUID (RFC 9562, version 4).
    ///
    /// # Errors
    /// When the system's random source cannot be read.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, UuidError> {
        let wrong = || UuidError(text.chars().take(64).collect());
        let dashes = text.bytes().filter(|b| *b == b'-').count();
        let places = [8, 13, 18, 23].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-'));
        if !(dashes == 0 || dashes == 4 && places) {
            return Err(wrong());
        }
        let digits: Vec<u32> = text
            .chars()
            .filter(|c| *c != '-')
            .map(|c| c.to_digit(16).ok_or_else(wrong))
            .collect::<Result<_, _>>()?;
        if digits.len() != 32 {
            return Err(wrong());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |value, digit| value << 4 | *digit as u8);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Uuid {
    type Error = UuidError;

    fn try_from(text: String) -> Result<Self, UuidError> {
        text.parse()
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_goes_both_ways() {
        let uuid = Uuid::random().unwrap();
        assert_eq!(uuid.to_string().parse::<Uuid>().unwrap(), uuid);
        assert_eq!(uuid.to_string().replace('-', "").parse::<Uuid>().unwrap(), uuid);
        assert_ne!(Uuid::random().unwrap(), uuid);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "12", "zz", "0123456-789abcdef-0123-4567-89abcdef0123", &"0".repeat(33)] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }
}
