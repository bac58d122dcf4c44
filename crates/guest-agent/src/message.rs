//! What frames say.

/// Kinds of frames. `xm` and the host's end of the channel tell each other the same in packets: a
/// kind, then the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Host to guest, session 0: are you there? Payload: the host's version and 8 bytes that it drew.
    /// Others than before end all sessions.
    Hello = 1,
    /// The answer: the guest's version and the same bytes.
    Ready = 2,
    /// Guest to host, session 0: it is new, all sessions are over.
    Started = 3,
    /// A session begins; payload: a [`crate::request::Request`].
    Open = 4,
    /// To the guest: input. To the host: output.
    Data = 5,
    /// To the host: what a command wrote to its standard error.
    ErrorData = 6,
    /// To the guest: the input is over; payload: how many bytes it was ([`total`]; none from older hosts).
    End = 7,
    /// So many more bytes of data may come (32 bits, little-endian).
    Credit = 8,
    /// To the guest: send the command this signal (one byte).
    Signal = 9,
    /// To the guest: the terminal has another size (rows, columns: 16 bits each, little-endian).
    Resize = 10,
    /// The session is over, whatever it was doing.
    Close = 11,
    /// To the host: it is done. Payload: [`Outcome`].
    Done = 12,
    /// To the host: it cannot be done. Payload: an exit code, and a text.
    Refused = 13,
    /// From the host's end of the channel to `xm`, and never on the channel: [`Link`] (one byte).
    Link = 14,
    /// To the host, right before `Done`: how many bytes of output and of standard error it was ([`totals`]).
    Sent = 15,
    /// To the host, session 0: these came. Payload: the number of the frame that is awaited.
    Came = 16,
    /// To the host, session 0: frames were lost; payload as before. They are to come again from that one on.
    Again = 17,
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        use Kind::{
            Again, Came, Close, Credit, Data, Done, End, ErrorData, Hello, Link, Open, Ready,
            Refused, Resize, Sent, Signal, Started,
        };
        [
            Hello, Ready, Started, Open, Data, ErrorData, End, Credit, Signal, Resize, Close, Done,
            Refused, Link, Sent, Came, Again,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == number)
    }
}

/// How far the channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Link {
    /// The guest's kernel does not use the channel's device.
    NoDriver = 0,
    /// Nobody answers in the guest.
    Silent = 1,
    /// Its agent answers.
    Up = 2,
    /// Its agent speaks another version of the language.
    Version = 3,
}

impl Link {
    /// The state with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::NoDriver, Self::Silent, Self::Up, Self::Version]
            .into_iter()
            .find(|link| *link as u8 == number)
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this exit code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

impl Outcome {
    /// As it travels.
    pub fn encode(self) -> [u8; 2] {
        match self {
            Self::Exited(code) => [0, code],
            Self::Killed(signal) => [1, signal],
        }
    }

    /// From what came.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        match payload {
            [0, code] => Some(Self::Exited(*code)),
            [1, signal] => Some(Self::Killed(*signal)),
            _ => None,
        }
    }
}

/// The bytes of a [`Kind::Credit`].
pub fn credit(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_le_bytes)
}

/// The number in a [`Kind::Came`] or [`Kind::Again`].
pub fn awaited(payload: &[u8]) -> Option<u16> {
    payload.try_into().ok().map(u16::from_le_bytes)
}

/// How many bytes a stream had, in a [`Kind::End`].
pub fn total(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_le_bytes)
}

/// How many bytes both outputs had, in a [`Kind::Sent`].
pub fn totals(payload: &[u8]) -> Option<[u64; 2]> {
    let (out, err) = payload.split_at_checked(8)?;
    Some([total(out)?, total(err)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds() {
        let known: Vec<u8> = (0..=255).filter(|n| Kind::from_number(*n).is_some()).collect();
        assert_eq!(known, (1..=17).collect::<Vec<u8>>());
        assert!(known.iter().all(|n| Kind::from_number(*n).unwrap() as u8 == *n));
        assert_eq!(Link::from_number(2), Some(Link::Up));
        assert_eq!(Outcome::decode(&Outcome::Killed(9).encode()), Some(Outcome::Killed(9)));
        assert_eq!(Outcome::decode(&[7, 7]), None);
        assert_eq!((credit(&[1, 1, 0, 0]), credit(&[1])), (Some(257), None));
    }
}
