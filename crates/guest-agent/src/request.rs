//! What a session is asked to do.

use crate::frame::MOST_COUNTED;

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

impl Size {
    /// As it travels.
    pub fn encode(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.rows.to_le_bytes(), self.columns.to_le_bytes());
        [a, b, c, d]
    }

    /// From what came.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let [a, b, c, d] = payload else { return None };
        let (rows, columns) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
        Some(Self { rows, columns })
    }
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments.
    pub words: Vec<Vec<u8>>,
    /// `KEY=VALUE`, besides the usual ones.
    pub environment: Vec<Vec<u8>>,
    /// Working directory; empty: root's home.
    pub directory: Vec<u8>,
    /// It is to have a terminal of this size.
    pub terminal: Option<Size>,
}

/// What a session does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run a command.
    Run(Command),
    /// Take a tree of files: [`crate::tree`] comes as input.
    Put {
        /// Where to.
        path: Vec<u8>,
        /// Its name, if `path` is a directory.
        name: Vec<u8>,
    },
    /// Give a tree of files, as output.
    Get {
        /// Which.
        path: Vec<u8>,
    },
}

const RUN: u8 = 1;
const PUT: u8 = 2;
const GET: u8 = 3;

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_list(out: &mut Vec<u8>, list: &[Vec<u8>]) {
    let length = u32::try_from(list.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    list.iter().for_each(|bytes| put_bytes(out, bytes));
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self) -> Option<usize> {
        let bytes = self.take(4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.number()?;
        self.take(length).map(<[u8]>::to_vec)
    }

    fn list(&mut self) -> Option<Vec<Vec<u8>>> {
        let length = self.number()?;
        // Each takes four bytes at least, so that the memory is bounded by what came.
        if length > self.0.len() / 4 {
            return None;
        }
        (0..length).map(|_| self.bytes()).collect()
    }
}

impl Request {
    /// As it travels; `None` if it is longer than a frame.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Run(command) => {
                out.push(RUN);
                put_list(&mut out, &command.words);
                put_list(&mut out, &command.environment);
                put_bytes(&mut out, &command.directory);
                put_bytes(&mut out, &command.terminal.map_or(Vec::new(), |s| s.encode().to_vec()));
            }
            Self::Put { path, name } => {
                out.push(PUT);
                put_bytes(&mut out, path);
                put_bytes(&mut out, name);
            }
            Self::Get { path } => {
                out.push(GET);
                put_bytes(&mut out, path);
            }
        }
        (out.len() <= MOST_COUNTED).then_some(out)
    }

    /// From what came.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first().filter(|_| payload.len() <= MOST_COUNTED)?;
        let mut reader = Reader(rest);
        let request = match *kind {
            RUN => {
                let (words, environment) = (reader.list()?, reader.list()?);
                let (directory, terminal) = (reader.bytes()?, reader.bytes()?);
                let terminal =
                    if terminal.is_empty() { None } else { Some(Size::decode(&terminal)?) };
                if words.is_empty() {
                    return None;
                }
                Self::Run(Command { words, environment, directory, terminal })
            }
            PUT => Self::Put { path: reader.bytes()?, name: reader.bytes()? },
            GET => Self::Get { path: reader.bytes()? },
            _ => return None,
        };
        reader.0.is_empty().then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..20)
    }

    fn request() -> impl Strategy<Value = Request> {
        let size = (any::<u16>(), any::<u16>()).prop_map(|(rows, columns)| Size { rows, columns });
        let list = |least| prop::collection::vec(bytes(), least..5);
        let run = (list(1), list(0), bytes(), prop::option::of(size)).prop_map(
            |(words, environment, directory, terminal)| {
                Request::Run(Command { words, environment, directory, terminal })
            },
        );
        prop_oneof![
            run,
            (bytes(), bytes()).prop_map(|(path, name)| Request::Put { path, name }),
            bytes().prop_map(|path| Request::Get { path }),
        ]
    }

    proptest! {
        #[test]
        fn requests_travel(request in request()) {
            let encoded = request.encode().unwrap();
            prop_assert_eq!(Request::decode(&encoded), Some(request));
            for cut in 0..encoded.len() {
                prop_assert_eq!(Request::decode(&encoded[..cut]), None);
            }
        }

        #[test]
        fn nonsense_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _either = Request::decode(&bytes);
        }
    }

    #[test]
    fn what_no_frame_holds_is_not_encoded() {
        let words = vec![vec![b'x'; MOST_COUNTED]];
        assert_eq!(Request::Run(Command { words, ..Command::default() }).encode(), None);
        assert_eq!(Request::decode(&[1, 255, 255, 255, 255]), None);
    }
}
