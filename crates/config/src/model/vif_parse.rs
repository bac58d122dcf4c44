//! Network interface specifications: `bridge=xenbr0, mac=00:16:3e:01:02:03`.

use super::spec::{Piece, pieces};
use super::vif::{Mac, PortForward, Protocol, Rate, Vif, VifKind, number};
use crate::error::SpecError;

const KEYS: &[&str] = &[
    "mac",
    "bridge",
    "script",
    "ip",
    "type",
    "model",
    "vifname",
    "backend",
    "rate",
    "ports",
    "accel",
    "policy",
    "label",
    "gatewaydev",
    "netdev",
    "forwarddev",
    "devid",
    "mtu",
    "vlan",
    "trusted",
    "untrusted",
    "antispoof",
];

/// Longest name of a host interface, in bytes (`IFNAMSIZ` less the final zero).
const MAX_INTERFACE_NAME: usize = 15;

impl Vif {
    /// Reads a specification; the empty one is an interface with defaults.
    ///
    /// # Errors
    /// Points at the piece that is wrong.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        let mut vif = Self::default();
        for piece in pieces(spec).filter(|piece| !piece.text.is_empty()) {
            match (piece.text, piece.pair()) {
                ("trusted", _) => piece.set(&mut vif.link.trusted, true)?,
                ("untrusted", _) => piece.set(&mut vif.link.trusted, false)?,
                (_, Some((key, value))) => vif.property(&key, &value)?,
                (text, None) => {
                    let message = format!("`{text}` should be a pair, separated by an equals sign");
                    return Err(piece.error(message).help("write key=value"));
                }
            }
        }
        Ok(vif)
    }

    fn property(&mut self, key: &Piece<'_>, value: &Piece<'_>) -> Result<(), SpecError> {
        // As in xend, a key without a value is as good as not written.
        let empty = value.text.is_empty();
        let link = &mut self.link;
        let (field, name_of_interface) = match key.text {
            known if empty && KEYS.contains(&known) => return Ok(()),
            "mac" => return key.set(&mut self.mac, placed(value, Mac::parse)?),
            "rate" => return key.set(&mut self.rate, placed(value, Rate::parse)?),
            "type" => return key.set(&mut self.kind, kind(value)?),
            "ip" => return addresses(key, value, &mut self.ip),
            "ports" => return forwards(key, value, &mut self.ports),
            "devid" => return key.set(&mut link.devid, bounded(value, 0)?),
            "mtu" => return key.set(&mut link.mtu, bounded(value, 68)?),
            "antispoof" => return key.set(&mut link.antispoof, switch(value)?),
            "trusted" => return key.set(&mut link.trusted, switch(value)?),
            "bridge" => (&mut self.bridge, true),
            "vifname" => (&mut self.vifname, true),
            "gatewaydev" | "netdev" => (&mut link.gatewaydev, true),
            "forwarddev" => (&mut link.forwarddev, true),
            "script" => (&mut self.script, false),
            "model" => (&mut self.model, false),
            "backend" => (&mut self.backend, false),
            "accel" => (&mut link.accel, false),
            "policy" => (&mut link.policy, false),
            "label" => (&mut link.label, false),
            "vlan" => (&mut link.vlan, false),
            unknown => return Err(unknown_key(key, unknown)),
        };
        if name_of_interface {
            check_interface(value)?;
        }
        key.set(field, value.text.to_owned())
    }
}

fn placed<T>(
    value: &Piece<'_>,
    parse: impl FnOnce(&str) -> Result<T, SpecError>,
) -> Result<T, SpecError> {
    parse(value.text).map_err(|error| error.shifted(value.start))
}

fn unknown_key(key: &Piece<'_>, unknown: &str) -> SpecError {
    let error = key.error(format!("Invalid vif option: {unknown}"));
    match crate::keys::nearest(unknown, KEYS.iter().copied()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("known are: {}", KEYS.join(", "))),
    }
}

fn kind(value: &Piece<'_>) -> Result<VifKind, SpecError> {
    match value.text {
        "vif" => Ok(VifKind::Netfront),
        word => VifKind::from_word(word).ok_or_else(|| {
            value.error(format!("`{word}` is not a type of vif")).help("use netfront")
        }),
    }
}

fn switch(value: &Piece<'_>) -> Result<bool, SpecError> {
    match value.text {
        "1" | "yes" => Ok(true),
        "0" | "no" => Ok(false),
        other => Err(value.error(format!("`{other}` is neither 0 nor 1"))),
    }
}

fn bounded(value: &Piece<'_>, least: u16) -> Result<u16, SpecError> {
    number::<u16>(value.text).filter(|n| *n >= least).ok_or_else(|| {
        value.error(format!("`{}` is not a number from {least} to 65535", value.text))
    })
}

/// The host takes interface names up to a length and without `/` and blanks.
fn check_interface(value: &Piece<'_>) -> Result<(), SpecError> {
    let name = value.text;
    let legal = |c: char| c.is_ascii_graphic() && c != '/';
    if name.len() <= MAX_INTERFACE_NAME && name.chars().all(legal) && name != "." && name != ".." {
        return Ok(());
    }
    Err(value
        .error(format!("`{name}` cannot name a network interface"))
        .help(format!("at most {MAX_INTERFACE_NAME} letters, without blanks and `/`")))
}

/// Words with blanks between, each with its place.
fn words<'a>(value: &Piece<'a>) -> Vec<Piece<'a>> {
    let mut at = 0;
    let mut found = Vec::new();
    for raw in value.text.split(' ') {
        if !raw.is_empty() {
            found.push(Piece { text: raw, start: value.start + at });
        }
        at += raw.len() + 1;
    }
    found
}

fn addresses(key: &Piece<'_>, value: &Piece<'_>, into: &mut Vec<String>) -> Result<(), SpecError> {
    if !into.is_empty() {
        return Err(key.error("`ip` is given twice").help("put blanks between addresses"));
    }
    for word in words(value) {
        let (address, length) = word.text.split_once('/').unwrap_or((word.text, "0"));
        let parsed = address.parse::<std::net::IpAddr>().ok();
        let most = parsed.map_or(0, |ip| if ip.is_ipv4() { 32 } else { 128 });
        if parsed.is_none() || number::<u8>(length).is_none_or(|n| n > most) {
            let message = format!("`{}` is neither an address nor a network", word.text);
            return Err(word.error(message).help("write 10.0.0.2 or 10.0.0.0/24"));
        }
        into.push(word.text.to_owned());
    }
    Ok(())
}

fn forwards(
    key: &Piece<'_>,
    value: &Piece<'_>,
    into: &mut Vec<PortForward>,
) -> Result<(), SpecError> {
    if !into.is_empty() {
        return Err(key.error("`ports` is given twice").help("put blanks between ports"));
    }
    for word in words(value) {
        into.push(forward(word.text).ok_or_else(|| {
            word.error(format!("`{}` is not a forwarded port", word.text))
                .help("write HOSTPORT:GUESTPORT, such as 2222:22 or 127.0.0.1:5353:53/udp")
        })?);
    }
    Ok(())
}

fn forward(text: &str) -> Option<PortForward> {
    let (text, protocol) = match text.rsplit_once('/') {
        Some((text, protocol)) => (text, Protocol::from_word(protocol)?),
        None => (text, Protocol::Tcp),
    };
    let (front, guest) = text.rsplit_once(':')?;
    let (address, host) = match front.rsplit_once(':') {
        Some((address, host)) => (Some(address.parse().ok()?), host),
        None => (None, front),
    };
    let port = |digits| number::<u16>(digits).filter(|port| *port > 0);
    Some(PortForward { address, host: port(host)?, guest: port(guest)?, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lecture_vif() {
        let vif = Vif::parse("bridge=xenbr0, mac=00:16:3e:01:02:03").unwrap();
        assert_eq!(vif.bridge.as_deref(), Some("xenbr0"));
        assert_eq!(vif.mac, Some(Mac([0, 0x16, 0x3e, 1, 2, 3])));
        assert_eq!(vif.to_string(), "mac=00:16:3e:01:02:03,bridge=xenbr0");
        assert_eq!(Vif::parse(""), Ok(Vif::default()));
        assert_eq!(Vif::parse("bridge = , model="), Ok(Vif::default()));
    }

    #[test]
    fn rates() {
        for (text, bytes, interval, store) in [
            ("10Mb/s", 1_250_000, 50_000, "62500,50000"),
            ("250KB/s", 250_000, 50_000, "12500,50000"),
            ("1MB/s@20ms", 1_000_000, 20_000, "20000,20000"),
            ("8b/s@1s", 1, 1_000_000, "1,1000000"),
            ("5GB/s@7us", 5_000_000_000, 7, "35000,7"),
        ] {
            let rate = Rate::parse(text).unwrap();
            assert_eq!((rate.bytes_per_second, rate.interval_us), (bytes, interval), "{text}");
            assert_eq!(rate.store_value(), store);
            assert_eq!(Rate::parse(&rate.to_string()), Ok(rate));
        }
        for bad in ["", "10", "10Mb", "0b/s", "-1B/s", "1MB/s@", "1MB/s@0us", "99999999999GB/s"] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn everything_reads_back() {
        let spec = "mac=0:16:3e:0:0:1,bridge=br0,script=vif-route ip=x,ip=10.0.0.2 10.1.0.0/16,\
                    type=vif,model=e1000,vifname=web0,backend=drv,rate=1MB/s,\
                    ports=2222:22 127.0.0.1:53:53/udp,accel=a,policy=p,label=l,netdev=eth0,\
                    forwarddev=f,devid=3,mtu=9000,vlan=10,untrusted,antispoof=yes";
        let vif = Vif::parse(spec).unwrap();
        assert_eq!(vif.properties().len(), 20);
        assert_eq!(Vif::parse(&vif.to_string()), Ok(vif));
    }

    #[test]
    fn faults_point_at_their_piece() {
        for (spec, culprit) in [
            ("bridge=xenbr0,mac=00:16:3e:01:02", "00:16:3e:01:02"),
            ("mac=01:00:5e:00:00:01", "01:00:5e:00:00:01"),
            ("mac=00:00:00:00:00:00", "00:00:00:00:00:00"),
            ("brigde=xenbr0", "brigde"),
            ("bridge=a,xenbr0", "xenbr0"),
            ("ip=10.0.0.2 10.0.0.300", "10.0.0.300"),
            ("ip=10.0.0.0/33", "10.0.0.0/33"),
            ("ports=22:22 0:22", "0:22"),
            ("bridge=a/b", "a/b"),
            ("vifname=abcdefghijklmnop", "abcdefghijklmnop"),
            ("mtu=67", "67"),
            ("bridge=a,bridge=b", "bridge"),
            ("rate=fast", "fast"),
            ("antispoof=maybe", "maybe"),
        ] {
            let error = Vif::parse(spec).unwrap_err();
            assert_eq!(spec.get(error.start..error.end), Some(culprit), "{spec}: {error}");
        }
    }
}
