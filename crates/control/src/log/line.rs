//! A line of a log, written and read.
//!
//! ```text
//! time=2026-11-22T23:59:59.123Z level=info program=xendomain domid=3 domain=web msg="the guest stopped" reason=poweroff
//! {"time":"2026-11-22T23:59:59.123Z","level":"info","program":"xendomain","domid":3,"domain":"web","msg":"the guest stopped","fields":{"reason":"poweroff"}}
//! ```
//!
//! The first is logfmt: keys in this order, what there is no domain for left out, the details after the
//! message, by name. A value with a blank, `=`, `"` or `\` is a string of JSON. Control characters are
//! escaped in both, so what a guest or a tool brings into a line stays inside its value.

use super::quote;
use super::record::Record;
use config::{LogFormat, LogLevel};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, in UTC, as RFC 3339 writes it.
    pub time: String,
    /// How much it matters.
    pub level: LogLevel,
    /// The program that says so.
    pub program: String,
    /// Number of the domain that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domid: Option<u32>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// What happened, for people.
    #[serde(rename = "msg")]
    pub message: String,
    /// Details by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

impl Line {
    /// What `writer`, about its domain, wrote at that time.
    pub(super) fn new(
        record: Record,
        time: String,
        writer: &str,
        own: Option<(&str, u32)>,
    ) -> Self {
        let own = own.filter(|_| record.domain.is_none() && record.domid.is_none());
        Self {
            time,
            level: record.level,
            program: record.program.unwrap_or(writer).to_owned(),
            domid: own.map(|(_, domid)| domid).or(record.domid),
            domain: own.map(|(name, _)| name.to_owned()).or(record.domain),
            message: record.message,
            fields: record.fields,
        }
    }

    /// The line as files have it, without its end.
    pub fn written(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Text => self.text(),
            // Strings and numbers only: nothing that JSON has not.
            LogFormat::Json => quote::json(&serde_json::to_string(self).unwrap_or_default()),
        }
    }

    fn text(&self) -> String {
        let Self { time, level, program, .. } = self;
        let mut text = format!("time={time} level={level} program={}", quote::value(program));
        if let Some(domid) = self.domid {
            text.push_str(&format!(" domid={domid}"));
        }
        if let Some(domain) = &self.domain {
            text.push_str(&format!(" domain={}", quote::value(domain)));
        }
        text.push_str(&format!(" msg={}", quote::value(&self.message)));
        text + &self.details()
    }

    fn details(&self) -> String {
        let pair = |(name, value): (&String, &String)| format!(" {name}={}", quote::value(value));
        self.fields.iter().map(pair).collect()
    }

    /// The message with its details, on one line.
    pub fn words(&self) -> String {
        quote::message(&self.message) + &self.details()
    }

    /// The line for people.
    pub fn shown(&self) -> String {
        let program = quote::message(&self.program);
        let level = self.level.word();
        let time = quote::message(&self.time);
        format!("{time} {level:<7} {program}{}: {}", self.whom(), self.words())
    }

    /// The domain, after a blank.
    fn whom(&self) -> String {
        let domid = self.domid.map(|domid| format!("[{domid}]"));
        let domain = self.domain.as_deref().map(quote::message);
        match (domain, domid) {
            (None, None) => String::new(),
            (domain, domid) => {
                format!(" {}{}", domain.unwrap_or_default(), domid.unwrap_or_default())
            }
        }
    }

    /// The line for the journal, which knows its time and program.
    pub(super) fn for_journal(&self) -> String {
        let domain = self.whom();
        let domain = domain.trim_start();
        let separator = if domain.is_empty() { "" } else { ": " };
        format!("<{}>{domain}{separator}{}", self.level.priority(), self.words())
    }

    /// Understands a line of a file; `None` if it is no whole line of either format.
    pub fn parse(line: &str) -> Option<Self> {
        if line.starts_with('{') { serde_json::from_str(line).ok() } else { parse_text(line) }
    }
}

fn parse_text(line: &str) -> Option<Line> {
    let mut rest = line;
    // Keys before the message come in their order: whatever follows it is a detail.
    let head = |name: &str, rest: &mut &str| {
        let (value, left) = quote::take_value(rest.strip_prefix(name)?.strip_prefix('=')?)?;
        *rest = left.strip_prefix(' ').unwrap_or(left);
        Some(value)
    };
    let time = head("time", &mut rest)?;
    let level = head("level", &mut rest)?.parse().ok()?;
    let program = head("program", &mut rest)?;
    let domid = match head("domid", &mut rest) {
        Some(domid) => Some(domid.parse().ok()?),
        None => None,
    };
    let domain = head("domain", &mut rest);
    let message = head("msg", &mut rest)?;
    let mut fields = BTreeMap::new();
    while !rest.is_empty() {
        let (name, _) = rest.split_once('=')?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
        if !is_name {
            return None;
        }
        let value = head(name, &mut rest)?;
        fields.insert(name.to_owned(), value);
    }
    Some(Line { time, level, program, domid, domain, message, fields })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line() -> Line {
        Line {
            time: "2026-11-22T23:59:59.123Z".to_owned(),
            level: LogLevel::Info,
            program: "xendomain".to_owned(),
            domid: Some(3),
            domain: Some("web".to_owned()),
            message: "the guest stopped".to_owned(),
            fields: BTreeMap::from([("reason".to_owned(), "poweroff".to_owned())]),
        }
    }

    #[test]
    fn both_formats_are_as_documented() {
        let text = r#"time=2026-11-22T23:59:59.123Z level=info program=xendomain domid=3 domain=web msg="the guest stopped" reason=poweroff"#;
        assert_eq!(line().written(LogFormat::Text), text);
        let json = r#"{"time":"2026-11-22T23:59:59.123Z","level":"info","program":"xendomain","domid":3,"domain":"web","msg":"the guest stopped","fields":{"reason":"poweroff"}}"#;
        assert_eq!(line().written(LogFormat::Json), json);
        assert_eq!((Line::parse(text), Line::parse(json)), (Some(line()), Some(line())));
        let shown =
            "2026-11-22T23:59:59.123Z info    xendomain web[3]: the guest stopped reason=poweroff";
        assert_eq!(line().shown(), shown);
        assert_eq!(line().for_journal(), "<6>web[3]: the guest stopped reason=poweroff");
        let of_host = Line { domid: None, domain: None, ..line() };
        assert_eq!(of_host.for_journal(), "<6>the guest stopped reason=poweroff");
    }

    #[test]
    fn nobody_forges_a_line_or_a_field() {
        let mut forged = line();
        forged.message =
            "x\" reason=crash\n\u{1b}[2Jtime=1 level=error\u{9b}\u{2028}\u{202e}".to_owned();
        for format in LogFormat::ALL {
            let written = forged.written(format);
            assert!(!written.contains(|c: char| c.is_control() || c > '\u{7f}'), "{written:?}");
            assert_eq!(Line::parse(&written).as_ref(), Some(&forged), "{written}");
        }
        assert!(forged.shown().contains(r#": "x\" reason=crash\n\u001b[2J"#), "{}", forged.shown());
    }

    #[test]
    fn other_lines_are_none() {
        for other in [
            "",
            "2026-01-01 00:00:02 dom2 two",
            "thread 'main' panicked at a.rs:1:1:",
            "time=1 level=loud program=x msg=y",
            "time=1 level=info program=x",
            "time=1 level=info program=x msg=\"y",
            "time=1 level=info program=x msg=\"y\"z",
            "time=1 level=info program=x msg=y reason",
            "time=1 level=info program=x msg=y rea\"son=1",
            "time=1 level=info program=x domid=-1 msg=y",
            "{\"time\":1}",
            "{",
        ] {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }

    fn any_line() -> impl Strategy<Value = Line> {
        let level = proptest::sample::select(LogLevel::ALL.to_vec());
        let text = "(?s).*";
        let fields = proptest::collection::btree_map("[a-z]{1,9}", text, 0..4);
        let domain = (proptest::option::of(any::<u32>()), proptest::option::of(text));
        (level, text, domain, text, fields).prop_map(
            |(level, program, (domid, domain), message, fields)| Line {
                time: line().time,
                level,
                program,
                domid,
                domain,
                message,
                fields,
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_one_line_and_is_read_back(line in any_line()) {
            for format in LogFormat::ALL {
                let written = line.written(format);
                prop_assert_eq!(written.lines().count(), 1);
                prop_assert!(!written.contains(char::is_control));
                prop_assert_eq!(Line::parse(&written), Some(line.clone()));
            }
            prop_assert!(!line.shown().contains(char::is_control));
        }

        #[test]
        fn whatever_is_read_does_no_harm(text in "(time=\\S* level=info program=x (msg=)?)?(?s).*") {
            if let Some(line) = Line::parse(&text) {
                prop_assert_eq!(Line::parse(&line.written(LogFormat::Text)), Some(line));
            }
        }
    }
}
