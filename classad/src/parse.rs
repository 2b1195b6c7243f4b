//! From text to an [`Arena`].
//!
//! Precedence climbing over the tokens. Each level of nesting costs the three units that it costs in the library, whose
//! parser gives up at 500 of them; so the same texts are refused as too deep, and the parser's stack is bounded. Chains
//! of left-associative operators cost nothing: they are loops here and contiguous runs in the arena.

use std::fmt;

use crate::lex::{self, Lexer, Tok};
use crate::name::{Name, Names};
use crate::time;
use crate::tree::{Arena, MAX_NODES, MAX_STRING, Node, NodeId, Op, Table, tag};

/// The library's `MAX_PARSER_DEPTH`.
const MAX_DEPTH: u32 = 500;
/// Longer texts are refused: all offsets have to fit into 32 bits, and no ad is anywhere near.
pub(crate) const MAX_TEXT: usize = 64 << 20;

/// Text that is not an expression or an ad: where, what was expected, and what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(Box<Detail>);

// Behind a pointer, because every level of the parser hands its result through.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Detail {
    line: u32,
    column: u32,
    expected: &'static str,
    found: String,
}

impl ParseError {
    /// The line, counted from 1.
    pub fn line(&self) -> u32 {
        self.0.line
    }

    /// The byte in the line, counted from 1.
    pub fn column(&self) -> u32 {
        self.0.column
    }

    /// What could have stood there.
    pub fn expected(&self) -> &str {
        self.0.expected
    }

    /// What stood there instead, shortened.
    pub fn found(&self) -> &str {
        &self.0.found
    }

    pub(crate) fn at(src: &[u8], pos: usize, expected: &'static str) -> ParseError {
        let pos = pos.min(src.len());
        let before = &src[..pos];
        let line = before.iter().filter(|&&b| b == b'\n').count() as u32 + 1;
        let column = (pos
            - before
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |at| at + 1)) as u32
            + 1;
        let rest = &src[pos..];
        let end = rest
            .iter()
            .take(24)
            .position(|&b| b == b'\n')
            .unwrap_or(rest.len().min(24));
        let found = match &rest[..end] {
            [] if rest.is_empty() => "the end of the text".to_owned(),
            [] => "the end of the line".to_owned(),
            some => format!("`{}`", String::from_utf8_lossy(some)),
        };
        ParseError(Box::new(Detail {
            line,
            column,
            expected,
            found,
        }))
    }

    /// The error of a piece whose place in the text is not known: only what is wrong with it is kept.
    pub(crate) fn because(mut self, inner: ParseError) -> ParseError {
        self.0.expected = inner.0.expected;
        self.0.found = inner.0.found;
        self
    }

    /// Moves the error to where the parsed piece lies in the whole text.
    fn within(mut self, line: u32, column: u32) -> ParseError {
        if self.0.line == 1 {
            self.0.column += column;
        }
        self.0.line += line;
        self
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail {
            line,
            column,
            expected,
            found,
        } = &*self.0;
        write!(
            f,
            "line {line}, column {column}: expected {expected}, found {found}"
        )
    }
}

impl std::error::Error for ParseError {}

type Result<T> = std::result::Result<T, ParseError>;

struct Parser<'s> {
    lexer: Lexer<'s>,
    tok: Tok,
    depth: u32,
    /// The ad that is being written; where lists and inner ads belong.
    scope: u32,
    arena: Arena,
    names: Names,
    /// Elements of the lists and calls that are still open.
    open: Vec<NodeId>,
}

/// Binding strength of a binary operator.
fn binary(tok: Tok) -> Option<(u8, Op)> {
    Some(match tok {
        Tok::OrOr => (1, Op::Or),
        Tok::AndAnd => (2, Op::And),
        Tok::Pipe => (3, Op::BitOr),
        Tok::Caret => (4, Op::BitXor),
        Tok::Amp => (5, Op::BitAnd),
        Tok::EqEq => (6, Op::Eq),
        Tok::NotEq => (6, Op::Ne),
        Tok::Is => (6, Op::Is),
        Tok::Isnt => (6, Op::Isnt),
        Tok::Lt => (7, Op::Lt),
        Tok::Le => (7, Op::Le),
        Tok::Gt => (7, Op::Gt),
        Tok::Ge => (7, Op::Ge),
        Tok::Shl => (8, Op::Shl),
        Tok::Shr => (8, Op::Shr),
        Tok::Ushr => (8, Op::Ushr),
        Tok::Plus => (9, Op::Add),
        Tok::Minus => (9, Op::Sub),
        Tok::Star => (10, Op::Mul),
        Tok::Slash => (10, Op::Div),
        Tok::Percent => (10, Op::Mod),
        _ => return None,
    })
}

impl<'s> Parser<'s> {
    fn new(src: &'s [u8], old: bool) -> Parser<'s> {
        Parser::with(Lexer::new(src, old))
    }

    fn with(lexer: Lexer<'s>) -> Parser<'s> {
        Parser {
            lexer,
            tok: Tok::End,
            depth: 0,
            scope: 0,
            arena: Arena::default(),
            names: Names::take(),
            open: Vec::new(),
        }
    }

    #[inline]
    fn advance(&mut self) {
        self.tok = self.lexer.next();
    }

    #[cold]
    fn fail<T>(&self, expected: &'static str) -> Result<T> {
        Err(ParseError::at(self.lexer.src, self.lexer.start, expected))
    }

    fn expect(&mut self, tok: Tok, expected: &'static str) -> Result<()> {
        if self.tok != tok {
            return self.fail(expected);
        }
        self.advance();
        Ok(())
    }

    #[inline]
    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.fail("less deep nesting")
        } else {
            Ok(())
        }
    }

    #[inline]
    fn push(&mut self, node: Node) -> Result<NodeId> {
        if self.arena.nodes.len() >= MAX_NODES {
            return self.fail("a shorter expression");
        }
        Ok(self.arena.push(node))
    }

    #[inline]
    fn last(&self) -> NodeId {
        (self.arena.nodes.len() - 1) as u32
    }

    fn name(&mut self) -> Result<Name> {
        match self.names.parsed(self.lexer.text()) {
            Some(name) => Ok(name),
            None => self.fail("one of the names in use: this process has met too many"),
        }
    }

    /// Leaves the expression as the last node.
    fn expression(&mut self) -> Result<()> {
        self.deeper()?;
        self.climb(1)?;
        if self.tok == Tok::Question {
            let test = self.last();
            self.advance();
            self.expression()?;
            let yes = self.last();
            self.expect(Tok::Colon, "`:`")?;
            self.expression()?;
            self.push(Node::cond(test, yes))?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn climb(&mut self, least: u8) -> Result<()> {
        self.unary()?;
        while let Some((strength, op)) = binary(self.tok) {
            if strength < least {
                break;
            }
            let left = self.last();
            self.advance();
            self.climb(strength + 1)?;
            self.push(Node::binary(op, left))?;
        }
        Ok(())
    }

    fn unary(&mut self) -> Result<()> {
        let op = match self.tok {
            Tok::Minus => Op::Minus,
            Tok::Plus => Op::Plus,
            Tok::Tilde => Op::BitNot,
            Tok::Bang => Op::Not,
            _ => {
                self.deeper()?;
                self.postfix()?;
                self.depth -= 1;
                return Ok(());
            }
        };
        self.deeper()?;
        self.advance();
        self.unary()?;
        self.push(Node::unary(op))?;
        self.depth -= 1;
        Ok(())
    }

    fn postfix(&mut self) -> Result<()> {
        self.deeper()?;
        self.primary()?;
        loop {
            let left = self.last();
            match self.tok {
                Tok::OpenBracket => {
                    self.advance();
                    self.expression()?;
                    self.expect(Tok::CloseBracket, "`]`")?;
                    self.push(Node::binary(Op::Subscript, left))?;
                }
                Tok::Elvis => {
                    self.advance();
                    self.postfix()?;
                    self.push(Node::binary(Op::Elvis, left))?;
                }
                Tok::Dot => {
                    self.advance();
                    if self.tok != Tok::Ident {
                        return self.fail("an attribute name");
                    }
                    let name = self.name()?;
                    self.advance();
                    self.push(Node::new(tag::SELECT, 0, name.raw()))?;
                }
                _ => break,
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn primary(&mut self) -> Result<()> {
        let node = match self.tok {
            Tok::Ident => return self.word(),
            Tok::Int => {
                let value = lex::int_value(self.lexer.text());
                self.arena.make_int(value)
            }
            Tok::Real => {
                let value = lex::real_value(self.lexer.text());
                self.arena.make_real(value)
            }
            Tok::Str => {
                if self.lexer.text().len() > MAX_STRING {
                    return self.fail("a shorter string");
                }
                self.arena.make_str(self.lexer.text())
            }
            Tok::True => Node::bool(true),
            Tok::False => Node::bool(false),
            Tok::Undefined => Node::UNDEFINED,
            Tok::Error => Node::ERROR,
            Tok::Dot => {
                self.advance();
                if self.tok != Tok::Ident {
                    return self.fail("an attribute name");
                }
                Node::new(tag::ABSOLUTE, 0, self.name()?.raw())
            }
            Tok::OpenParen => {
                self.advance();
                self.expression()?;
                if self.tok != Tok::CloseParen {
                    return self.fail("an operator or `)`");
                }
                Node::unary(Op::Parens)
            }
            Tok::OpenBrace => {
                let from = self.open.len();
                self.items(Tok::CloseBrace, false, "`,` or `}`")?;
                let node = self.arena.make_list(self.scope, &self.open[from..]);
                self.open.truncate(from);
                node
            }
            Tok::OpenBracket => self.ad()?,
            Tok::Bad => return self.fail("a valid token"),
            _ => return self.fail("an expression"),
        };
        self.advance();
        self.push(node)?;
        Ok(())
    }

    /// An attribute reference or a call.
    fn word(&mut self) -> Result<()> {
        let name = self.name()?;
        self.advance();
        if self.tok != Tok::OpenParen {
            self.push(Node::new(tag::ATTR, 0, name.raw()))?;
            return Ok(());
        }
        let from = self.open.len();
        let start = self.arena.nodes.len();
        self.items(Tok::CloseParen, true, "`,` or `)`")?;
        self.advance();
        let args = &self.open[from..];
        let node = match time::literal(&self.arena, name, args) {
            Some(literal) => {
                self.arena.nodes.truncate(start);
                match literal {
                    time::Literal::Abs(time) => self.arena.make_abs_time(time),
                    time::Literal::Rel(secs) => self.arena.make_rel_time(secs),
                    time::Literal::Invalid => return self.fail("a valid time"),
                }
            }
            None => self.arena.make_call(name, args),
        };
        self.open.truncate(from);
        self.push(node)?;
        Ok(())
    }

    /// Expressions up to the closing token, which stays current. Their nodes are appended to `open`.
    fn items(&mut self, close: Tok, semicolons: bool, expected: &'static str) -> Result<()> {
        self.advance();
        while self.tok != close {
            self.expression()?;
            let last = self.last();
            self.open.push(last);
            if self.tok == Tok::Comma || (semicolons && self.tok == Tok::Semicolon) {
                self.advance();
                if self.tok == close && !semicolons {
                    return self.fail("an expression");
                }
                if self.tok == close {
                    return self.fail("an argument");
                }
            } else if self.tok != close {
                return self.fail(expected);
            }
        }
        Ok(())
    }

    /// An ad inside an expression; the closing bracket stays current.
    fn ad(&mut self) -> Result<Node> {
        self.arena.nested.push(Table::within(self.scope));
        let id = self.arena.nested.len() as u32;
        let outer = std::mem::replace(&mut self.scope, id);
        let mut attributes = Vec::new();
        self.attributes(&mut attributes)?;
        self.arena.nested[id as usize - 1].fill(&mut attributes);
        self.scope = outer;
        Ok(Node::new(tag::AD, 0, id))
    }

    /// From `[` to `]`, which stays current.
    fn attributes(&mut self, attributes: &mut Vec<(u32, Node)>) -> Result<()> {
        self.advance();
        while self.tok != Tok::CloseBracket {
            if self.tok == Tok::Semicolon {
                self.advance();
                continue;
            }
            if self.tok != Tok::Ident {
                return self.fail("an attribute name or `]`");
            }
            let name = self.name()?;
            self.advance();
            self.expect(Tok::Assign, "`=`")?;
            let start = self.arena.nodes.len();
            self.expression()?;
            attributes.push((name.raw(), self.arena.attribute_value(start)));
            if self.tok != Tok::Semicolon && self.tok != Tok::CloseBracket {
                return self.fail("an operator, `;` or `]`");
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        if self.tok == Tok::End {
            Ok(())
        } else {
            self.fail("an operator or the end")
        }
    }
}

fn check_size(src: &[u8]) -> Result<()> {
    if src.len() > MAX_TEXT {
        Err(ParseError::at(src, 0, "a shorter text"))
    } else {
        Ok(())
    }
}

/// Parses an expression into an arena; the node is its value.
pub(crate) fn expression(src: &[u8], old: bool) -> Result<(Arena, Node)> {
    check_size(src)?;
    let mut parser = Parser::new(src, old);
    parser.arena.nodes.reserve(src.len().min(1 << 20) / 8);
    parser.advance();
    parser.expression()?;
    parser.end()?;
    let value = parser.arena.attribute_value(0);
    Ok((parser.arena, value))
}

/// Parses `[ name = expr; … ]`.
pub(crate) fn new_ad(src: &[u8]) -> Result<Arena> {
    check_size(src)?;
    let (arena, lexer) = next_ad(Lexer::new(src, false))?;
    let mut parser = Parser::with(lexer);
    parser.advance();
    parser.end()?;
    Ok(arena)
}

/// Parses ads of the new syntax that follow one another, as daemons and their plugins exchange them in files.
pub(crate) fn new_ads(src: &[u8]) -> Result<Vec<Arena>> {
    check_size(src)?;
    let mut ads = Vec::new();
    let mut lexer = Lexer::new(src, false);
    loop {
        let before = lexer.pos;
        if lexer.next() == Tok::End {
            return Ok(ads);
        }
        lexer.pos = before;
        let arena;
        (arena, lexer) = next_ad(lexer)?;
        ads.push(arena);
    }
}

/// The ad at the lexer's place; the lexer is behind it then.
fn next_ad(lexer: Lexer<'_>) -> Result<(Arena, Lexer<'_>)> {
    let mut parser = Parser::with(lexer);
    parser.advance();
    if parser.tok != Tok::OpenBracket {
        return parser.fail("`[`");
    }
    // Many small ads may follow: the room is for one of the usual size.
    let rest = parser.lexer.src.len() - parser.lexer.pos;
    let mut attributes = Vec::with_capacity((rest / 32).min(512));
    parser.attributes(&mut attributes)?;
    let mut arena = parser.arena;
    arena.root.fill(&mut attributes);
    arena.shrink();
    Ok((arena, parser.lexer))
}

/// Parses lines of `Name = expr`; empty lines and lines that start with `#` are skipped.
///
/// What follows the expression on its line is ignored, as HTCondor ignores it.
pub(crate) fn old_ad(src: &[u8]) -> Result<Arena> {
    check_size(src)?;
    let mut parser = Parser::new(src, true);
    parser.arena.text.reserve(src.len() / 2);
    let mut attributes = Vec::with_capacity(src.len() / 32);
    for (number, line) in src.split(|&b| b == b'\n').enumerate() {
        let number = number as u32;
        let skipped = line
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | 11 | 12))
            .count();
        if matches!(line.get(skipped), None | Some(b'#')) {
            continue;
        }
        let Some(equals) = line.iter().position(|&b| b == b'=') else {
            return Err(ParseError::at(line, line.len(), "`=`").within(number, 0));
        };
        let name = line[skipped..equals].trim_ascii_end_spaces();
        if name.is_empty() {
            return Err(ParseError::at(line, skipped, "an attribute name").within(number, 0));
        }
        let Some(name) = parser.names.parsed(name) else {
            let expected = "one of the names in use: this process has met too many";
            return Err(ParseError::at(line, skipped, expected).within(number, 0));
        };
        let start = parser.arena.nodes.len();
        parser.lexer.restart(&line[equals + 1..]);
        parser.depth = 0;
        parser.advance();
        parser
            .expression()
            .map_err(|e| e.within(number, equals as u32 + 1))?;
        attributes.push((name.raw(), parser.arena.attribute_value(start)));
    }
    let mut arena = parser.arena;
    arena.root.fill(&mut attributes);
    arena.shrink();
    Ok(arena)
}

trait TrimEndSpaces {
    fn trim_ascii_end_spaces(&self) -> &[u8];
}

impl TrimEndSpaces for [u8] {
    /// Without the spaces at the end; a tab is part of the name.
    fn trim_ascii_end_spaces(&self) -> &[u8] {
        let end = self.iter().rposition(|&b| b != b' ').map_or(0, |at| at + 1);
        &self[..end]
    }
}
