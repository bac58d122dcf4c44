//! Values by key, checked for their type, with faults collected on the way.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::error::SpecError;
use crate::eval::Namespace;
use crate::eval::value::{Data, Value};
use crate::model::DomainConfig;
use crate::source::{Fault, Outcome, Span};
use crate::syntax::text::Text;

/// Faults reported at once.
const MAX_FAULTS: usize = 20;
/// Elements of one list that are looked at.
const MAX_ELEMENTS: usize = 4096;

/// A string that was read, with its place.
pub(super) struct Word {
    text: Text,
    span: Span,
}

impl Word {
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    pub fn fault(&self, message: impl Into<String>) -> Box<Fault> {
        Fault::at(self.text.locate(0..self.as_str().len(), self.span), message)
    }

    /// The place of a fault inside the string.
    fn spec_fault(&self, error: SpecError) -> Box<Fault> {
        let whole = error.start >= error.end;
        let range = if whole { 0..self.as_str().len() } else { error.start..error.end };
        let mut fault = Fault::at(self.text.locate(range, self.span), error.message);
        fault.help = error.help;
        fault
    }

    pub fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, SpecError>) -> Outcome<T> {
        parse(self.as_str()).map_err(|error| self.spec_fault(error))
    }
}

/// The values of a file by key.
pub(super) struct Fields<'a> {
    names: &'a Namespace,
    faults: Vec<Fault>,
    remarks: Vec<Fault>,
    pub asked: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    pub fn new(names: &'a Namespace) -> Self {
        Self { names, faults: Vec::new(), remarks: Vec::new(), asked: BTreeSet::new() }
    }

    pub fn finish(self, config: Option<DomainConfig>) -> super::Reading {
        match config {
            Some(config) if self.faults.is_empty() => Ok((config, self.remarks)),
            _ => Err(self.faults),
        }
    }

    pub fn refuse(&mut self, fault: impl Into<Fault>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault.into());
        }
    }

    pub fn remark(&mut self, fault: impl Into<Fault>) {
        self.remarks.push(fault.into());
    }

    /// The value, or the fault noted.
    pub fn keep<T>(&mut self, outcome: Outcome<T>) -> Option<T> {
        outcome.map_err(|fault| self.refuse(fault)).ok()
    }

    /// The value of `key`; `None` in the file counts as absent.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.insert(key);
        let entry = self.names.entries.get(key)?;
        (entry.value.data != Data::None).then_some(&entry.value)
    }

    /// Where `key` is set.
    pub fn place(&self, key: &str) -> Option<Span> {
        self.names.entries.get(key).map(|entry| entry.value.span)
    }

    /// A string; numbers are taken as their digits, as xl does. Empty is absent.
    pub fn word(&mut self, key: &'static str) -> Option<Word> {
        let value = self.value(key)?;
        let word = text_of(value).ok_or_else(|| wrong_type(key, "a string", value));
        let word = self.keep(word)?;
        if let Some(fault) = control_character(&word) {
            self.refuse(fault);
            return None;
        }
        (!word.as_str().is_empty()).then_some(word)
    }

    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.word(key).map(|word| word.as_str().to_owned())
    }

    /// A string in which line breaks and tabs count as blanks.
    pub fn line(&mut self, key: &'static str) -> Option<String> {
        let value = self.value(key)?;
        let word = self.keep(text_of(value).ok_or_else(|| wrong_type(key, "a string", value)))?;
        let line = word.as_str().replace(['\n', '\t', '\r'], " ");
        if line.chars().any(char::is_control) {
            self.refuse(word.fault(format!("`{key}` contains a control character")));
            return None;
        }
        (!line.is_empty()).then_some(line)
    }

    /// A string without blanks.
    pub fn atom(&mut self, key: &'static str) -> Option<String> {
        let word = self.word(key)?;
        if word.as_str().contains(char::is_whitespace) {
            self.refuse(word.fault(format!("`{key}` may not contain blanks")));
            return None;
        }
        Some(word.as_str().to_owned())
    }

    /// A string that `parse` understands.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, SpecError>,
    ) -> Option<T> {
        let word = self.word(key)?;
        self.keep(word.parse(parse))
    }

    /// An integer in `range`; `what` names it, as in "a number of MiB".
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
        what: &str,
    ) -> Option<i64> {
        let value = self.value(key)?;
        let outcome = number(key, value, &range, what);
        self.keep(outcome)
    }

    /// The strings of a list.
    pub fn words(&mut self, key: &'static str) -> Vec<Word> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let items = match &value.data {
            Data::List(items) | Data::Tuple(items) => items,
            // An empty string is as good as an empty list.
            Data::Text(text) if text.as_str().is_empty() => return Vec::new(),
            _ => {
                let mut fault = wrong_type(key, "a list of strings", value);
                if let Data::Text(_) = value.data {
                    fault = fault.help("put [ ] around it");
                }
                self.refuse(fault);
                return Vec::new();
            }
        };
        if items.len() > MAX_ELEMENTS {
            self.refuse(Fault::at(value.span, format!("More than {MAX_ELEMENTS} elements")));
        }
        items.iter().take(MAX_ELEMENTS).filter_map(|item| self.element(key, item)).collect()
    }

    fn element(&mut self, key: &str, item: &Value) -> Option<Word> {
        let found = text_of(item).ok_or_else(|| {
            let message = format!("`{key}` expects strings in its list, got {}", item.kind());
            Fault::at(item.span, message)
        });
        let word = self.keep(found)?;
        match control_character(&word) {
            Some(fault) => {
                self.refuse(fault);
                None
            }
            None => Some(word),
        }
    }
}

fn text_of(value: &Value) -> Option<Word> {
    let text = match &value.data {
        Data::Text(text) => text.clone(),
        Data::Int(number) => Text::opaque(number.to_string(), value.span),
        _ => return None,
    };
    Some(Word { text, span: value.span })
}

fn wrong_type(key: &str, wanted: &str, value: &Value) -> Box<Fault> {
    Fault::at(value.span, format!("`{key}` expects {wanted}, got {}", value.kind()))
}

fn control_character(word: &Word) -> Option<Box<Fault>> {
    let (at, c) = word.as_str().char_indices().find(|(_, c)| c.is_control())?;
    let place = word.text.locate(at..at + c.len_utf8(), word.span);
    let message = format!("Control character U+{:04X} in a string", u32::from(c));
    Some(Fault::at(place, message))
}

fn number(key: &str, value: &Value, range: &RangeInclusive<i64>, what: &str) -> Outcome<i64> {
    let found = match &value.data {
        Data::Int(number) => Some(*number),
        Data::Text(text) => crate::syntax::integer(text.as_str().trim()),
        _ => None,
    };
    let Some(number) = found else {
        let mut fault = wrong_type(key, what, value);
        if let Data::List(items) = &value.data
            && let [only] = items.as_slice()
            && let Some(text) = only.plain_text()
        {
            fault = fault.help(format!("write `{key} = {text}`"));
        }
        return Err(fault);
    };
    if range.contains(&number) {
        return Ok(number);
    }
    let (least, most) = (range.start(), range.end());
    let message = format!("`{key}` must be {what} from {least} to {most}, got {number}");
    Err(Fault::at(value.span, message))
}
