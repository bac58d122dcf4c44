//! Runs the statements of a configuration file.
//!
//! The outcome is a table of names and [`Value`]s; what the names mean is the
//! business of the readers. Work is bounded: every value made is paid for
//! from a budget, so no file of the permitted size can take long or grow big.

mod format;
mod operators;
pub(crate) mod value;

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Fault, Outcome, Span};
use crate::syntax::ast::{Builtin, Expr, ExprKind, Statement, Target};
use crate::syntax::text::Text;
use value::{Data, VALUE_COST, Value};

/// Bytes of values that one file may make, by [`Value::weight`].
const BUDGET: usize = 32 << 20;
/// Deepest nesting of a list value.
const MAX_VALUE_DEPTH: usize = 32;

/// A name, where it was last set, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name_span: Span,
    pub value: Value,
}

/// What a file leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    pub entries: BTreeMap<String, Entry>,
    /// Names that some expression of the file reads, whether it was run or not.
    pub read: BTreeSet<String>,
}

/// Runs `program`; `given` holds the names set before it starts.
pub(crate) fn run(program: &[Statement], given: BTreeMap<String, Entry>) -> Outcome<Namespace> {
    let mut read = BTreeSet::new();
    for statement in program {
        statement.names_read(&mut |name| {
            if !read.contains(name) {
                read.insert(name.to_owned());
            }
        });
    }
    let mut machine = Machine { entries: given, budget: BUDGET };
    machine.block(program)?;
    Ok(Namespace { entries: machine.entries, read })
}

struct Machine {
    entries: BTreeMap<String, Entry>,
    budget: usize,
}

impl Machine {
    fn pay(&mut self, cost: usize, span: Span) -> Outcome<()> {
        match self.budget.checked_sub(cost) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(Fault::at(span, "The values of this file grow too large")
                .help("a configuration is a few lines; check for lists or strings that double")),
        }
    }

    fn block(&mut self, statements: &[Statement]) -> Outcome<()> {
        for statement in statements {
            match statement {
                Statement::Assign { targets, value } => self.assign(targets, value)?,
                Statement::Append { target, value } => self.append(target, value)?,
                Statement::If { arms, otherwise } => self.choose(arms, otherwise)?,
            }
        }
        Ok(())
    }

    fn choose(&mut self, arms: &[(Expr, Vec<Statement>)], otherwise: &[Statement]) -> Outcome<()> {
        for (condition, block) in arms {
            if self.value(condition)?.truth() {
                return self.block(block);
            }
        }
        self.block(otherwise)
    }

    fn assign(&mut self, targets: &[Target], value: &Expr) -> Outcome<()> {
        let value = self.value(value)?;
        for target in targets {
            self.pay(value.weight() + target.name.len(), target.span)?;
            let entry = Entry { name_span: target.span, value: value.clone() };
            self.entries.insert(target.name.clone(), entry);
        }
        Ok(())
    }

    fn append(&mut self, target: &Target, value: &Expr) -> Outcome<()> {
        let added = self.value(value)?;
        // As in xl, appending to a name that was never set sets it.
        let Some(entry) = self.entries.remove(&target.name) else {
            let entry = Entry { name_span: target.span, value: added };
            self.entries.insert(target.name.clone(), entry);
            return Ok(());
        };
        self.pay(added.weight(), target.span)?;
        let span = added.span;
        let sum = operators::add(entry.value, added, span)?;
        self.check_depth(&sum)?;
        self.entries.insert(target.name.clone(), Entry { name_span: target.span, value: sum });
        Ok(())
    }

    fn check_depth(&mut self, value: &Value) -> Outcome<()> {
        if value.depth() > MAX_VALUE_DEPTH {
            let message = format!("Lists nested more than {MAX_VALUE_DEPTH} deep");
            return Err(Fault::at(value.span, message));
        }
        Ok(())
    }

    fn value(&mut self, expr: &Expr) -> Outcome<Value> {
        self.pay(VALUE_COST, expr.span)?;
        let data = match &expr.kind {
            ExprKind::None => Data::None,
            ExprKind::Bool(value) => Data::Bool(*value),
            ExprKind::Int(value) => Data::Int(*value),
            ExprKind::Float(value) => Data::Float(*value),
            ExprKind::Text(text) => {
                self.pay(text.as_str().len(), expr.span)?;
                Data::Text(text.clone())
            }
            ExprKind::Name(name) => return self.name(name, expr.span),
            ExprKind::List(items) => Data::List(self.items(items)?),
            ExprKind::Tuple(items) => Data::Tuple(self.items(items)?),
            ExprKind::Dict(pairs) => Data::Dict(self.pairs(pairs)?),
            ExprKind::Negate(inner) => {
                let inner = self.value(inner)?;
                operators::negate(&inner, expr.span)?
            }
            ExprKind::Not(inner) => Data::Bool(!self.value(inner)?.truth()),
            ExprKind::Chain { first, rest } => return self.chain(first, rest, expr.span),
            ExprKind::Compare { first, rest } => Data::Bool(self.compare(first, rest)?),
            ExprKind::And(items) => return self.logic(items, false, expr.span),
            ExprKind::Or(items) => return self.logic(items, true, expr.span),
            ExprKind::Choose { condition, yes, no } => {
                let taken = if self.value(condition)?.truth() { yes } else { no };
                return self.value(taken);
            }
            ExprKind::Index { base, index } => {
                let (base, index) = (self.value(base)?, self.value(index)?);
                return operators::index(base, &index);
            }
            ExprKind::Call { function, argument } => self.call(*function, argument, expr.span)?,
        };
        let value = Value::new(data, expr.span);
        self.check_depth(&value)?;
        Ok(value)
    }

    fn name(&mut self, name: &str, span: Span) -> Outcome<Value> {
        let Some(entry) = self.entries.get(name) else {
            let fault = Fault::at(span, format!("`{name}` has no value here"));
            return Err(if name.contains('.') {
                fault.help("attributes are Python code, which is not run")
            } else {
                fault.help("set it above, give it on the command line, or put quotes around text")
            });
        };
        let value = entry.value.clone();
        self.pay(value.weight(), span)?;
        // Lists and numbers are reported where they are used, strings where
        // they were written: a string carries its own origin.
        Ok(Value { span, ..value })
    }

    fn items(&mut self, items: &[Expr]) -> Outcome<Vec<Value>> {
        items.iter().map(|item| self.value(item)).collect()
    }

    fn pairs(&mut self, pairs: &[(Expr, Expr)]) -> Outcome<Vec<(Value, Value)>> {
        pairs.iter().map(|(key, value)| Ok((self.value(key)?, self.value(value)?))).collect()
    }

    fn chain(
        &mut self,
        first: &Expr,
        rest: &[(crate::syntax::ast::BinaryOp, Expr)],
        span: Span,
    ) -> Outcome<Value> {
        let mut left = self.value(first)?;
        for (op, right) in rest {
            let right = self.value(right)?;
            self.pay(right.weight(), right.span)?;
            let so_far = first.span.to(right.span);
            left = operators::binary(*op, left, right, so_far, self.budget)?;
            if *op == crate::syntax::ast::BinaryOp::Percent {
                self.pay(left.weight(), so_far)?;
            }
        }
        self.check_depth(&left)?;
        Ok(Value { span, ..left })
    }

    fn compare(
        &mut self,
        first: &Expr,
        rest: &[(crate::syntax::ast::CompareOp, Expr)],
    ) -> Outcome<bool> {
        let mut left = self.value(first)?;
        for (op, right) in rest {
            let right = self.value(right)?;
            let cost = left.weight().saturating_mul((1 + right.weight() / VALUE_COST).min(64));
            self.pay(cost, first.span)?;
            if !operators::compare(*op, &left, &right)? {
                return Ok(false);
            }
            left = right;
        }
        Ok(true)
    }

    /// `and` gives the first false operand, `or` the first true one, else the last.
    fn logic(&mut self, items: &[Expr], stop_at: bool, span: Span) -> Outcome<Value> {
        let mut last = Value::new(Data::None, span);
        for item in items {
            last = self.value(item)?;
            if last.truth() == stop_at {
                break;
            }
        }
        Ok(Value { span, ..last })
    }

    fn call(&mut self, function: Builtin, argument: &Expr, span: Span) -> Outcome<Data> {
        let value = self.value(argument)?;
        match function {
            Builtin::Str => match (value.data, value.span) {
                (Data::Text(text), _) => Ok(Data::Text(text)),
                (data, at) => {
                    let value = Value::new(data, at);
                    let refuse =
                        || Fault::at(at, format!("str() cannot take {} here", value.kind()));
                    let text = value.plain_text().ok_or_else(refuse)?;
                    Ok(Data::Text(Text::opaque(text, span)))
                }
            },
            Builtin::Int => operators::to_integer(&value),
            Builtin::Len => operators::length(&value),
        }
    }
}
