//! What xenstore tells a guest of its channel (io/xs_wire.h, by way of `/dev/xen/xenbus`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

/// `XS_DIRECTORY`, `XS_READ`, `XS_WATCH`, `XS_WATCH_EVENT`.
const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const WATCH: u32 = 4;
const EVENT: u32 = 15;
/// The longest payload (`XENSTORE_PAYLOAD_MAX`).
const LONGEST: usize = 4096;
/// The directory of a guest's consoles, below its own.
const CONSOLES: &str = "device/console";

/// A connection to the store.
pub(super) struct Store(File);

impl Store {
    /// Connects, and watches the guest's consoles.
    pub(super) fn connect() -> io::Result<Self> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        let mut store = Self(open("/dev/xen/xenbus").or_else(|_| open("/proc/xen/xenbus"))?);
        store.ask(WATCH, format!("{CONSOLES}\0channel\0").as_bytes())?;
        Ok(store)
    }

    fn message(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let mut head = [0; 16];
        self.0.read_exact(&mut head)?;
        let word = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        let length = word(12) as usize;
        if length > LONGEST {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok((word(0), payload))
    }

    /// Asks; `None` when the store refuses (there is no such node).
    fn ask(&mut self, kind: u32, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let length = u32::try_from(payload.len()).unwrap_or(0);
        let mut message: Vec<u8> =
            [kind, 0, 0, length].iter().flat_map(|word| word.to_ne_bytes()).collect();
        message.extend_from_slice(payload);
        self.0.write_all(&message)?;
        loop {
            let (answer, payload) = self.message()?;
            if answer != EVENT {
                return Ok((answer == kind).then_some(payload));
            }
        }
    }

    /// Waits until something happens to the guest's consoles.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        while self.message()?.0 != EVENT {}
        Ok(())
    }

    /// Where the channel is among the guest's consoles besides the first, counted from 1.
    pub(super) fn channel(&mut self) -> io::Result<Option<usize>> {
        let listed = self.ask(DIRECTORY, format!("{CONSOLES}\0").as_bytes())?.unwrap_or_default();
        let mut numbers: Vec<u32> = listed
            .split(|byte| *byte == 0)
            .filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok())
            .filter(|number| *number != 0)
            .collect();
        numbers.sort_unstable();
        for (place, number) in numbers.iter().enumerate() {
            let node = format!("{CONSOLES}/{number}/name\0");
            if self.ask(READ, node.as_bytes())?.as_deref() == Some(crate::CHANNEL.as_bytes()) {
                return Ok(Some(place + 1));
            }
        }
        Ok(None)
    }
}
