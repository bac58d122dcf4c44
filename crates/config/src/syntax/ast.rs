//! Statements and expressions.

use super::text::Text;
use crate::source::Span;

#[derive(Debug)]
pub(crate) struct Target {
    pub name: String,
    pub span: Span,
}

#[derive(Debug)]
pub(crate) enum Statement {
    /// `a = value`, or `a = b = value`.
    Assign { targets: Vec<Target>, value: Expr },
    /// `a += value`.
    Append { target: Target, value: Expr },
    /// `if`/`elif` arms in order, then the `else` block.
    If { arms: Vec<(Expr, Vec<Statement>)>, otherwise: Vec<Statement> },
}

#[derive(Debug)]
pub(crate) struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

/// Operators of one precedence level are kept in one flat list, so that a
/// long sum is not a deep tree.
#[derive(Debug)]
pub(crate) enum ExprKind {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text),
    Name(String),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Chain { first: Box<Expr>, rest: Vec<(BinaryOp, Expr)> },
    Compare { first: Box<Expr>, rest: Vec<(CompareOp, Expr)> },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Choose { condition: Box<Expr>, yes: Box<Expr>, no: Box<Expr> },
    Index { base: Box<Expr>, index: Box<Expr> },
    Call { function: Builtin, argument: Box<Expr> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// Remainder of numbers, formatting of strings.
    Percent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

/// The only functions a configuration may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    Str,
    Int,
    Len,
}

impl Statement {
    /// Calls `visit` for every name that is read by this statement.
    pub fn names_read(&self, visit: &mut dyn FnMut(&str)) {
        match self {
            Self::Assign { value, .. } | Self::Append { value, .. } => value.names_read(visit),
            Self::If { arms, otherwise } => {
                for (condition, block) in arms {
                    condition.names_read(visit);
                    block.iter().for_each(|s| s.names_read(visit));
                }
                otherwise.iter().for_each(|s| s.names_read(visit));
            }
        }
    }
}

impl Expr {
    fn names_read(&self, visit: &mut dyn FnMut(&str)) {
        match &self.kind {
            ExprKind::Name(name) => visit(name),
            ExprKind::List(items)
            | ExprKind::Tuple(items)
            | ExprKind::And(items)
            | ExprKind::Or(items) => items.iter().for_each(|e| e.names_read(visit)),
            ExprKind::Dict(pairs) => pairs.iter().for_each(|(key, value)| {
                key.names_read(visit);
                value.names_read(visit);
            }),
            ExprKind::Negate(e) | ExprKind::Not(e) | ExprKind::Call { argument: e, .. } => {
                e.names_read(visit);
            }
            ExprKind::Chain { first, rest } => {
                first.names_read(visit);
                rest.iter().for_each(|(_, e)| e.names_read(visit));
            }
            ExprKind::Compare { first, rest } => {
                first.names_read(visit);
                rest.iter().for_each(|(_, e)| e.names_read(visit));
            }
            ExprKind::Choose { condition, yes, no } => {
                [condition, yes, no].into_iter().for_each(|e| e.names_read(visit));
            }
            ExprKind::Index { base, index } => {
                base.names_read(visit);
                index.names_read(visit);
            }
            ExprKind::None
            | ExprKind::Bool(_)
            | ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Text(_) => {}
        }
    }
}
