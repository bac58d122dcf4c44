//! Tokens to statements: blocks, assignments and `if`.

use super::ast::{Expr, Statement, Target};
use super::lexer::{Kind, Token};
use crate::source::{Fault, Outcome, Span};

/// How deep brackets and `if` blocks may nest.
const MAX_DEPTH: usize = 50;

/// Words that start Python code which is not run here.
const PYTHON: &[&str] = &[
    "def", "import", "from", "for", "while", "class", "try", "except", "finally", "with", "return",
    "print", "del", "lambda", "global", "exec", "raise", "assert", "yield", "async", "await",
    "break", "continue", "nonlocal",
];

/// Words that cannot be variables.
const RESERVED: &[&str] =
    &["if", "elif", "else", "and", "or", "not", "in", "is", "None", "True", "False", "pass"];

pub(super) struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    pub fn new(tokens: &'a [Token]) -> Self {
        Self { tokens, at: 0, depth: 0 }
    }

    pub fn program(mut self) -> Outcome<Vec<Statement>> {
        let mut statements = Vec::new();
        while let Some(indent) = self.line_ahead() {
            self.at += 1;
            self.line(indent, &mut statements)?;
        }
        Ok(statements)
    }

    pub(super) fn kind(&self) -> &'a Kind {
        self.tokens.get(self.at).map_or(&Kind::End, |token| &token.kind)
    }

    pub(super) fn span(&self) -> Span {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or(Span::new(0, 0, 0), |token| token.span)
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.kind(), Kind::Op(found) if *found == op)
    }

    pub(super) fn take_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.kind(), Kind::Name(found) if found == word)
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Outcome<()> {
        if self.take_op(op) { Ok(()) } else { Err(self.unexpected(&format!("`{op}`"))) }
    }

    /// Runs `inner` one level deeper.
    pub(super) fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::at(self.span(), format!("Nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn line_ahead(&self) -> Option<usize> {
        match self.kind() {
            Kind::Line(indent) => Some(*indent),
            _ => None,
        }
    }

    fn at_line_end(&self) -> bool {
        matches!(self.kind(), Kind::Line(_) | Kind::End)
    }

    /// One logical line after its `Line` token: an `if` or simple statements.
    fn line(&mut self, indent: usize, into: &mut Vec<Statement>) -> Outcome<()> {
        if self.is_word("if") {
            let statement = self.deeper(|p| p.if_statement(indent))?;
            into.push(statement);
            return Ok(());
        }
        self.simple_line(into)
    }

    /// Statements separated by `;` up to the end of the line.
    fn simple_line(&mut self, into: &mut Vec<Statement>) -> Outcome<()> {
        loop {
            if !self.is_op(";") {
                into.extend(self.simple()?);
            }
            if self.at_line_end() {
                return Ok(());
            }
            if !self.take_op(";") {
                return Err(self.unexpected("the end of the line"));
            }
            if self.at_line_end() {
                return Ok(());
            }
        }
    }

    /// `if` with its arms; its line is indented by `indent`.
    fn if_statement(&mut self, indent: usize) -> Outcome<Statement> {
        self.advance();
        let condition = self.expression()?;
        let mut arms = vec![(condition, self.block(indent)?)];
        let mut otherwise = Vec::new();
        while self.line_ahead() == Some(indent) {
            let next = self.tokens.get(self.at + 1).map(|token| &token.kind);
            match next {
                Some(Kind::Name(word)) if word == "elif" => {
                    self.at += 2;
                    let condition = self.expression()?;
                    arms.push((condition, self.block(indent)?));
                }
                Some(Kind::Name(word)) if word == "else" => {
                    self.at += 2;
                    otherwise = self.block(indent)?;
                    break;
                }
                _ => break,
            }
        }
        Ok(Statement::If { arms, otherwise })
    }

    /// `:` and the statements that belong to it.
    fn block(&mut self, outer: usize) -> Outcome<Vec<Statement>> {
        self.expect_op(":")?;
        let mut statements = Vec::new();
        let Some(indent) = self.line_ahead() else {
            if self.at_line_end() {
                return Err(self.unexpected("an indented block"));
            }
            self.simple_line(&mut statements)?;
            return Ok(statements);
        };
        if indent <= outer {
            self.advance();
            return Err(self.unexpected("an indented block"));
        }
        while let Some(found) = self.line_ahead() {
            if found < indent {
                if found > outer {
                    self.advance();
                    return Err(Fault::at(self.span(), "The indentation fits no block"));
                }
                break;
            }
            self.advance();
            if found > indent {
                return Err(Fault::at(self.span(), "Indented more than its block"));
            }
            self.line(indent, &mut statements)?;
        }
        Ok(statements)
    }

    fn simple(&mut self) -> Outcome<Option<Statement>> {
        match self.kind() {
            Kind::Name(word) if word == "pass" => {
                self.advance();
                Ok(None)
            }
            // A text on a line of its own is a comment in Python.
            Kind::Text(_) => {
                self.advance();
                Ok(None)
            }
            Kind::Name(word) => {
                self.check_word(word)?;
                self.assignment().map(Some)
            }
            _ => Err(self.unexpected("`name = value`")),
        }
    }

    fn check_word(&self, word: &str) -> Outcome<()> {
        if PYTHON.contains(&word) {
            return Err(python_code(self.span(), &format!("`{word}`")));
        }
        if RESERVED.contains(&word) {
            return Err(self.unexpected("`name = value`"));
        }
        Ok(())
    }

    fn assignment(&mut self) -> Outcome<Statement> {
        let first = self.target()?;
        if self.take_op("+=") {
            return Ok(Statement::Append { target: first, value: self.value()? });
        }
        match self.kind() {
            Kind::Op("=") => self.advance(),
            Kind::Op("(") => {
                let span = first.span.to(self.span());
                return Err(python_code(span, &format!("a call of `{}`", first.name)));
            }
            Kind::Op(op @ ("-=" | "*=" | "/=" | "%=")) => {
                return Err(python_code(self.span(), &format!("`{op}`")));
            }
            Kind::Op(",") => return Err(python_code(self.span(), "a tuple as target")),
            Kind::Op("[") => return Err(python_code(self.span(), "a change of one element")),
            _ => return Err(self.unexpected(&format!("`=` after `{}`", first.name))),
        }
        let mut targets = vec![first];
        while self.chained_target() {
            targets.push(self.target()?);
            self.advance();
        }
        Ok(Statement::Assign { targets, value: self.value()? })
    }

    /// Whether `name =` follows, as in `a = b = 1`.
    fn chained_target(&self) -> bool {
        let next = self.tokens.get(self.at + 1).map(|token| &token.kind);
        matches!((self.kind(), next), (Kind::Name(_), Some(Kind::Op("="))))
    }

    fn target(&mut self) -> Outcome<Target> {
        let span = self.span();
        match self.kind() {
            Kind::Name(name) if !RESERVED.contains(&name.as_str()) => {
                self.advance();
                Ok(Target { name: name.clone(), span })
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// What stands right of `=`: an expression, or several with commas between.
    fn value(&mut self) -> Outcome<Expr> {
        let first = self.expression()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let start = first.span;
        let mut items = vec![first];
        let mut end = start;
        while self.take_op(",") {
            if self.at_line_end() || self.is_op(";") {
                break;
            }
            let item = self.expression()?;
            end = item.span;
            items.push(item);
        }
        Ok(Expr { kind: super::ast::ExprKind::Tuple(items), span: start.to(end) })
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Box<Fault> {
        let found = match self.kind() {
            Kind::Line(_) => "the end of the line".to_owned(),
            Kind::End => "the end of the file".to_owned(),
            Kind::Name(name) if PYTHON.contains(&name.as_str()) => {
                return python_code(self.span(), &format!("`{name}`"));
            }
            Kind::Name(name) => format!("`{name}`"),
            Kind::Int(value) => format!("`{value}`"),
            Kind::Float(value) => format!("`{value}`"),
            Kind::Text(_) => "a string".to_owned(),
            Kind::Op(op) => format!("`{op}`"),
        };
        let mut span = self.span();
        if matches!(self.kind(), Kind::Line(_)) {
            // Point behind the last word, not at the next line.
            if let Some(last) = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)) {
                span = Span { start: last.span.end, end: last.span.end, ..last.span };
            }
        }
        Fault::at(span, format!("Expected {wanted}, found {found}"))
    }
}

/// The refusal of everything that would need a Python interpreter.
pub(super) fn python_code(span: Span, what: &str) -> Box<Fault> {
    Fault::at(span, format!("This is Python code ({what}), which is not run")).help(
        "write plain `name = value` lines; `if`, `+`, `%`, str(), int() and len() are understood",
    )
}
