//! Tokens to expressions, one function per level of precedence.

use super::ast::{BinaryOp, Builtin, CompareOp, Expr, ExprKind};
use super::lexer::Kind;
use super::parser::{Parser, python_code};
use super::text::Text;
use crate::source::{Fault, Outcome};

/// `a[1][2]...` goes no further than this.
const MAX_SUBSCRIPTS: usize = 16;

impl Parser<'_> {
    /// `yes if condition else no`, or anything below it.
    pub(super) fn expression(&mut self) -> Outcome<Expr> {
        self.deeper(|p| {
            let yes = p.disjunction()?;
            if !p.take_word("if") {
                return Ok(yes);
            }
            let condition = p.disjunction()?;
            if !p.take_word("else") {
                return Err(p.unexpected("`else`"));
            }
            let no = p.expression()?;
            let span = yes.span.to(no.span);
            let (condition, yes, no) = (Box::new(condition), Box::new(yes), Box::new(no));
            Ok(Expr { kind: ExprKind::Choose { condition, yes, no }, span })
        })
    }

    fn disjunction(&mut self) -> Outcome<Expr> {
        self.logic("or", Self::conjunction, ExprKind::Or)
    }

    fn conjunction(&mut self) -> Outcome<Expr> {
        self.logic("and", Self::negation, ExprKind::And)
    }

    fn logic(
        &mut self,
        word: &str,
        operand: fn(&mut Self) -> Outcome<Expr>,
        make: fn(Vec<Expr>) -> ExprKind,
    ) -> Outcome<Expr> {
        let first = operand(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut span = first.span;
        let mut items = vec![first];
        while self.take_word(word) {
            let next = operand(self)?;
            span = span.to(next.span);
            items.push(next);
        }
        Ok(Expr { kind: make(items), span })
    }

    fn negation(&mut self) -> Outcome<Expr> {
        let start = self.span();
        if !self.take_word("not") {
            return self.comparison();
        }
        let inner = self.deeper(Self::negation)?;
        let span = start.to(inner.span);
        Ok(Expr { kind: ExprKind::Not(Box::new(inner)), span })
    }

    fn comparison(&mut self) -> Outcome<Expr> {
        let first = self.sum()?;
        let mut span = first.span;
        let mut rest = Vec::new();
        while let Some(op) = self.compare_op()? {
            let next = self.sum()?;
            span = span.to(next.span);
            rest.push((op, next));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expr { kind: ExprKind::Compare { first: Box::new(first), rest }, span })
    }

    fn compare_op(&mut self) -> Outcome<Option<CompareOp>> {
        let op = match self.kind() {
            Kind::Op("==") => CompareOp::Equal,
            Kind::Op("!=" | "<>") => CompareOp::NotEqual,
            Kind::Op("<") => CompareOp::Less,
            Kind::Op("<=") => CompareOp::LessEqual,
            Kind::Op(">") => CompareOp::Greater,
            Kind::Op(">=") => CompareOp::GreaterEqual,
            Kind::Name(word) if word == "in" => CompareOp::In,
            Kind::Name(word) if word == "is" => {
                self.advance();
                let negated = self.take_word("not");
                return Ok(Some(if negated { CompareOp::NotEqual } else { CompareOp::Equal }));
            }
            Kind::Name(word) if word == "not" => {
                self.advance();
                if !self.is_word("in") {
                    return Err(self.unexpected("`in` after `not`"));
                }
                CompareOp::NotIn
            }
            _ => return Ok(None),
        };
        self.advance();
        Ok(Some(op))
    }

    fn sum(&mut self) -> Outcome<Expr> {
        self.chain(Self::product, |op| match op {
            "+" => Some(BinaryOp::Add),
            "-" => Some(BinaryOp::Subtract),
            _ => None,
        })
    }

    fn product(&mut self) -> Outcome<Expr> {
        self.chain(Self::unary, |op| match op {
            "*" => Some(BinaryOp::Multiply),
            "/" | "//" => Some(BinaryOp::Divide),
            "%" => Some(BinaryOp::Percent),
            _ => None,
        })
    }

    fn chain(
        &mut self,
        operand: fn(&mut Self) -> Outcome<Expr>,
        operator: fn(&str) -> Option<BinaryOp>,
    ) -> Outcome<Expr> {
        let first = operand(self)?;
        let mut span = first.span;
        let mut rest = Vec::new();
        while let Kind::Op(sign) = self.kind() {
            let Some(op) = operator(sign) else { break };
            self.advance();
            let next = operand(self)?;
            span = span.to(next.span);
            rest.push((op, next));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expr { kind: ExprKind::Chain { first: Box::new(first), rest }, span })
    }

    fn unary(&mut self) -> Outcome<Expr> {
        let start = self.span();
        if self.take_op("+") {
            return self.deeper(Self::unary);
        }
        if !self.take_op("-") {
            return self.subscripted();
        }
        let inner = self.deeper(Self::unary)?;
        let span = start.to(inner.span);
        Ok(Expr { kind: ExprKind::Negate(Box::new(inner)), span })
    }

    /// An operand and what may stick to its end.
    fn subscripted(&mut self) -> Outcome<Expr> {
        let mut base = self.operand()?;
        for _ in 0..MAX_SUBSCRIPTS {
            match self.kind() {
                Kind::Op("[") => self.advance(),
                Kind::Op("(") => return Err(python_code(self.span(), "a call")),
                Kind::Op(".") => return Err(python_code(self.span(), "a method or attribute")),
                Kind::Op(op @ ("**" | "&" | "|" | "^" | "~" | "@" | "<<" | ">>" | "`")) => {
                    return Err(python_code(self.span(), &format!("the operator `{op}`")));
                }
                _ => return Ok(base),
            }
            let index = self.expression()?;
            if self.is_op(":") {
                return Err(python_code(self.span(), "a slice"));
            }
            let span = base.span.to(self.span());
            self.expect_op("]")?;
            let (inner, index) = (Box::new(base), Box::new(index));
            base = Expr { kind: ExprKind::Index { base: inner, index }, span };
        }
        Err(Fault::at(self.span(), format!("More than {MAX_SUBSCRIPTS} subscripts")))
    }

    fn operand(&mut self) -> Outcome<Expr> {
        let span = self.span();
        let kind = match self.kind() {
            Kind::Int(value) => ExprKind::Int(*value),
            Kind::Float(value) => ExprKind::Float(*value),
            Kind::Text(_) => return Ok(self.literals()),
            Kind::Name(word) => return self.name(word),
            Kind::Op("(") => return self.parenthesis(),
            Kind::Op("[") => {
                self.advance();
                let items = self.items("]")?;
                return self.closed("]", span, ExprKind::List(items));
            }
            Kind::Op("{") => {
                self.advance();
                let pairs = self.pairs()?;
                return self.closed("}", span, ExprKind::Dict(pairs));
            }
            _ => return Err(self.unexpected("a value")),
        };
        self.advance();
        Ok(Expr { kind, span })
    }

    fn closed(
        &mut self,
        bracket: &str,
        start: crate::source::Span,
        kind: ExprKind,
    ) -> Outcome<Expr> {
        let span = start.to(self.span());
        self.expect_op(bracket)?;
        if matches!(kind, ExprKind::List(_)) && self.is_word("for") {
            return Err(self.unexpected("a value"));
        }
        Ok(Expr { kind, span })
    }

    /// String literals side by side are one string.
    fn literals(&mut self) -> Expr {
        let mut span = self.span();
        let mut joined: Option<Text> = None;
        while let Kind::Text(text) = self.kind() {
            span = span.to(self.span());
            match &mut joined {
                Some(joined) => joined.append(text),
                None => joined = Some(text.clone()),
            }
            self.advance();
        }
        Expr { kind: ExprKind::Text(joined.unwrap_or_default()), span }
    }

    fn name(&mut self, word: &str) -> Outcome<Expr> {
        let span = self.span();
        let kind = match word {
            "None" => ExprKind::None,
            "True" => ExprKind::Bool(true),
            "False" => ExprKind::Bool(false),
            "if" | "elif" | "else" | "and" | "or" | "not" | "in" | "is" | "pass" | "lambda"
            | "for" | "yield" | "await" => return Err(self.unexpected("a value")),
            _ => ExprKind::Name(word.to_owned()),
        };
        self.advance();
        if !self.is_op("(") {
            return Ok(Expr { kind, span });
        }
        let function = match word {
            "str" => Builtin::Str,
            "int" => Builtin::Int,
            "len" => Builtin::Len,
            _ => return Err(python_code(span, &format!("a call of `{word}`"))),
        };
        self.advance();
        let argument = self.expression()?;
        if self.is_op(",") {
            return Err(python_code(self.span(), "a second argument"));
        }
        self.closed(")", span, ExprKind::Call { function, argument: Box::new(argument) })
    }

    /// `(value)`, or a tuple.
    fn parenthesis(&mut self) -> Outcome<Expr> {
        let start = self.span();
        self.advance();
        if self.is_op(")") {
            return self.closed(")", start, ExprKind::Tuple(Vec::new()));
        }
        let first = self.expression()?;
        if !self.take_op(",") {
            return self.closed(")", start, first.kind);
        }
        let mut items = vec![first];
        items.extend(self.items(")")?);
        self.closed(")", start, ExprKind::Tuple(items))
    }

    /// Values with commas between, up to but without `end`.
    fn items(&mut self, end: &str) -> Outcome<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.is_op(end) {
            items.push(self.expression()?);
            if self.is_word("for") {
                return Err(self.unexpected("a comma"));
            }
            if !self.take_op(",") && !self.is_op(end) {
                return Err(self.unexpected(&format!("`,` or `{end}`")));
            }
        }
        Ok(items)
    }

    fn pairs(&mut self) -> Outcome<Vec<(Expr, Expr)>> {
        let mut pairs = Vec::new();
        while !self.is_op("}") {
            let key = self.expression()?;
            self.expect_op(":")?;
            pairs.push((key, self.expression()?));
            if !self.take_op(",") && !self.is_op("}") {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        Ok(pairs)
    }
}
