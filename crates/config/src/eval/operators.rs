//! What the operators do, with Python's results.

use super::format;
use super::value::{Data, Value};
use crate::source::{Fault, Outcome, Span};
use crate::syntax::ast::{BinaryOp, CompareOp};

pub(super) fn binary(
    op: BinaryOp,
    left: Value,
    right: Value,
    span: Span,
    room: usize,
) -> Outcome<Value> {
    match (op, &left.data) {
        (BinaryOp::Add, Data::Text(_) | Data::List(_) | Data::Tuple(_)) => add(left, right, span),
        (BinaryOp::Percent, Data::Text(text)) => {
            let text = format::percent(text, left.span, &right, room)?;
            Ok(Value::new(Data::Text(text), span))
        }
        _ => arithmetic(op, &left, &right, span).map(|data| Value::new(data, span)),
    }
}

/// `+` of two strings or two lists; also `+=`.
pub(super) fn add(left: Value, right: Value, span: Span) -> Outcome<Value> {
    let data = match (left.data, right.data) {
        (Data::Text(mut a), Data::Text(b)) => {
            a.append(&b);
            Data::Text(a)
        }
        (Data::List(mut a), Data::List(b)) => {
            a.extend(b);
            Data::List(a)
        }
        (Data::Tuple(mut a), Data::Tuple(b)) => {
            a.extend(b);
            Data::Tuple(a)
        }
        (a, b) => {
            let left = Value::new(a, left.span);
            let right = Value::new(b, right.span);
            return arithmetic(BinaryOp::Add, &left, &right, span)
                .map(|data| Value::new(data, span));
        }
    };
    Ok(Value::new(data, span))
}

fn arithmetic(op: BinaryOp, left: &Value, right: &Value, span: Span) -> Outcome<Data> {
    if let (Some(a), Some(b)) = (left.integer(), right.integer()) {
        return integers(op, a, b, span);
    }
    if let (Some(a), Some(b)) = (left.number(), right.number()) {
        return fractions(op, a, b, span);
    }
    let (sign, advice) = match op {
        BinaryOp::Add => ("+", "str(x) turns a number into a string"),
        BinaryOp::Subtract => ("-", "both sides must be numbers"),
        BinaryOp::Multiply => ("*", "both sides must be numbers"),
        BinaryOp::Divide => ("/", "both sides must be numbers"),
        BinaryOp::Percent => ("%", "the left side must be a number or a format string"),
    };
    let message = format!("`{sign}` cannot join {} and {}", left.kind(), right.kind());
    Err(Fault::at(span, message).help(advice))
}

fn integers(op: BinaryOp, a: i64, b: i64, span: Span) -> Outcome<Data> {
    let value = match op {
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Subtract => a.checked_sub(b),
        BinaryOp::Multiply => a.checked_mul(b),
        BinaryOp::Divide | BinaryOp::Percent if b == 0 => {
            return Err(Fault::at(span, "Division by zero"));
        }
        BinaryOp::Divide => floor_divide(a, b),
        BinaryOp::Percent => {
            floor_divide(a, b).and_then(|q| q.checked_mul(b)).and_then(|p| a.checked_sub(p))
        }
    };
    value.map(Data::Int).ok_or_else(|| Fault::at(span, "The number does not fit 64 bits"))
}

fn floor_divide(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    let inexact = a.checked_rem(b)? != 0;
    if inexact && ((a < 0) != (b < 0)) { quotient.checked_sub(1) } else { Some(quotient) }
}

fn fractions(op: BinaryOp, a: f64, b: f64, span: Span) -> Outcome<Data> {
    let value = match op {
        BinaryOp::Add => a + b,
        BinaryOp::Subtract => a - b,
        BinaryOp::Multiply => a * b,
        BinaryOp::Divide => a / b,
        BinaryOp::Percent => a - b * (a / b).floor(),
    };
    if value.is_finite() {
        Ok(Data::Float(value))
    } else {
        Err(Fault::at(span, "The result is not a finite number"))
    }
}

pub(super) fn negate(value: &Value, span: Span) -> Outcome<Data> {
    match (value.integer(), value.number()) {
        (Some(number), _) => number
            .checked_neg()
            .map(Data::Int)
            .ok_or_else(|| Fault::at(span, "The number does not fit 64 bits")),
        (None, Some(number)) => Ok(Data::Float(-number)),
        _ => Err(Fault::at(span, format!("`-` cannot stand before {}", value.kind()))),
    }
}

pub(super) fn compare(op: CompareOp, left: &Value, right: &Value) -> Outcome<bool> {
    use std::cmp::Ordering::{Greater, Less};
    match op {
        CompareOp::Equal => return Ok(left.same(right)),
        CompareOp::NotEqual => return Ok(!left.same(right)),
        CompareOp::In => return contains(right, left),
        CompareOp::NotIn => return contains(right, left).map(|found| !found),
        _ => {}
    }
    let order = match (&left.data, &right.data) {
        (Data::Text(a), Data::Text(b)) => Some(a.as_str().cmp(b.as_str())),
        _ => match (left.integer(), right.integer()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => left.number().zip(right.number()).and_then(|(a, b)| a.partial_cmp(&b)),
        },
    };
    let Some(order) = order else {
        let message = format!("{} cannot be compared with {}", left.kind(), right.kind());
        return Err(Fault::at(left.span.to(right.span), message));
    };
    Ok(match op {
        CompareOp::Less => order == Less,
        CompareOp::LessEqual => order != Greater,
        CompareOp::Greater => order == Greater,
        _ => order != Less,
    })
}

fn contains(whole: &Value, part: &Value) -> Outcome<bool> {
    match (&whole.data, &part.data) {
        (Data::Text(whole), Data::Text(part)) => Ok(whole.as_str().contains(part.as_str())),
        (Data::List(items) | Data::Tuple(items), _) => Ok(items.iter().any(|i| i.same(part))),
        (Data::Dict(pairs), _) => Ok(pairs.iter().any(|(key, _)| key.same(part))),
        _ => Err(Fault::at(whole.span, format!("`in` cannot search {}", whole.kind()))),
    }
}

pub(super) fn index(base: Value, index: &Value) -> Outcome<Value> {
    let missing = |span| Fault::at(span, "There is no such element");
    match base.data {
        Data::List(items) | Data::Tuple(items) => {
            let at = position(index, items.len())?;
            items.into_iter().nth(at).ok_or_else(|| missing(index.span))
        }
        Data::Text(text) => {
            let at = position(index, text.as_str().chars().count())?;
            let found = text.as_str().char_indices().nth(at);
            let (start, c) = found.ok_or_else(|| missing(index.span))?;
            Ok(Value::new(Data::Text(text.slice(start..start + c.len_utf8())), base.span))
        }
        Data::Dict(pairs) => {
            let found = pairs.into_iter().rev().find(|(key, _)| key.same(index));
            found.map(|(_, value)| value).ok_or_else(|| missing(index.span))
        }
        data => {
            let kind = Value::new(data, base.span).kind();
            Err(Fault::at(base.span, format!("{kind} has no elements")))
        }
    }
}

/// Negative positions count from the end.
fn position(index: &Value, length: usize) -> Outcome<usize> {
    let wrong = || Fault::at(index.span, format!("Expected a position below {length}"));
    let Data::Int(at) = index.data else {
        return Err(wrong());
    };
    let magnitude = usize::try_from(at.unsigned_abs()).map_err(|_| wrong())?;
    let found = if at < 0 { length.checked_sub(magnitude) } else { Some(magnitude) };
    found.filter(|at| *at < length).ok_or_else(wrong)
}

pub(super) fn to_integer(value: &Value) -> Outcome<Data> {
    let found = match &value.data {
        Data::Text(text) => text.as_str().trim().parse().ok(),
        #[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
        Data::Float(number) if number.abs() < 9e15 => Some(number.trunc() as i64),
        _ => value.integer(),
    };
    let wrong = || Fault::at(value.span, "int() needs a number or a string of digits");
    found.map(Data::Int).ok_or_else(wrong)
}

pub(super) fn length(value: &Value) -> Outcome<Data> {
    let count = match &value.data {
        Data::Text(text) => text.as_str().chars().count(),
        Data::List(items) | Data::Tuple(items) => items.len(),
        Data::Dict(pairs) => pairs.len(),
        _ => return Err(Fault::at(value.span, format!("{} has no length", value.kind()))),
    };
    Ok(Data::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}
