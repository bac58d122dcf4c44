//! Disk specifications in xm and xl form.
//!
//! * xm: `UNAME,DEV,MODE[,BACKEND[,PROTOCOL]]`, where UNAME has a prefix
//!   (`phy:`, `file:`, `tap:aio:`, ...).
//! * xl: `TARGET,FORMAT,VDEV,ACCESS` and `key=value` pieces in any order;
//!   `target=` comes last and takes the rest, commas included.
//!
//! A prefix in the first piece means that there is no FORMAT piece, which is
//! xl's rule too.

use super::disk::{
    Disk, DiskAccess, DiskBacking, DiskDevice, DiskFormat, DiskOptions, DiskTransport,
};
use super::spec::{Piece, pieces};
use super::vdev::Vdev;
use crate::error::SpecError;

const KEYS: &[&str] = &[
    "target",
    "format",
    "vdev",
    "access",
    "devtype",
    "backend",
    "backendtype",
    "script",
    "protocol",
    "specification",
    "discard",
    "backing",
];

const HELP: &str = "write file:/path,xvda,w (xm) or /path,raw,xvda,rw (xl)";

/// What the pieces have said so far.
#[derive(Default)]
struct Draft {
    target: Option<String>,
    backing: Option<DiskBacking>,
    format: Option<DiskFormat>,
    vdev: Option<Vdev>,
    access: Option<DiskAccess>,
    device: Option<DiskDevice>,
    backend: Option<String>,
    script: Option<String>,
    protocol: Option<String>,
    options: DiskOptions,
}

/// How the pieces without a key are to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Xm,
    Xl,
}

impl Disk {
    /// Reads a specification in either form.
    ///
    /// # Errors
    /// Points at the piece that is wrong.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        let mut draft = Draft::default();
        let layout = layout(spec);
        let mut position = 0;
        for piece in pieces(spec) {
            if let Some((key, value)) = keyed(&piece) {
                if key.text == "target" {
                    // From here to the end, whatever it holds.
                    let rest = Piece { text: spec.get(value.start..).unwrap_or_default(), ..value };
                    let rest = rest.head(rest.text.len());
                    rest.set(&mut draft.target, path(&rest)?)?;
                    break;
                }
                draft.key(&key, &value)?;
            } else if !draft.flag(&piece)? {
                draft.positional(layout, position, &piece)?;
                position += 1;
            }
        }
        if layout == Layout::Xm && position < 3 && draft.access.is_none() {
            let message = format!("Invalid disk specifier: {spec}");
            return Err(SpecError::new(0..spec.len(), message)
                .help(format!("source, device and mode are needed: {HELP}")));
        }
        draft.finish(spec)
    }
}

/// The form of `spec`, from its first pieces.
fn layout(spec: &str) -> Layout {
    let mut list = pieces(spec);
    let (first, second) = (list.next(), list.next());
    let first = first.map_or("", |piece| piece.text);
    let second = second.map_or("", |piece| piece.text);
    let names_format = second.is_empty() || DiskFormat::from_word(second).is_some();
    let keyed_second = second.contains('=');
    match prefix(first) {
        Some(_) => Layout::Xm,
        None if first.is_empty() && !names_format && !keyed_second => Layout::Xm,
        None => Layout::Xl,
    }
}

/// The word before the first `:` and the rest, if it looks like a prefix.
fn prefix(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(':')?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (!word.is_empty() && word.bytes().all(legal)).then_some((word, rest))
}

fn keyed<'a>(piece: &Piece<'a>) -> Option<(Piece<'a>, Piece<'a>)> {
    let (key, value) = piece.pair()?;
    let word = |b: u8| b.is_ascii_lowercase() || b == b'-' || b == b'_';
    (!key.text.is_empty() && key.text.bytes().all(word)).then_some((key, value))
}

/// A target.
fn path(piece: &Piece<'_>) -> Result<String, SpecError> {
    if piece.text.is_empty() {
        return Err(piece.error("The disk has an empty target").help(HELP));
    }
    Ok(piece.text.to_owned())
}

/// One of `values`, which `list` names for the message.
fn word<T>(piece: &Piece<'_>, what: &str, found: Option<T>, list: &str) -> Result<T, SpecError> {
    found.ok_or_else(|| {
        piece.error(format!("`{}` is not a disk {what}", piece.text)).help(format!("use {list}"))
    })
}

fn format(piece: &Piece<'_>) -> Result<DiskFormat, SpecError> {
    let found = DiskFormat::from_word(piece.text);
    let known = "raw, qcow, qcow2, qed, vhd or vmdk";
    word(piece, "format", found, known).map_err(|error| {
        // `/image,xvda,w` without its prefix is the usual mistake.
        if Vdev::parse(piece.text).is_ok() {
            error.help("xm form: file:/path,xvda,w; xl form: /path,raw,xvda,rw")
        } else {
            error
        }
    })
}

fn access(piece: &Piece<'_>) -> Result<DiskAccess, SpecError> {
    match piece.text {
        "ro" => Ok(DiskAccess::ReadOnly),
        "rw" => Ok(DiskAccess::ReadWrite),
        text => DiskAccess::from_word(text)
            .ok_or_else(|| piece.error(format!("Invalid mode `{text}`")).help("use r, w or w!")),
    }
}

impl Draft {
    fn key(&mut self, key: &Piece<'_>, value: &Piece<'_>) -> Result<(), SpecError> {
        let text = || {
            let missing = || value.error(format!("`{}=` needs a value", key.text));
            if value.text.is_empty() { Err(missing()) } else { Ok(value.text.to_owned()) }
        };
        match key.text {
            "format" => key.set(&mut self.format, format(value)?),
            "vdev" => self.device_name(value),
            "access" => key.set(&mut self.access, access(value)?),
            "devtype" => {
                let found = DiskDevice::from_word(value.text);
                key.set(&mut self.device, word(value, "type", found, "disk or cdrom")?)
            }
            "backend" => key.set(&mut self.backend, text()?),
            "backendtype" => {
                let found = DiskBacking::from_word(value.text);
                let list = "phy, file, tap, qdisk or standalone";
                key.set(&mut self.backing, word(value, "backend type", found, list)?)
            }
            "backing" => {
                self.options.backing_files.push(text()?);
                Ok(())
            }
            "script" => key.set(&mut self.script, text()?),
            "protocol" => key.set(&mut self.protocol, text()?),
            "specification" => {
                let found = DiskTransport::from_word(value.text);
                let found = word(value, "specification", found, "xen or virtio")?;
                key.set(&mut self.options.transport, found)
            }
            unknown => {
                let error = key.error(format!("`{unknown}` is not a property of a disk"));
                Err(match crate::keys::nearest(unknown, KEYS.iter().copied()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help(format!("known are: {}", KEYS.join(", "))),
                })
            }
        }
    }

    /// Handles the words that stand alone; false if `piece` is none.
    fn flag(&mut self, piece: &Piece<'_>) -> Result<bool, SpecError> {
        let options = &mut self.options;
        match piece.text {
            "cdrom" => piece.set(&mut self.device, DiskDevice::Cdrom)?,
            "direct-io-safe" => options.direct_io_safe = true,
            "discard" => piece.set(&mut options.discard, true)?,
            "no-discard" => piece.set(&mut options.discard, false)?,
            "trusted" => piece.set(&mut options.trusted, true)?,
            "untrusted" => piece.set(&mut options.trusted, false)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn positional(
        &mut self,
        layout: Layout,
        position: usize,
        piece: &Piece<'_>,
    ) -> Result<(), SpecError> {
        let empty = piece.text.is_empty();
        match (layout, position) {
            (Layout::Xm, 0) => self.source(piece),
            (Layout::Xl, 0) if !empty => piece.set(&mut self.target, path(piece)?),
            (Layout::Xl, 1) if !empty => piece.set(&mut self.format, format(piece)?),
            (Layout::Xm, 1) | (Layout::Xl, 2) if !empty => self.device_name(piece),
            (Layout::Xm, 2) => piece.set(&mut self.access, access(piece)?),
            (Layout::Xl, 3) if !empty => piece.set(&mut self.access, access(piece)?),
            (Layout::Xm, 3) if !empty => piece.set(&mut self.backend, piece.text.to_owned()),
            (Layout::Xm, 4) if !empty => piece.set(&mut self.protocol, piece.text.to_owned()),
            (Layout::Xm, 5..) | (Layout::Xl, 4..) => {
                Err(piece.error(format!("Nothing is expected here: `{}`", piece.text)).help(HELP))
            }
            _ => Ok(()),
        }
    }

    /// The first piece in the xm form.
    fn source(&mut self, piece: &Piece<'_>) -> Result<(), SpecError> {
        let Some((kind, _)) = prefix(piece.text) else {
            return Ok(());
        };
        let mut rest = piece.tail(kind.len() + 1);
        match kind {
            "phy" => self.backing = Some(DiskBacking::Phy),
            "file" => self.backing = Some(DiskBacking::File),
            "tap" | "tap2" | "tapdisk" => {
                self.backing = Some(DiskBacking::Tap);
                let Some((driver, _)) = prefix(rest.text) else {
                    return Err(rest
                        .error(format!("`{kind}:` needs a driver before the path"))
                        .help("write tap:aio:/path or tap:qcow2:/path"));
                };
                let found = match driver {
                    "aio" | "sync" => Some(DiskFormat::Raw),
                    other => DiskFormat::from_word(other),
                };
                let head = rest.head(driver.len());
                let list = "aio, qcow, qcow2, vmdk, vhd, ram or sync";
                self.format = Some(word(&head, "driver", found, list)?);
                rest = rest.tail(driver.len() + 1);
            }
            "raw" | "qcow" | "qcow2" | "vhd" | "qed" => self.format = DiskFormat::from_word(kind),
            "aio" => self.format = Some(DiskFormat::Raw),
            other => self.script = Some(format!("block-{other}")),
        }
        self.target = Some(path(&rest)?);
        Ok(())
    }

    /// `[ioemu:]NAME[:disk|:cdrom|:tap]`.
    fn device_name(&mut self, piece: &Piece<'_>) -> Result<(), SpecError> {
        let skip = if piece.text.starts_with("ioemu:") { "ioemu:".len() } else { 0 };
        let mut name = piece.tail(skip);
        if let Some((front, kind)) = name.text.rsplit_once(':') {
            let suffix = name.tail(front.len() + 1);
            let list = "disk, cdrom or tap";
            let kind = word(&suffix, "type", DiskDevice::from_word(kind.trim()), list)?;
            suffix.set(&mut self.device, kind)?;
            name = name.head(front.len());
        }
        let vdev = Vdev::parse(name.text).map_err(|error| name.error(error.to_string()))?;
        piece.set(&mut self.vdev, vdev)
    }

    fn finish(self, spec: &str) -> Result<Disk, SpecError> {
        let whole = |message: &str| SpecError::new(0..spec.len(), message).help(HELP);
        let device = self.device.unwrap_or(DiskDevice::Disk);
        if self.target.is_none() && device != DiskDevice::Cdrom {
            return Err(whole("The disk has no target; only a CD drive may be empty"));
        }
        let vdev = self.vdev.ok_or_else(|| whole("The disk has no name in the guest"))?;
        Ok(Disk {
            target: self.target,
            backing: self.backing.unwrap_or(DiskBacking::Auto),
            format: self.format.unwrap_or(DiskFormat::Raw),
            vdev,
            access: self.access.unwrap_or(match device {
                DiskDevice::Cdrom => DiskAccess::ReadOnly,
                _ => DiskAccess::ReadWrite,
            }),
            device,
            backend: self.backend,
            script: self.script,
            protocol: self.protocol,
            options: self.options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(spec: &str) -> Disk {
        Disk::parse(spec).unwrap_or_else(|error| panic!("{spec}: {error}"))
    }

    #[test]
    fn the_lecture_disk() {
        let found = disk("file:/usr/local/serv1.ext3,ioemu:sda1,w");
        assert_eq!(found.target.as_deref(), Some("/usr/local/serv1.ext3"));
        assert_eq!(found.backing, DiskBacking::File);
        assert_eq!((found.vdev.name(), found.vdev.number()), ("sda1", 2049));
        assert_eq!(found.access, DiskAccess::ReadWrite);
        assert_eq!(found.to_string(), "file:/usr/local/serv1.ext3,sda1,w");
    }

    #[test]
    fn xm_forms() {
        let found = disk(" phy:vg/root , /dev/xvda2 , w! , driver, x86_32-abi ");
        assert_eq!(found.target.as_deref(), Some("vg/root"));
        assert_eq!(found.access, DiskAccess::ForcedWrite);
        assert_eq!(found.backend.as_deref(), Some("driver"));
        assert_eq!(found.protocol.as_deref(), Some("x86_32-abi"));
        let found = disk("tap:qcow2:/a/b=c.img,xvda,r");
        assert_eq!((found.backing, found.format), (DiskBacking::Tap, DiskFormat::Qcow2));
        assert_eq!(found.target.as_deref(), Some("/a/b=c.img"));
        let found = disk("nbd:host:10809,xvdb,r");
        assert_eq!(found.script.as_deref(), Some("block-nbd"));
        assert_eq!(found.target.as_deref(), Some("host:10809"));
        let found = disk(",hdc:cdrom,r");
        assert_eq!((found.target, found.device), (None, DiskDevice::Cdrom));
    }

    #[test]
    fn xl_forms() {
        let same = [
            "/dev/vg/guest,raw,xvda,rw",
            "/dev/vg/guest,,xvda",
            "/dev/vg/guest,raw,xvda",
            "format=raw, vdev=xvda, access=rw, target=/dev/vg/guest",
            "raw:/dev/vg/guest,xvda,w",
        ];
        for spec in same {
            assert_eq!(disk(spec), disk(same[0]), "{spec}");
        }
        let found = disk("vdev=hdc,cdrom,access=ro,target=/a,b c.iso");
        assert_eq!(found.target.as_deref(), Some("/a,b c.iso"));
        assert_eq!((found.device, found.access), (DiskDevice::Cdrom, DiskAccess::ReadOnly));
        let found = disk("/i.qcow2,qcow2,xvda,rw,backendtype=qdisk,no-discard,direct-io-safe");
        assert_eq!((found.backing, found.options.discard), (DiskBacking::Qdisk, Some(false)));
        assert!(found.options.direct_io_safe);
        assert_eq!(disk(&found.to_string()), found);
    }

    #[test]
    fn backing_files_of_a_chain() {
        let found = disk("format=qcow2,vdev=xvda,backing=/a.qcow2, backing=/b.img,target=/i.qcow2");
        assert_eq!(found.options.backing_files, ["/a.qcow2", "/b.img"]);
        assert_eq!(disk(&found.to_string()), found);
        assert!(Disk::parse("format=qcow2,vdev=xvda,backing=,target=/i").is_err());
    }

    #[test]
    fn what_the_xm_form_cannot_say_is_shown_with_keys() {
        for piece in ["backend=cdrom", "backend=a=b", "protocol=p", "backend=b,protocol=trusted"] {
            let found = disk(&format!("vdev=xvda,backendtype=phy,{piece},target=/x"));
            assert_eq!(disk(&found.to_string()), found, "{found}");
            assert!(found.to_string().contains(piece), "{found}");
        }
        let found = disk("vdev=xvda,backendtype=phy,backend=b,protocol=p,target=/x");
        assert_eq!(found.to_string(), "phy:/x,xvda,w,b,p");
    }

    #[test]
    fn no_piece_is_left_out() {
        let many = "backing=/b,".repeat(5000);
        let found = disk(&format!("vdev=xvda,format=qcow2,{many}target=/x"));
        assert_eq!(found.options.backing_files.len(), 5000);
        assert_eq!(found.target.as_deref(), Some("/x"));
    }

    #[test]
    fn faults_point_at_their_piece() {
        for (spec, culprit) in [
            ("file:/x,sda1,q", "q"),
            ("file:/x,vda,w", "vda"),
            ("file:/x,sda1", "file:/x,sda1"),
            ("file:/x,sda1:floppy,w", "floppy"),
            ("file:/x,xvda,w,b,p,z", "z"),
            ("/x,xvda,w", "xvda"),
            ("/x,raw,xvda,rw,formt=raw", "formt"),
            ("tap:foo:/x,xvda,w", "foo"),
            ("file:,xvda,w", ""),
            ("vdev=xvda", "vdev=xvda"),
            ("", ""),
        ] {
            let error = Disk::parse(spec).unwrap_err();
            assert_eq!(spec.get(error.start..error.end), Some(culprit), "{spec}: {error}");
        }
    }
}
