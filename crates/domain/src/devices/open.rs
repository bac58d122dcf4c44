//! From a configuration's entry to a device whose files are open.

use super::opened::Opened;
use control::{DeviceSpec, Dirs, Entry, ErrorCode, Failure};

/// Opens what a device needs.
///
/// # Errors
/// When it cannot be had; nothing of it is left.
pub fn open(spec: &DeviceSpec, _entry: &Entry, _dirs: &Dirs) -> Result<Opened, Failure> {
    let what = match spec {
        DeviceSpec::Disk(_) => "disks",
        DeviceSpec::Vif(_) => "network interfaces",
    };
    Err(Failure::new(ErrorCode::NotSupported, format!("There are no {what} yet")))
}
