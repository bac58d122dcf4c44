//! The settings of Xen's xend, `xend-config.sxp`: what of them there is here.
//!
//! The file is a list of `(key value...)`, with comments from `#` to the end of the line and strings
//! in quotes.

use super::{HostConfig, is_interface};
use crate::diagnostic::{Diagnostic, Level};
use crate::error::Error;
use crate::source::{Fault, Outcome, Source, Span};

/// Deepest nesting read; the files have three levels.
const DEEPEST: usize = 8;
/// Bridge of the script `network-bridge` if it is told no other.
const DEFAULT_BRIDGE: &str = "xenbr0";

/// Keys (or their beginnings) that have no counterpart, and why.
const LEFT: [(&str, &str); 15] = [
    ("xend-relocation-", "domains cannot be migrated yet"),
    ("xend-http-", "xend listens on a Unix socket only"),
    ("xend-unix-", "'xend --path' prints where its socket is"),
    ("xend-tcp-", "xend listens on a Unix socket only"),
    ("xend-port", "xend listens on a Unix socket only"),
    ("xend-address", "xend listens on a Unix socket only"),
    ("xen-api-server", "xend listens on a Unix socket only"),
    ("logfile", "'xm info -c' prints where logs are"),
    ("loglevel", "'xm info -c' prints where logs are"),
    ("dom0-cpus", "Domain-0 is the host itself and has all of its processors"),
    ("enable-dom0-ballooning", "Domain-0 is the host itself: domains take what they use"),
    ("enable-dump", "a crashed domain keeps a report; 'xm dump-core' dumps one that is kept"),
    ("console-limit", "each domain keeps 1 MiB of its console"),
    ("vnc", "there is no graphical console"),
    ("keymap", "there is no graphical console"),
];

/// Settings that were taken over, and those that were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// What was taken over.
    pub host: HostConfig,
    /// Keys that were left, and why.
    pub left: Vec<(String, &'static str)>,
}

/// A setting: the key, its place, its values.
struct Setting {
    key: String,
    span: Span,
    values: Vec<(String, Span)>,
}

pub(super) fn migrate(name: &str, text: &str) -> Result<Migrated, Error> {
    migrated(text).map_err(|fault| {
        let source = Source { name: name.to_owned(), text: text.to_owned() };
        Error::Invalid(vec![Diagnostic::new(Level::Error, *fault, &[source])])
    })
}

fn migrated(text: &str) -> Outcome<Migrated> {
    let mut migrated = Migrated::default();
    let mut from_network = None;
    for setting in read(text)? {
        let first = setting.values.first();
        let value = first.map_or("", |(value, _)| value.as_str());
        match setting.key.as_str() {
            "dom0-min-mem" => {
                let span = first.map_or(setting.span, |(_, span)| *span);
                let wrong =
                    |_| Fault::at(span, format!("`dom0-min-mem` expects a number, got `{value}`"));
                migrated.host.memory.reserve = value.parse().map_err(wrong)?;
            }
            "vif-script" => {
                migrated.host.network.bridge = bridge_of(first, "vif-bridge", None)?;
                if script(value) != "vif-bridge" {
                    migrated.left.push((setting.key, "name scripts in the vif entries (script=)"));
                }
            }
            "network-script" => {
                from_network = bridge_of(first, "network-bridge", Some(DEFAULT_BRIDGE))?;
                migrated.left.push((
                    setting.key,
                    "'xm network-bridge start' sets a bridge up; without one, domains reach out as \
                     programs do",
                ));
            }
            key => {
                let known = LEFT.iter().find(|(start, _)| key.starts_with(start));
                let why = known.map_or("there is no such setting here", |(_, why)| why);
                migrated.left.push((setting.key, why));
            }
        }
    }
    let network = &mut migrated.host.network;
    network.bridge = network.bridge.take().or(from_network);
    Ok(migrated)
}

/// The name of a script, without its folder and arguments.
fn script(value: &str) -> &str {
    let program = value.split_whitespace().next().unwrap_or_default();
    program.rsplit('/').next().unwrap_or_default()
}

/// The bridge that a script is told, or its own default, if it is the script that is meant.
fn bridge_of(
    value: Option<&(String, Span)>,
    meant: &str,
    default: Option<&str>,
) -> Outcome<Option<String>> {
    let Some((value, span)) = value.filter(|(value, _)| script(value) == meant) else {
        return Ok(None);
    };
    let told = value.split_whitespace().find_map(|word| word.strip_prefix("bridge="));
    match told.or(default) {
        Some("null") | None => Ok(None),
        Some(bridge) if is_interface(bridge) => Ok(Some(bridge.to_owned())),
        Some(bridge) => Err(Fault::at(*span, format!("'{bridge}' is no name of a bridge"))),
    }
}

fn read(text: &str) -> Outcome<Vec<Setting>> {
    let mut settings = Vec::new();
    let mut open: Vec<Span> = Vec::new();
    let mut words: Vec<(String, Span)> = Vec::new();
    let mut at = 0;
    while let Some((token, span)) = next(text, at)? {
        at = span.end as usize;
        match token {
            Token::Open if open.len() == DEEPEST => {
                return Err(Fault::at(span, "Too many parentheses within each other"));
            }
            Token::Open => open.push(span),
            Token::Close => {
                if open.pop().is_none() {
                    return Err(Fault::at(span, "There is no parenthesis that this one closes"));
                }
                if open.is_empty() {
                    let mut values = std::mem::take(&mut words);
                    if values.is_empty() {
                        continue;
                    }
                    let (key, span) = values.remove(0);
                    settings.push(Setting { key, span, values });
                }
            }
            Token::Word(word) if open.is_empty() => {
                return Err(Fault::at(span, format!("`{word}` stands outside of parentheses"))
                    .help("a setting is written as (key value)"));
            }
            Token::Word(word) => words.push((word, span)),
        }
    }
    match open.first() {
        Some(span) => Err(Fault::at(*span, "This parenthesis is never closed")),
        None => Ok(settings),
    }
}

enum Token {
    Open,
    Close,
    Word(String),
}

/// The token that begins at or behind `at`.
fn next(text: &str, at: usize) -> Outcome<Option<(Token, Span)>> {
    let mut at = at;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        at += rest.len() - rest.trim_start().len();
        let rest = text.get(at..).unwrap_or_default();
        if !rest.starts_with('#') {
            break;
        }
        at += rest.find('\n').unwrap_or(rest.len());
    }
    let rest = text.get(at..).unwrap_or_default();
    let token = |token, length| Ok(Some((token, Span::new(0, at, at + length))));
    match rest.chars().next() {
        None => Ok(None),
        Some('(') => token(Token::Open, 1),
        Some(')') => token(Token::Close, 1),
        Some(quote @ ('\'' | '"')) => match quoted(rest, quote) {
            Some((word, length)) => token(Token::Word(word), length),
            None => Err(Fault::at(Span::new(0, at, at + 1), "This string is never closed")),
        },
        Some(_) => {
            let is_end = |c: char| c.is_whitespace() || "()'\"#".contains(c);
            let length = rest.find(is_end).unwrap_or(rest.len());
            token(Token::Word(rest.get(..length).unwrap_or_default().to_owned()), length)
        }
    }
}

/// A string in quotes, and how many bytes it takes with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut word = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => word.push(chars.next()?.1),
            c if c == quote => return Some((word, at + c.len_utf8())),
            c => word.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Migrated {
        migrate("xend-config.sxp", text).unwrap()
    }

    fn fault(text: &str) -> String {
        migrate("xend-config.sxp", text).unwrap_err().to_string()
    }

    #[test]
    fn an_old_hosts_settings() {
        let text = "# -*- sh -*-\n\
            #(xend-http-server no)\n\
            (xend-relocation-server yes)\n\
            (xend-relocation-hosts-allow '^localhost$ ^localhost\\\\.localdomain$')\n\
            (network-script 'network-bridge netdev=eth1 bridge=xenbr1')\n\
            (vif-script vif-bridge)\n\
            (dom0-min-mem 196)\n\
            (xen-api-server ((9363 pam '^localhost$') (unix none)))\n\
            (our-own-key)\n";
        let migrated = taken(text);
        assert_eq!(migrated.host.network.bridge.as_deref(), Some("xenbr1"));
        assert_eq!(migrated.host.memory.reserve, 196);
        let left: Vec<&str> = migrated.left.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            left,
            [
                "xend-relocation-server",
                "xend-relocation-hosts-allow",
                "network-script",
                "xen-api-server",
                "our-own-key"
            ]
        );
    }

    #[test]
    fn which_bridge() {
        let bridge = |text: &str| taken(text).host.network.bridge;
        assert_eq!(bridge("(network-script network-bridge)").as_deref(), Some("xenbr0"));
        assert_eq!(bridge("(network-script network-dummy)"), None);
        assert_eq!(bridge("(network-script 'network-bridge bridge=null')"), None);
        let both = "(network-script network-bridge)(vif-script '/x/vif-bridge bridge=br7')";
        assert_eq!(bridge(both).as_deref(), Some("br7"));
        let nat = taken("(vif-script vif-nat)");
        assert_eq!((nat.host.network.bridge, nat.left.len()), (None, 1));
    }

    #[test]
    fn faults_have_a_place() {
        for (text, place, what) in [
            ("(a b\n", "xend-config.sxp:1:1", "never closed"),
            ("(a b))", "xend-config.sxp:1:6", "no parenthesis"),
            ("\nkey value", "xend-config.sxp:2:1", "outside"),
            ("(a 'b)", "xend-config.sxp:1:4", "never closed"),
            ("(dom0-min-mem much)", "xend-config.sxp:1:15", "expects a number"),
            ("(vif-script 'vif-bridge bridge=a/b')", "xend-config.sxp:1:13", "no name"),
            ("((((((((((", "xend-config.sxp:1:9", "Too many"),
        ] {
            let text = fault(text);
            assert!(text.contains(place) && text.contains(what), "{text}");
        }
        assert_eq!(taken("# nothing ("), Migrated::default());
        assert_eq!(taken("()"), Migrated::default());
    }
}
