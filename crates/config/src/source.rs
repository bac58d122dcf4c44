//! Source texts and places in them.
//!
//! One load reads one file and any number of `key=value` words from the
//! command line; each is a [`Source`], and a [`Span`] names bytes of one.

/// Bytes `start..end` of the source with index `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub source: u32,
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn new(source: u32, start: usize, end: usize) -> Self {
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { source, start: clamp(start), end: clamp(end) }
    }

    /// The bytes from the start of `self` to the end of `other`.
    pub fn to(self, other: Self) -> Self {
        if self.source == other.source && other.end > self.start {
            Self { end: other.end, ..self }
        } else {
            self
        }
    }
}

/// A text with the name shown in messages.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub name: String,
    pub text: String,
}

/// A problem at a place, before the place is turned into line and column.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub span: Option<Span>,
    pub message: String,
    pub help: Option<String>,
}

pub(crate) type Outcome<T> = Result<T, Box<Fault>>;

impl Fault {
    pub fn at(span: Span, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { span: Some(span), message: message.into(), help: None })
    }

    /// A problem of the whole file, such as a key that is missing.
    pub fn nowhere(message: impl Into<String>) -> Box<Self> {
        Box::new(Self { span: None, message: message.into(), help: None })
    }

    pub fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(help.into());
        self
    }
}

impl From<Box<Fault>> for Fault {
    fn from(fault: Box<Fault>) -> Self {
        *fault
    }
}
