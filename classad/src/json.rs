//! JSON, as `condor_q -json` writes it and HTCondor reads it.
//!
//! Literals are JSON's own, undefined is `null`, and any other expression is a string `"\/Expr(…)\/"`.

use crate::ad::{ClassAd, Expr};
use crate::name::Name;
use crate::tree::{Arena, MAX_STRING, Node, NodeId, Table, tag};
use crate::unparse::{self, Syntax};
use crate::{ParseError, number, parse};

/// Levels of arrays and objects in a text.
const MAX_NESTING: u32 = 165;
const INDENT: usize = 2;

/// Prints the value of an attribute.
pub(crate) fn value(out: &mut Vec<u8>, arena: &Arena, value: Node) {
    push(out, arena, value, 0);
}

/// Lists and ads nest at most as deep as the parser lets them, so this may recurse.
fn push(out: &mut Vec<u8>, arena: &Arena, value: Node, indent: usize) {
    let node = if value.tag() == tag::LINK {
        arena.node(value.high())
    } else {
        value
    };
    match node.tag() {
        tag::UNDEFINED => out.extend_from_slice(b"null"),
        tag::FALSE => out.extend_from_slice(b"false"),
        tag::TRUE => out.extend_from_slice(b"true"),
        tag::SMALL | tag::WIDE => number::push_int(out, arena.int(node)),
        tag::REAL if arena.real(node).is_finite() => unparse::real(out, arena.real(node), true),
        tag::STR => {
            out.push(b'"');
            escaped(out, arena.str(node));
            out.push(b'"');
        }
        tag::LIST => {
            out.push(b'[');
            for (i, &item) in arena.children(node).iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                line(out, indent + INDENT);
                push(out, arena, Node::new(tag::LINK, 0, item), indent + INDENT);
            }
            line(out, indent);
            out.push(b']');
        }
        tag::AD => table(out, arena, arena.table(node.high()), indent),
        _ => {
            out.extend_from_slice(b"\"\\/Expr(");
            let mut text = Vec::new();
            unparse::value(&mut text, arena, value, Syntax::New);
            escaped(out, &text);
            out.extend_from_slice(b")\\/\"");
        }
    }
}

fn table(out: &mut Vec<u8>, arena: &Arena, table: &Table, indent: usize) {
    out.push(b'{');
    for (i, (name, value)) in unparse::print_order(table).into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        line(out, indent + INDENT);
        out.push(b'"');
        escaped(out, name);
        out.extend_from_slice(b"\": ");
        push(out, arena, value, indent + INDENT);
    }
    line(out, indent);
    out.push(b'}');
}

fn line(out: &mut Vec<u8>, indent: usize) {
    out.push(b'\n');
    out.resize(out.len() + indent, b' ');
}

fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[from..at]);
        from = at + 1;
        match byte {
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => out.extend_from_slice(format!("\\u{byte:04X}").as_bytes()),
        }
    }
    out.extend_from_slice(&text[from..]);
}

impl ClassAd {
    /// The ad as a JSON object, as `condor_q -json` writes it.
    ///
    /// ```
    /// let ad = classad::ClassAd::parse("[ A = 1; B = A + 1 ]")?;
    /// let json = ad.to_json();
    /// assert_eq!(json, "{\n  \"A\": 1,\n  \"B\": \"\\/Expr(A + 1)\\/\"\n}");
    /// assert_eq!(classad::ClassAd::from_json(&json)?, ad);
    /// # Ok::<(), classad::ParseError>(())
    /// ```
    pub fn to_json(&self) -> String {
        let mut out = Vec::with_capacity(self.len() * 32 + self.arena.text.len());
        table(&mut out, &self.arena, &self.arena.root, 0);
        crate::ad::bytes_to_string(out)
    }

    /// Reads a JSON object.
    pub fn from_json(text: &str) -> Result<ClassAd> {
        let mut reader = Reader::new(text.as_bytes())?;
        reader.blanks();
        let id = reader.object(0)?;
        reader.end()?;
        let mut arena = reader.arena;
        arena.root = std::mem::take(&mut arena.nested[id as usize - 1]);
        rehome(&mut arena, id);
        arena.shrink();
        Ok(ClassAd::from_arena(arena))
    }
}

/// What is written in the ad `id` now belongs to the arena's own ad.
fn rehome(arena: &mut Arena, id: u32) {
    arena
        .nested
        .iter_mut()
        .filter(|table| table.parent == id)
        .for_each(|table| table.parent = 0);
    for node in &arena.nodes {
        if node.tag() == tag::LIST {
            let scope = &mut arena.kids[node.high() as usize + 1];
            if *scope == id {
                *scope = 0;
            }
        }
    }
}

impl Expr {
    /// The expression as a JSON value.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        value(&mut out, &self.arena, self.value);
        crate::ad::bytes_to_string(out)
    }

    /// Reads a JSON value.
    pub fn from_json(text: &str) -> Result<Expr> {
        let mut reader = Reader::new(text.as_bytes())?;
        reader.value(0, 0)?;
        reader.end()?;
        let mut arena = reader.arena;
        let value = arena.attribute_value(0);
        Ok(Expr { arena, value })
    }
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    arena: Arena,
}

type Result<T> = std::result::Result<T, ParseError>;

impl<'t> Reader<'t> {
    fn new(text: &'t [u8]) -> Result<Reader<'t>> {
        let reader = Reader {
            text,
            at: 0,
            arena: Arena::default(),
        };
        if text.len() > parse::MAX_TEXT {
            reader.fail("a shorter text")
        } else {
            Ok(reader)
        }
    }

    fn fail<T>(&self, expected: &'static str) -> Result<T> {
        Err(ParseError::at(self.text, self.at, expected))
    }

    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<()> {
        self.blanks();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.fail("the end")
        }
    }

    fn word(&mut self, word: &[u8], node: Node) -> Result<Node> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("a JSON value");
        }
        self.at += word.len();
        Ok(node)
    }

    /// Leaves the value as the last node.
    fn value(&mut self, scope: u32, depth: u32) -> Result<NodeId> {
        if depth > MAX_NESTING {
            return self.fail("less deep nesting");
        }
        self.blanks();
        let node = match self.peek() {
            b'n' => self.word(b"null", Node::UNDEFINED)?,
            b't' => self.word(b"true", Node::bool(true))?,
            b'f' => self.word(b"false", Node::bool(false))?,
            b'"' => {
                let start = self.at;
                let raw = self.raw_string()?;
                let text = unescape(raw)
                    .ok_or_else(|| ParseError::at(self.text, start, "a valid string"))?;
                // Only the escaped slashes tell an expression from a string that looks like one.
                match raw
                    .strip_prefix(b"\\/Expr(")
                    .and_then(|rest| rest.strip_suffix(b")\\/"))
                {
                    Some(_) => {
                        let inner = &text[6..text.len() - 2];
                        let (arena, value) = parse::expression(inner, false).map_err(|e| {
                            ParseError::at(self.text, start, "an expression").because(e)
                        })?;
                        if value.tag() == tag::LINK {
                            return Ok(self.arena.copy_run(&arena, value.high(), scope));
                        }
                        self.arena.copy_literal(&arena, value)
                    }
                    None if text.len() > MAX_STRING => return self.fail("a shorter string"),
                    None => self.arena.make_str(&text),
                }
            }
            b'[' => {
                let mut items = Vec::new();
                self.at += 1;
                self.blanks();
                while self.peek() != b']' {
                    items.push(self.value(scope, depth + 1)?);
                    self.comma(b']', "`,` or `]`")?;
                }
                self.at += 1;
                self.arena.make_list(scope, &items)
            }
            b'{' => {
                let id = self.nested(scope, depth)?;
                Node::new(tag::AD, 0, id)
            }
            b'-' | b'0'..=b'9' => self.number()?,
            _ => return self.fail("a JSON value"),
        };
        Ok(self.arena.push(node))
    }

    fn comma(&mut self, close: u8, expected: &'static str) -> Result<()> {
        self.blanks();
        if self.peek() == close {
            return Ok(());
        }
        if self.peek() != b',' {
            return self.fail(expected);
        }
        self.at += 1;
        self.blanks();
        if self.peek() == close {
            self.fail("a JSON value")
        } else {
            Ok(())
        }
    }

    fn object(&mut self, depth: u32) -> Result<u32> {
        if self.peek() != b'{' {
            return self.fail("`{`");
        }
        self.nested(0, depth)
    }

    fn nested(&mut self, scope: u32, depth: u32) -> Result<u32> {
        self.arena.nested.push(Table::within(scope));
        let id = self.arena.nested.len() as u32;
        let mut attributes = Vec::new();
        self.at += 1;
        self.blanks();
        while self.peek() != b'}' {
            if self.peek() != b'"' {
                return self.fail("an attribute name in quotes or `}`");
            }
            let start = self.at;
            let raw = self.raw_string()?;
            let name = unescape(raw).and_then(|text| Name::parsed(&text));
            let Some(name) = name else {
                return Err(ParseError::at(self.text, start, "an attribute name"));
            };
            self.blanks();
            if self.peek() != b':' {
                return self.fail("`:`");
            }
            self.at += 1;
            let from = self.arena.nodes.len();
            self.value(id, depth + 1)?;
            attributes.push((name.raw(), self.arena.attribute_value(from)));
            self.comma(b'}', "`,` or `}`")?;
        }
        self.at += 1;
        self.arena.nested[id as usize - 1].fill(&mut attributes);
        Ok(id)
    }

    fn number(&mut self) -> Result<Node> {
        let start = self.at;
        self.at += usize::from(self.peek() == b'-');
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while reader.peek().is_ascii_digit() {
                reader.at += 1;
            }
            reader.at > from
        };
        let mut valid = digits(self);
        let mut real = false;
        if self.peek() == b'.' {
            real = true;
            self.at += 1;
            valid &= digits(self);
        }
        if matches!(self.peek(), b'e' | b'E') {
            real = true;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), b'+' | b'-'));
            valid &= digits(self);
        }
        if !valid {
            return self.fail("a number");
        }
        let text = &self.text[start..self.at];
        Ok(if real {
            self.arena.make_real(crate::lex::real_value(text))
        } else {
            self.arena.make_int(crate::lex::int_value(text))
        })
    }

    /// From quote to quote, with the escapes still in it.
    fn raw_string(&mut self) -> Result<&'t [u8]> {
        let text = self.text;
        self.at += 1;
        let from = self.at;
        loop {
            match self.peek() {
                b'"' => break,
                b'\\' => self.at += 2,
                0 if self.at >= text.len() => return self.fail("`\"`"),
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Ok(&text[from..self.at - 1])
    }
}

/// The text of a string; `None` if an escape is malformed or a NUL.
fn unescape(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    let unit = |rest: &[u8]| {
        let digits = std::str::from_utf8(rest.get(..4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            if byte == 0 {
                return None;
            }
            out.push(byte);
            continue;
        }
        let (&letter, after) = rest.split_first()?;
        rest = after;
        match letter {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut code = unit(rest)?;
                rest = &rest[4..];
                if (0xD800..0xDC00).contains(&code)
                    && let Some(low) = rest
                        .strip_prefix(b"\\u")
                        .and_then(unit)
                        .filter(|l| (0xDC00..0xE000).contains(l))
                {
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    rest = &rest[6..];
                }
                let letter = char::from_u32(code).filter(|&c| c != '\0')?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.push(other),
        }
    }
    Some(out)
}
