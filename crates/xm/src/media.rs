//! `block-configure`, `cd-insert` and `cd-eject`: another medium in a drive of a running domain.

use std::time::Duration;

use clap::ArgMatches;
use config::{Disk, vbd_number};
use control::{ClientError, ErrorCode, Request};

use crate::daemon::connect_for;
use crate::error::Error;
use crate::{word, words};

/// How long a change may take: the guest lets go of the drive, and takes it again.
const PATIENCE: Duration = Duration::from_secs(30);

/// `block-configure D BackDev FrontDev Mode [BackDomain]`.
///
/// # Errors
///
/// When a word is wrong, the domain has no such drive, the medium cannot be had, or the guest does not
/// let go of the drive; it keeps its medium then. So for all of these.
pub fn block_configure(matches: &ArgMatches) -> Result<(), Error> {
    let spec = words(matches, "words").join(",");
    // The fourth word is a domain, as in a configuration's entry.
    change(matches, "block-configure", &spec)
}

/// `cd-insert D VIRTUALDEV SPEC`.
///
/// # Errors
///
/// As [`block_configure`].
pub fn cd_insert(matches: &ArgMatches) -> Result<(), Error> {
    change(matches, "cd-insert", &medium(&drive(matches, "cd-insert")?, word(matches, "medium")))
}

/// `cd-eject D VIRTUALDEV`.
///
/// # Errors
///
/// As [`block_configure`].
pub fn cd_eject(matches: &ArgMatches) -> Result<(), Error> {
    change(matches, "cd-eject", &format!(",{}:cdrom,r", drive(matches, "cd-eject")?))
}

/// The name of a drive in the guest.
fn drive(matches: &ArgMatches, command: &'static str) -> Result<String, Error> {
    let word = word(matches, "device");
    let name = word.strip_prefix("/dev/").unwrap_or(word);
    vbd_number(name).map_err(|error| Error::usage(command, format!("{error}.")))?;
    Ok(name.to_owned())
}

/// The specification of a medium: a path, `file:` or `phy:` before one, or `key=value` with `target=`.
fn medium(drive: &str, spec: &str) -> String {
    let keys = format!("vdev={drive},access=r,devtype=cdrom");
    if spec.starts_with("file:") || spec.starts_with("phy:") {
        format!("{spec},{drive}:cdrom,r")
    } else if spec.starts_with("target=") || spec.contains(",target=") {
        format!("{keys},{spec}")
    } else {
        format!("{keys},target={spec}")
    }
}

fn change(matches: &ArgMatches, command: &'static str, spec: &str) -> Result<(), Error> {
    let mut disk = Disk::parse(spec)
        .map_err(|error| Error::usage(command, format!("Disk '{spec}': {error}")))?;
    disk.make_absolute();
    let device = disk.vdev.name().to_owned();
    let (_, mut client) = connect_for(word(matches, "domain"), "change a medium of", PATIENCE)?;
    match client.order(&Request::MediumChange { disk: Box::new(disk) }) {
        Err(ClientError::Refused(failure)) if failure.code == ErrorCode::NotFound => {
            Err(Error::NoDevice { device })
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{DiskAccess, DiskDevice};

    #[test]
    fn media_are_read_only_discs_however_they_are_named() {
        for spec in
            ["/srv/a,b.iso", "file:/srv/a.iso", "format=raw,target=/srv/a.iso", "target=/srv/a"]
        {
            let disk = Disk::parse(&medium("hdc", spec)).unwrap();
            assert_eq!(
                (disk.device, disk.access),
                (DiskDevice::Cdrom, DiskAccess::ReadOnly),
                "{spec}"
            );
            assert_eq!(disk.vdev.name(), "hdc");
            assert!(disk.target.unwrap().starts_with("/srv/a"));
        }
    }
}
