//! Fixed-size little- and big-endian fields at an offset; `None` when they do not fit.

/// The `N` bytes at `at`.
pub(crate) fn array<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

pub(crate) fn le16(data: &[u8], at: usize) -> Option<u16> {
    array(data, at).map(u16::from_le_bytes)
}

pub(crate) fn le32(data: &[u8], at: usize) -> Option<u32> {
    array(data, at).map(u32::from_le_bytes)
}

pub(crate) fn le64(data: &[u8], at: usize) -> Option<u64> {
    array(data, at).map(u64::from_le_bytes)
}

/// A string that ends at its first NUL, or at the end of `data`; bytes that are not printable ASCII
/// become `?`, so that it is safe to show.
pub(crate) fn printable(data: &[u8]) -> String {
    let text = data.split(|&byte| byte == 0).next().unwrap_or_default();
    text.iter()
        .map(|&byte| if byte == b' ' || byte.is_ascii_graphic() { char::from(byte) } else { '?' })
        .collect()
}
