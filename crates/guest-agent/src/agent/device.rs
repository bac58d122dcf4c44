//! Finding and opening the channel's terminal.

use super::store::Store;
use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel makes a console shortly after xenstore tells of it.
const PAUSE: Duration = Duration::from_millis(50);
const TRIES: u32 = 100;
/// Between two looks where the store cannot be asked.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// Waits for the channel and opens it. `given` is a path of the user's.
pub(super) fn open(given: Option<&Path>) -> io::Result<File> {
    if let Some(path) = given {
        return open_path(path);
    }
    match Store::connect() {
        Ok(store) => wait(store),
        // Without other channels it is the first console but one.
        Err(_) => loop {
            match open_path(Path::new("/dev/hvc1")) {
                Ok(file) => return Ok(file),
                Err(_) => std::thread::sleep(LONG_PAUSE),
            }
        },
    }
}

fn wait(mut store: Store) -> io::Result<File> {
    loop {
        if let Some(place) = store.channel()? {
            // Linux numbers consoles as they come, from 0, the first one, on (hvc_console.c).
            let path = PathBuf::from(format!("/dev/hvc{place}"));
            for _ in 0..TRIES {
                match open_path(&path) {
                    Ok(file) => return Ok(file),
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        }
        store.wait()?;
    }
}

/// Opens a terminal and has it pass on bytes as they are.
fn open_path(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(path, flags, Mode::empty())?;
    let mut settings = tcgetattr(&terminal)?;
    settings.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &settings)?;
    Ok(File::from(terminal))
}
