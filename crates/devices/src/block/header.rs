//! What the header of a qcow2 image says of other files (QEMU's docs/interop/qcow2.txt). The domain
//! process looks at no more of an image than this; the rest is read in the jail.

/// Bytes at the start of an image that hold its header.
pub const LONGEST: usize = 64 << 10;
/// "QFI\xfb".
const MAGIC: u32 = 0x5146_49fb;
/// Header extension: format of the backing file.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Bit of the incompatible features: marked as corrupt.
const CORRUPT: u64 = 1 << 1;
/// Bit of the incompatible features: data in a file of its own.
const EXTERNAL_DATA: u64 = 1 << 2;
/// Most header extensions that are looked at.
const MOST_EXTENSIONS: usize = 64;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The backing file's name.
    pub backing: Option<String>,
    /// The backing file's format.
    pub backing_format: Option<String>,
    /// Why the image cannot be served.
    pub obstacle: Option<&'static str>,
}

impl Header {
    /// Reads the start of an image; `None` if it is no qcow2 image, or a broken one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let version = u32_at(bytes, 4)?;
        if u32_at(bytes, 0)? != MAGIC || !(2..=3).contains(&version) {
            return None;
        }
        let mut header = Self::default();
        let (name_at, name_length) = (u64_at(bytes, 8)?, u32_at(bytes, 16)?);
        if name_at != 0 {
            let start = usize::try_from(name_at).ok()?;
            let end = start.checked_add(usize::try_from(name_length).ok()?)?;
            header.backing = Some(text(bytes.get(start..end)?));
        }
        let (features, length) =
            if version == 2 { (0, 72) } else { (u64_at(bytes, 72)?, u32_at(bytes, 100)?) };
        header.obstacle = if u32_at(bytes, 32)? != 0 {
            Some("it is encrypted")
        } else if features & EXTERNAL_DATA != 0 {
            Some("its data are in another file")
        } else if features & CORRUPT != 0 {
            Some("it is marked as corrupt; 'qemu-img check -r all' repairs it")
        } else {
            None
        };
        header.backing_format = extension(bytes, usize::try_from(length).ok()?, BACKING_FORMAT);
        Some(header)
    }
}

/// The text of a header extension.
fn extension(bytes: &[u8], mut at: usize, wanted: u32) -> Option<String> {
    for _ in 0..MOST_EXTENSIONS {
        let kind = u32_at(bytes, at)?;
        let length = usize::try_from(u32_at(bytes, at.checked_add(4)?)?).ok()?;
        let start = at.checked_add(8)?;
        let end = start.checked_add(length)?;
        if kind == 0 {
            return None;
        }
        if kind == wanted {
            return bytes.get(start..end).map(text);
        }
        at = end.checked_next_multiple_of(8)?;
    }
    None
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[100..104].copy_from_slice(&104u32.to_be_bytes());
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
        bytes[at..at + what.len()].copy_from_slice(what);
    }

    #[test]
    fn backing_file_and_format() {
        let mut bytes = image(3);
        assert_eq!(Header::parse(&bytes), Some(Header::default()));
        put(&mut bytes, 8, &2048u64.to_be_bytes());
        put(&mut bytes, 16, &9u32.to_be_bytes());
        put(&mut bytes, 2048, b"/base.img");
        // Another extension of 5 bytes, padded to 8, before it.
        put(&mut bytes, 104, &[0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 5]);
        put(&mut bytes, 120, &[0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 3]);
        put(&mut bytes, 128, b"raw");
        let found = Header::parse(&bytes).unwrap();
        assert_eq!(found.backing.as_deref(), Some("/base.img"));
        assert_eq!(found.backing_format.as_deref(), Some("raw"));
    }

    #[test]
    fn what_is_broken_or_cannot_be_served() {
        assert_eq!(Header::parse(b""), None);
        assert_eq!(Header::parse(&image(4)), None);
        assert_eq!(Header::parse(&image(3)[..90]), None);
        let mut bytes = image(3);
        put(&mut bytes, 8, &u64::MAX.to_be_bytes());
        assert_eq!(Header::parse(&bytes), None);
        let mut bytes = image(3);
        put(&mut bytes, 79, &[4]);
        assert!(Header::parse(&bytes).unwrap().obstacle.unwrap().contains("another file"));
        let mut bytes = image(2);
        put(&mut bytes, 35, &[1]);
        assert!(Header::parse(&bytes).unwrap().obstacle.unwrap().contains("encrypted"));
        // Endless extensions end.
        let mut bytes = image(3);
        put(&mut bytes, 104, &[1, 1, 1, 1, 255, 255, 255, 255]);
        assert_eq!(Header::parse(&bytes), Some(Header::default()));
    }
}
