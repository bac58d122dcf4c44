//! Name and identity of a domain.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;

/// Longest domain name, in bytes.
pub const MAX_NAME: usize = 128;

/// Name and identity of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct General {
    /// Unique name: see [`check_name`].
    pub name: String,
    /// `uuid`; `None` lets the builder draw one.
    pub uuid: Option<Uuid>,
    /// Free text.
    pub description: Option<String>,
}

/// Checks a domain name: 1 to [`MAX_NAME`] letters, digits and `_ - . : +`.
/// Xen 3.0 also allowed `/`, 4.1 no longer did, and neither do we.
///
/// # Errors
/// Names the first character that is not allowed.
pub fn check_name(name: &str) -> Result<(), SpecError> {
    if name.is_empty() {
        return Err(SpecError::new(0..0, "Missing domain name"));
    }
    if name.len() > MAX_NAME {
        let message = format!("The domain name is longer than {MAX_NAME} bytes");
        return Err(SpecError::new(0..name.len(), message));
    }
    if name == "." || name == ".." {
        return Err(SpecError::new(0..name.len(), "A domain cannot be named like a directory"));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-.:+".contains(c);
    match name.char_indices().find(|(_, c)| !legal(*c)) {
        None => Ok(()),
        Some((at, c)) => {
            Err(SpecError::new(at..at + c.len_utf8(), format!("Invalid domain name `{name}`"))
                .help("use letters, digits and _ - . : +"))
        }
    }
}

/// A 128-bit domain identifier, written as `8-4-4-4-12` hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Reads the usual form; the hyphens may be left out.
    ///
    /// # Errors
    /// Anything but 32 hexadecimal digits in groups of 8-4-4-4-12 or one.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let wrong = || {
            SpecError::new(0..text.len(), format!("`{text}` is not a UUID"))
                .help("expected 32 hexadecimal digits as in 3f6e0c9a-0b51-4f8e-9d5a-0c6a2b8b6d11")
        };
        let groups: Vec<_> = text.split('-').map(str::len).collect();
        if !matches!(groups.as_slice(), [32] | [8, 4, 4, 4, 12]) {
            return Err(wrong());
        }
        let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
        let mut bytes = [0u8; 16];
        for byte in &mut bytes {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(wrong());
            };
            *byte = u8::try_from(high << 4 | low).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.to_string()
    }
}

impl TryFrom<String> for Uuid {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["serv1", "a", "web-1.example:+_", "5"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "a/b", "a b", "ā", ".", "..", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(check_name("ab/c").map_err(|e| (e.start, e.end)), Err((2, 3)));
    }

    #[test]
    fn uuids() {
        let text = "3f6e0c9a-0b51-4f8e-9d5a-0c6a2b8b6d11";
        let uuid = Uuid::parse(text).unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(Uuid::parse(&text.replace('-', "")), Ok(uuid));
        for bad in ["", "3f6e", "3f6e0c9a-0b51-4f8e-9d5a-0c6a2b8b6d1g", "----"] {
            assert!(Uuid::parse(bad).is_err(), "{bad}");
        }
    }
}
