//! Values that a configuration file computes.

use crate::source::Span;
use crate::syntax::text::Text;

/// What a value costs beside its text, in bytes.
pub(crate) const VALUE_COST: usize = 64;

/// A value and where it was made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub data: Data,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
}

impl Value {
    pub fn new(data: Data, span: Span) -> Self {
        Self { data, span }
    }

    /// What a person calls this kind of value.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::None => "None",
            Data::Bool(_) => "True or False",
            Data::Int(_) => "a number",
            Data::Float(_) => "a fraction",
            Data::Text(_) => "a string",
            Data::List(_) => "a list",
            Data::Tuple(_) => "a tuple",
            Data::Dict(_) => "a dictionary",
        }
    }

    /// Python's idea of truth.
    pub fn truth(&self) -> bool {
        match &self.data {
            Data::None => false,
            Data::Bool(value) => *value,
            Data::Int(value) => *value != 0,
            Data::Float(value) => *value != 0.0,
            Data::Text(text) => !text.as_str().is_empty(),
            Data::List(items) | Data::Tuple(items) => !items.is_empty(),
            Data::Dict(pairs) => !pairs.is_empty(),
        }
    }

    /// Rough cost of a copy in bytes.
    pub fn weight(&self) -> usize {
        match &self.data {
            Data::Text(text) => VALUE_COST + text.as_str().len(),
            Data::List(items) | Data::Tuple(items) => {
                VALUE_COST + items.iter().map(Self::weight).sum::<usize>()
            }
            Data::Dict(pairs) => {
                VALUE_COST + pairs.iter().map(|(k, v)| k.weight() + v.weight()).sum::<usize>()
            }
            _ => VALUE_COST,
        }
    }

    /// How deep lists are nested.
    pub fn depth(&self) -> usize {
        match &self.data {
            Data::List(items) | Data::Tuple(items) => {
                1 + items.iter().map(Self::depth).max().unwrap_or(0)
            }
            Data::Dict(pairs) => 1 + pairs.iter().map(|(_, v)| v.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Equality of contents, wherever they were made; numbers compare across kinds.
    pub fn same(&self, other: &Self) -> bool {
        match (&self.data, &other.data) {
            (Data::Text(a), Data::Text(b)) => a.as_str() == b.as_str(),
            (Data::List(a), Data::List(b)) | (Data::Tuple(a), Data::Tuple(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
            }
            (Data::Dict(a), Data::Dict(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(k, v)| b.iter().any(|(l, w)| k.same(l) && v.same(w)))
            }
            (Data::None, Data::None) => true,
            _ => match (self.number(), other.number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }

    /// The value as a floating point number, for comparisons.
    #[allow(clippy::cast_precision_loss, reason = "comparison of configuration numbers")]
    pub fn number(&self) -> Option<f64> {
        match self.data {
            Data::Bool(value) => Some(f64::from(u8::from(value))),
            Data::Int(value) => Some(value as f64),
            Data::Float(value) => Some(value),
            _ => None,
        }
    }

    /// The value as an integer, if it is one.
    pub fn integer(&self) -> Option<i64> {
        match self.data {
            Data::Bool(value) => Some(i64::from(value)),
            Data::Int(value) => Some(value),
            _ => None,
        }
    }

    /// What `str()` and `%s` give for a plain value.
    pub fn plain_text(&self) -> Option<String> {
        match &self.data {
            Data::None => Some("None".to_owned()),
            Data::Bool(true) => Some("True".to_owned()),
            Data::Bool(false) => Some("False".to_owned()),
            Data::Int(value) => Some(value.to_string()),
            Data::Float(value) => Some(format!("{value:?}")),
            Data::Text(text) => Some(text.as_str().to_owned()),
            Data::List(_) | Data::Tuple(_) | Data::Dict(_) => None,
        }
    }
}
