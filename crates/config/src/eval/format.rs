//! The `%` operator of strings: `"vm%02d" % vmid`.

use super::value::{Data, Value};
use crate::source::{Fault, Outcome, Span};
use crate::syntax::text::Text;

/// Widest field or finest precision.
const MAX_WIDTH: usize = 256;

/// `template % argument`; the result may hold at most `room` bytes.
pub(super) fn percent(template: &Text, span: Span, argument: &Value, room: usize) -> Outcome<Text> {
    let mut job = Job { template, span, argument, next: 0, named: false };
    let text = template.as_str();
    let mut out = Text::verbatim("", span);
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('%')) {
        out.append(&template.slice(at..at + found));
        let (end, piece) = job.directive(at + found)?;
        let place = template.locate(at + found..end, span);
        match piece {
            Piece::Text(piece) => out.append(&piece),
            Piece::Made(piece) => out.push_opaque(&piece, place),
        }
        if out.as_str().len() > room {
            return Err(Fault::at(span, "The formatted string grows too large"));
        }
        at = end;
    }
    out.append(&template.slice(at..text.len()));
    job.all_used()?;
    Ok(out)
}

enum Piece {
    /// A string argument, whose own origin is kept.
    Text(Text),
    Made(String),
}

struct Job<'a> {
    template: &'a Text,
    span: Span,
    argument: &'a Value,
    next: usize,
    named: bool,
}

/// What stands between `%` and the letter.
#[derive(Default)]
struct Options {
    left: bool,
    zero: bool,
    plus: bool,
    hash: bool,
    width: usize,
    precision: Option<usize>,
}

impl Job<'_> {
    fn fault(&self, start: usize, end: usize, message: impl Into<String>) -> Box<Fault> {
        Fault::at(self.template.locate(start..end, self.span), message)
    }

    /// Handles the directive whose `%` is byte `start`; gives its end too.
    fn directive(&mut self, start: usize) -> Outcome<(usize, Piece)> {
        let text = self.template.as_str();
        let mut at = start + 1;
        let mut key = None;
        if text.get(at..).is_some_and(|rest| rest.starts_with('(')) {
            let rest = text.get(at + 1..).unwrap_or_default();
            let Some(length) = rest.find(')') else {
                return Err(self.fault(start, text.len(), "`%(` without its `)`"));
            };
            key = rest.get(..length);
            at += length + 2;
        }
        let (options, at) = self.options(start, at)?;
        let Some(letter) = text.get(at..).and_then(|rest| rest.chars().next()) else {
            return Err(self
                .fault(start, text.len(), "The format ends after `%`")
                .help("write %% for a percent sign"));
        };
        let end = at + letter.len_utf8();
        if letter == '%' {
            return Ok((end, Piece::Made("%".to_owned())));
        }
        let value = self.value(start, end, key)?;
        let piece = match (letter, &value.data) {
            ('s', Data::Text(text)) if options.width == 0 && options.precision.is_none() => {
                Piece::Text(text.clone())
            }
            _ => {
                let made = convert(letter, value, &options)
                    .map_err(|message| self.fault(start, end, message))?;
                Piece::Made(pad(made, &options))
            }
        };
        Ok((end, piece))
    }

    fn options(&self, start: usize, mut at: usize) -> Outcome<(Options, usize)> {
        let text = self.template.as_str();
        let mut options = Options::default();
        let mut chars = text.get(at..).unwrap_or_default().chars().peekable();
        while let Some(flag) = chars.next_if(|c| "-0+ #".contains(*c)) {
            at += 1;
            match flag {
                '-' => options.left = true,
                '0' => options.zero = true,
                '+' => options.plus = true,
                '#' => options.hash = true,
                _ => {}
            }
        }
        while let Some(digit) = chars.next().and_then(|c| c.to_digit(10)) {
            options.width = options.width.saturating_mul(10).saturating_add(digit as usize);
            at += 1;
        }
        if text.get(at..).is_some_and(|rest| rest.starts_with('.')) {
            let digits = text.get(at + 1..).unwrap_or_default();
            let count = digits.bytes().take_while(u8::is_ascii_digit).count();
            let written = digits.get(..count).unwrap_or_default();
            options.precision = Some(match written {
                "" => 0,
                digits => digits.parse().unwrap_or(usize::MAX),
            });
            at += 1 + count;
        }
        if options.width > MAX_WIDTH || options.precision.is_some_and(|p| p > MAX_WIDTH) {
            let message = format!("A field may be {MAX_WIDTH} wide at most");
            return Err(self.fault(start, at, message));
        }
        Ok((options, at))
    }

    fn value(&mut self, start: usize, end: usize, key: Option<&str>) -> Outcome<&Value> {
        let argument = self.argument;
        let found = match (key, &argument.data) {
            (Some(key), Data::Dict(pairs)) => {
                self.named = true;
                let named = |k: &Value| matches!(&k.data, Data::Text(text) if text.as_str() == key);
                pairs.iter().rev().find(|(k, _)| named(k)).map(|(_, value)| value)
            }
            (Some(_), _) => {
                return Err(self.fault(start, end, "`%(name)s` needs a dictionary after `%`"));
            }
            (None, Data::Tuple(items)) => items.get(self.next),
            (None, _) => (self.next == 0).then_some(argument),
        };
        self.next += 1;
        found.ok_or_else(|| self.fault(start, end, "There is no value for this place"))
    }

    fn all_used(&self) -> Outcome<()> {
        let unused = match &self.argument.data {
            Data::Tuple(items) => self.next < items.len(),
            Data::Dict(_) => false,
            _ => self.next == 0,
        };
        if unused && !self.named {
            return Err(Fault::at(self.argument.span, "The format has no place for this value"));
        }
        Ok(())
    }
}

fn convert(letter: char, value: &Value, options: &Options) -> Result<String, String> {
    let signed = |text: String, negative: bool| match (negative, options.plus) {
        (true, _) => format!("-{text}"),
        (false, true) => format!("+{text}"),
        (false, false) => text,
    };
    let based = |prefix: &str, digits: String, negative: bool| {
        signed(format!("{}{digits}", if options.hash { prefix } else { "" }), negative)
    };
    match letter {
        's' | 'r' => {
            let text = match (&value.data, letter) {
                (Data::Text(text), 'r') => format!("'{}'", text.as_str()),
                _ => value.plain_text().ok_or(format!("`%{letter}` cannot take a list"))?,
            };
            Ok(match options.precision {
                Some(most) => text.chars().take(most).collect(),
                None => text,
            })
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let number = whole(value)
                .ok_or_else(|| format!("`%{letter}` needs a number, got {}", value.kind()))?;
            let (size, negative) = (number.unsigned_abs(), number < 0);
            Ok(match letter {
                'x' => based("0x", format!("{size:x}"), negative),
                'X' => based("0X", format!("{size:X}"), negative),
                'o' => based("0", format!("{size:o}"), negative),
                _ => signed(size.to_string(), negative),
            })
        }
        'f' | 'F' => {
            let number = value
                .number()
                .ok_or_else(|| format!("`%{letter}` needs a number, got {}", value.kind()))?;
            let text = format!("{:.*}", options.precision.unwrap_or(6), number.abs());
            Ok(signed(text, number.is_sign_negative()))
        }
        'c' => match &value.data {
            Data::Text(text) if text.as_str().chars().count() == 1 => Ok(text.as_str().to_owned()),
            _ => Err("`%c` needs a string of one character".to_owned()),
        },
        other => Err(format!("`%{other}` is not understood; use %s, %d, %x, %o, %f or %%")),
    }
}

/// Integers, and fractions cut to integers as Python does.
fn whole(value: &Value) -> Option<i64> {
    match value.data {
        #[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
        Data::Float(number) if number.abs() < 9e15 => Some(number.trunc() as i64),
        _ => value.integer(),
    }
}

fn pad(text: String, options: &Options) -> String {
    let missing = options.width.saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    if options.left {
        return text + &" ".repeat(missing);
    }
    let numeric = text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit());
    if options.zero && numeric {
        let digits = text.trim_start_matches(['-', '+']);
        let sign = text.strip_suffix(digits).unwrap_or_default();
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    " ".repeat(missing) + &text
}
