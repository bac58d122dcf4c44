//! Lines of bounded length with JSON objects in them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};

/// A line that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The other side sent no newline in time.
    #[error("A line is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection ended inside a line.
    #[error("The connection ended in the middle of a line")]
    Torn,
    /// The line is not the JSON object that was expected.
    #[error("A line was not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// Reading failed.
    #[error("Reading failed: {0}")]
    Io(#[from] io::Error),
}

/// Cuts a stream of bytes into lines; works with blocking and non-blocking readers.
#[derive(Debug)]
pub struct LineReader {
    buffer: Vec<u8>,
    limit: usize,
}

impl LineReader {
    /// A reader for lines of at most `limit` bytes, newline included.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), limit }
    }

    /// Reads until a line is complete; `None` when the stream ended between lines.
    ///
    /// # Errors
    /// As [`LineError`] says; a non-blocking reader gives `WouldBlock` until the
    /// rest of the line is there.
    pub fn read<T: DeserializeOwned>(
        &mut self,
        from: &mut impl Read,
    ) -> Result<Option<T>, LineError> {
        loop {
            if let Some(line) = self.take_line()? {
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let mut chunk = [0; 4096];
            match from.read(&mut chunk) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(LineError::Torn),
                Ok(n) => self.buffer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Bytes that were read past the last line.
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer
    }

    fn take_line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n');
        match end {
            Some(end) if end < self.limit => {
                let rest = self.buffer.split_off(end + 1);
                Ok(Some(std::mem::replace(&mut self.buffer, rest)))
            }
            None if self.buffer.len() < self.limit => Ok(None),
            _ => Err(LineError::TooLong { limit: self.limit }),
        }
    }
}

/// Writes `value` as one line.
///
/// # Errors
/// When writing fails.
pub fn write_line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_the_rest_are_kept_apart() {
        let mut reader = LineReader::new(64);
        let mut input: &[u8] = b"[1]\n[2]\nraw";
        assert_eq!(reader.read::<Vec<u8>>(&mut input).unwrap(), Some(vec![1]));
        assert_eq!(reader.read::<Vec<u8>>(&mut input).unwrap(), Some(vec![2]));
        assert_eq!(reader.into_rest(), b"raw");
    }

    #[test]
    fn endless_and_torn_lines_end() {
        let mut reader = LineReader::new(100);
        let mut zeros = io::repeat(b'0');
        assert!(matches!(reader.read::<u8>(&mut zeros), Err(LineError::TooLong { limit: 100 })));
        let mut torn: &[u8] = b"[1";
        assert!(matches!(LineReader::new(9).read::<Vec<u8>>(&mut torn), Err(LineError::Torn)));
        let mut empty: &[u8] = b"";
        assert!(matches!(LineReader::new(9).read::<u8>(&mut empty), Ok(None)));
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes() {
        let mut exact: &[u8] = b"12345\n";
        assert_eq!(LineReader::new(6).read::<u32>(&mut exact).unwrap(), Some(12345));
        let mut over: &[u8] = b"123456\n";
        assert!(LineReader::new(6).read::<u32>(&mut over).is_err());
    }
}
