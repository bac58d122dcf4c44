//! Channels: byte streams between a program in the guest and one on the host
//! (Xen `docs/misc/channel.txt`; `channel=` of xl.cfg).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::spec::{Piece, pieces};
use crate::error::SpecError;

const KEYS: &[&str] = &["name", "connection", "path", "backend"];

const HELP: &str = "write name=org.example.agent,connection=socket,path=/run/agent.sock";

/// A channel, from a specification such as `name=org.example.agent,connection=pty`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// What programs in the guest find it by.
    pub name: String,
    /// Its end on the host.
    pub connection: Connection,
}

/// The host's end of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// A pseudo-terminal that the domain makes.
    Pty,
    /// A stream socket that the domain makes at this path.
    Socket(String),
}

impl Connection {
    /// The word of the configuration language.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pty => "pty",
            Self::Socket(_) => "socket",
        }
    }
}

impl Channel {
    /// Longest name in bytes.
    pub const LONGEST_NAME: usize = 128;
    /// Longest path of a socket in bytes (unix(7): 108 with the final zero).
    pub const LONGEST_PATH: usize = 107;
    /// The start of names that are Xenolith's own.
    pub const OWN_NAMES: &str = "org.xenolith.";

    /// Reads a specification.
    ///
    /// # Errors
    /// Points at the piece that is wrong.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        let (mut name, mut kind, mut path) = (None, None, None);
        let mut backend = None;
        for piece in pieces(spec).filter(|piece| !piece.text.is_empty()) {
            let Some((key, value)) = piece.pair() else {
                let message =
                    format!("`{}` should be a pair, separated by an equals sign", piece.text);
                return Err(piece.error(message).help("write key=value"));
            };
            match key.text {
                "name" => key.set(&mut name, checked_name(&value)?)?,
                "connection" => key.set(&mut kind, value)?,
                "path" => key.set(&mut path, value)?,
                "backend" => key.set(&mut backend, checked_backend(&value)?)?,
                unknown => return Err(unknown_key(&key, unknown)),
            }
        }
        let whole = |message: &str| SpecError::new(0..spec.len(), message).help(HELP);
        let name = name.ok_or_else(|| whole("The channel has no name"))?;
        let kind = kind.ok_or_else(|| whole("The channel has no connection"))?;
        let connection = match (kind.text.to_ascii_lowercase().as_str(), path) {
            ("pty", None) => Connection::Pty,
            ("pty", Some(path)) => {
                let message = "A channel to a pty has no path";
                return Err(path.error(message).help("the domain chooses a free pseudo-terminal"));
            }
            ("socket", Some(path)) => Connection::Socket(checked_path(&path)?),
            ("socket", None) => return Err(whole("The channel's socket has no path")),
            (other, _) => {
                let message = format!("`{other}` is not a connection of channels");
                return Err(kind.error(message).help("use socket or pty"));
            }
        };
        Ok(Self { name, connection })
    }

    /// Names the socket by a path that is the same from every directory.
    pub fn make_absolute(&mut self) {
        if let Connection::Socket(path) = &mut self.connection
            && let Ok(absolute) = std::path::absolute(&*path)
        {
            *path = absolute.to_string_lossy().into_owned();
        }
    }

    /// Every property, as key and value.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let mut all =
            vec![("name", self.name.clone()), ("connection", self.connection.word().to_owned())];
        if let Connection::Socket(path) = &self.connection {
            all.push(("path", path.clone()));
        }
        all
    }
}

fn checked_name(value: &Piece<'_>) -> Result<String, SpecError> {
    let name = value.text;
    if name.is_empty()
        || name.len() > Channel::LONGEST_NAME
        || !name.bytes().all(|b| b.is_ascii_graphic())
    {
        let message = format!("`{name}` cannot name a channel");
        let most = Channel::LONGEST_NAME;
        let help = format!("1 to {most} letters without blanks, such as org.example.agent");
        return Err(value.error(message).help(help));
    }
    if name.starts_with(Channel::OWN_NAMES) {
        let message = format!("`{name}` is a name of Xenolith's own");
        return Err(value.error(message).help("choose one of a domain of yours"));
    }
    Ok(name.to_owned())
}

fn checked_path(value: &Piece<'_>) -> Result<String, SpecError> {
    let (path, most) = (value.text, Channel::LONGEST_PATH);
    if path.is_empty() || path.len() > most {
        let message = format!("A socket's path has 1 to {most} bytes, not {}", path.len());
        return Err(value.error(message).help("use a directory with a short name, such as /run"));
    }
    Ok(path.to_owned())
}

/// The domain that serves it, which can only be Domain-0.
fn checked_backend(value: &Piece<'_>) -> Result<(), SpecError> {
    match value.text {
        "0" | "Domain-0" => Ok(()),
        other => Err(value
            .error(format!("Domain `{other}` cannot serve channels"))
            .help("driver domains are not provided: leave `backend` out")),
    }
}

fn unknown_key(key: &Piece<'_>, unknown: &str) -> SpecError {
    let error = key.error(format!("`{unknown}` is not a property of a channel"));
    match crate::keys::nearest(unknown, KEYS.iter().copied()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("known are: {}", KEYS.join(", "))),
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self.properties().iter().map(|(k, v)| format!("{k}={v}")).collect();
        f.write_str(&pairs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_read_back() {
        let socket = "name=org.example.agent,connection=socket,path=/run/a b.sock";
        let found = Channel::parse(socket).unwrap();
        assert_eq!(found.name, "org.example.agent");
        assert_eq!(found.connection, Connection::Socket("/run/a b.sock".into()));
        assert_eq!(found.to_string(), socket);
        let found = Channel::parse(" connection = PTY , name = x=y, backend=Domain-0,").unwrap();
        assert_eq!(found.connection, Connection::Pty);
        assert_eq!(Channel::parse(&found.to_string()), Ok(found));
    }

    #[test]
    fn faults_point_at_their_piece() {
        let long = format!("name=x,connection=socket,path=/{}", "a".repeat(107));
        for (spec, culprit) in [
            ("", ""),
            ("connection=pty", "connection=pty"),
            ("name=x", "name=x"),
            ("name=x,connection=socket", "name=x,connection=socket"),
            ("name=x,connection=tcp", "tcp"),
            ("name=x,connection=pty,path=/x", "/x"),
            ("name=x,connection=socket,path=", ""),
            (&long, &long[30..]),
            ("name=,connection=pty", ""),
            ("name=a b,connection=pty", "a b"),
            ("name=org.xenolith.guest,connection=pty", "org.xenolith.guest"),
            ("name=x,name=y,connection=pty", "name"),
            ("name=x,connexion=pty", "connexion"),
            ("name=x,pty", "pty"),
            ("name=x,connection=pty,backend=drv", "drv"),
        ] {
            let error = Channel::parse(spec).unwrap_err();
            assert_eq!(spec.get(error.start..error.end), Some(culprit), "{spec}: {error}");
        }
    }
}
