//! Printing, byte for byte as the library does it.
//!
//! A loop with its own stack: trees may be a million operators deep.

use crate::name::Name;
use crate::number;
use crate::shape::Printed;
use crate::time;
use crate::tree::{AdId, Arena, Node, NodeId, Op, tag};

/// The ways to print an expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Syntax {
    New,
    Old,
    /// New, with a line for each element of lists and ads.
    Pretty,
}

const CLASSAD_INDENT: usize = 4;
const LIST_INDENT: usize = 3;

/// What is still to be printed.
#[derive(Clone, Copy)]
enum Todo {
    Node(Node, NodeId),
    Text(&'static str),
    Attribute(Printed),
    /// Starts the next line at the present indentation.
    Line,
    Indent(isize),
}

/// Prints the value of an attribute.
pub(crate) fn value(out: &mut Vec<u8>, arena: &Arena, value: Node, syntax: Syntax) {
    if value.is_literal() {
        return literal(out, arena, value, syntax == Syntax::Old);
    }
    let mut printer = Printer {
        out,
        arena,
        syntax,
        todo: Vec::new(),
        indent: 0,
    };
    printer.print(value);
}

/// Prints an ad of the arena with its brackets.
pub(crate) fn ad(out: &mut Vec<u8>, arena: &Arena, id: AdId, syntax: Syntax) {
    let mut printer = Printer {
        out,
        arena,
        syntax,
        todo: Vec::new(),
        indent: 0,
    };
    printer.print(Node::new(tag::AD, 0, id));
}

/// Prints the arena's own ad, a line for each attribute.
pub(crate) fn old_ad(out: &mut Vec<u8>, arena: &Arena) {
    let root = &arena.root;
    out.reserve(root.len() * 24 + arena.text.len() + arena.nodes.len() * 8);
    let mut printer = Printer {
        out,
        arena,
        syntax: Syntax::Old,
        todo: Vec::new(),
        indent: 0,
    };
    for (attribute, value) in root.in_order() {
        attribute_name(printer.out, attribute);
        if value.is_literal() {
            literal(printer.out, arena, value, true);
        } else {
            printer.print(value);
        }
        printer.out.push(b'\n');
    }
    if root.len() == 0 {
        printer.out.push(b'\n');
    }
}

/// `Name = `
fn attribute_name(out: &mut Vec<u8>, attribute: Printed) {
    if attribute.plain {
        out.extend_from_slice(attribute.name);
    } else {
        identifier(out, attribute.name);
    }
    out.extend_from_slice(b" = ");
}

struct Printer<'p> {
    out: &'p mut Vec<u8>,
    arena: &'p Arena,
    syntax: Syntax,
    todo: Vec<Todo>,
    indent: usize,
}

impl Printer<'_> {
    fn print(&mut self, value: Node) {
        self.todo.push(Todo::Node(value, 0));
        while let Some(todo) = self.todo.pop() {
            match todo {
                Todo::Node(node, id) => self.node(node, id),
                Todo::Text(text) => self.out.extend_from_slice(text.as_bytes()),
                Todo::Attribute(attribute) => attribute_name(self.out, attribute),
                Todo::Line => {
                    self.out.push(b'\n');
                    self.out.resize(self.out.len() + self.indent, b' ');
                }
                Todo::Indent(by) => self.indent = self.indent.saturating_add_signed(by),
            }
        }
    }

    fn later(&mut self, id: NodeId) {
        self.todo.push(Todo::Node(self.arena.node(id), id));
    }

    fn node(&mut self, node: Node, id: NodeId) {
        let arena = self.arena;
        match node.tag() {
            tag::LINK => self.later(node.high()),
            tag::ATTR => identifier(self.out, node.name().text()),
            tag::ABSOLUTE => {
                self.out.push(b'.');
                identifier(self.out, node.name().text());
            }
            tag::SELECT => {
                // The library prints this name as it is, without quotes.
                self.todo.push(Todo::Text(raw_name(node.name())));
                self.todo.push(Todo::Text("."));
                self.later(id - 1);
            }
            tag::UNARY => match node.op() {
                Op::Parens => {
                    self.out.push(b'(');
                    self.todo.push(Todo::Text(")"));
                    self.later(id - 1);
                }
                op => {
                    self.out
                        .extend_from_slice(spelling(op, self.syntax).as_bytes());
                    self.later(id - 1);
                }
            },
            tag::BINARY => {
                let op = node.op();
                if op == Op::Subscript {
                    self.todo.push(Todo::Text("]"));
                    self.later(id - 1);
                    self.todo.push(Todo::Text("["));
                } else {
                    self.later(id - 1);
                    self.todo.push(Todo::Text(spelling(op, self.syntax)));
                }
                self.later(node.high());
            }
            tag::COND => {
                let (test, yes) = node.cond_links();
                self.later(id - 1);
                self.todo.push(Todo::Text(" : "));
                self.later(yes);
                self.todo.push(Todo::Text(" ? "));
                self.later(test);
            }
            tag::CALL => {
                self.out.extend_from_slice(arena.call_name(node).text());
                self.out.push(b'(');
                self.todo.push(Todo::Text(")"));
                for (i, &arg) in arena.children(node).iter().enumerate().rev() {
                    self.later(arg);
                    if i > 0 {
                        self.todo.push(Todo::Text(","));
                    }
                }
            }
            tag::LIST => self.list(node),
            tag::AD => self.ad(node.high()),
            tag::FRAME => self.out.extend_from_slice(b"error"),
            _ => literal(self.out, arena, node, self.syntax == Syntax::Old),
        }
    }

    fn list(&mut self, node: Node) {
        let arena = self.arena;
        let items = arena.children(node);
        let pretty = self.syntax == Syntax::Pretty;
        if pretty {
            self.indent += LIST_INDENT;
            self.line("{");
            self.indent += LIST_INDENT;
            self.todo.push(Todo::Indent(-(LIST_INDENT as isize)));
            self.todo.push(Todo::Text("}"));
            self.todo.push(Todo::Line);
            self.todo.push(Todo::Indent(-(LIST_INDENT as isize)));
        } else {
            self.out.extend_from_slice(b"{ ");
            self.todo.push(Todo::Text(" }"));
        }
        for (i, &item) in items.iter().enumerate().rev() {
            if i + 1 < items.len() {
                self.todo.push(Todo::Text(","));
            }
            self.later(item);
            if pretty {
                self.todo.push(Todo::Line);
            }
        }
    }

    fn line(&mut self, text: &str) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + self.indent, b' ');
        self.out.extend_from_slice(text.as_bytes());
    }

    fn ad(&mut self, id: AdId) {
        let pretty = self.syntax == Syntax::Pretty;
        if pretty {
            self.indent += CLASSAD_INDENT;
            self.line("[");
            self.indent += CLASSAD_INDENT;
            self.todo.push(Todo::Indent(-(CLASSAD_INDENT as isize)));
            self.todo.push(Todo::Text("]"));
            self.todo.push(Todo::Line);
            self.todo.push(Todo::Indent(-(CLASSAD_INDENT as isize)));
        } else {
            self.out.extend_from_slice(b"[ ");
            self.todo.push(Todo::Text(" ]"));
        }
        // Most attributes are literals, which need not wait their turn.
        let table = self.arena.table(id);
        let mut rest = table.len();
        for (i, (attribute, value)) in table.in_order().enumerate() {
            if !value.is_literal() {
                rest = i;
                break;
            }
            if i > 0 {
                self.out.extend_from_slice(b"; ");
            }
            if pretty {
                self.line("");
            }
            attribute_name(self.out, attribute);
            literal(self.out, self.arena, value, self.syntax == Syntax::Old);
        }
        for (i, (attribute, value)) in table.in_order().enumerate().rev().take(table.len() - rest) {
            if i + 1 < table.len() {
                self.todo.push(Todo::Text("; "));
            }
            self.todo.push(Todo::Node(value, 0));
            self.todo.push(Todo::Attribute(attribute));
            if pretty {
                self.todo.push(Todo::Line);
            }
        }
        if rest > 0 && rest < table.len() {
            self.todo.push(Todo::Text("; "));
        }
    }
}

/// A name as text; bytes that are not UTF-8 cannot be kept in this place and are replaced.
fn raw_name(name: Name) -> &'static str {
    std::str::from_utf8(name.text()).unwrap_or("?")
}

/// How an operator is printed, with its blanks.
pub(crate) fn spelling(op: Op, syntax: Syntax) -> &'static str {
    match op {
        Op::Is if syntax == Syntax::Old => " =?= ",
        Op::Isnt if syntax == Syntax::Old => " =!= ",
        Op::Lt => " < ",
        Op::Le => " <= ",
        Op::Ne => " != ",
        Op::Eq => " == ",
        Op::Ge => " >= ",
        Op::Gt => " > ",
        Op::Is => " is ",
        Op::Isnt => " isnt ",
        Op::Add => " + ",
        Op::Sub => " - ",
        Op::Mul => " * ",
        Op::Div => " / ",
        Op::Mod => " % ",
        Op::Or => " || ",
        Op::And => " && ",
        Op::BitOr => " | ",
        Op::BitXor => " ^ ",
        Op::BitAnd => " & ",
        Op::Shl => " << ",
        Op::Shr => " >> ",
        Op::Ushr => " >>> ",
        Op::Subscript => " [] ",
        Op::Elvis => " ?: ",
        Op::Plus => " +",
        Op::Minus => " -",
        Op::Not => " !",
        Op::BitNot => " ~",
        Op::Parens => " () ",
    }
}

/// Prints a literal.
pub(crate) fn literal(out: &mut Vec<u8>, arena: &Arena, node: Node, old: bool) {
    match node.tag() {
        tag::UNDEFINED => out.extend_from_slice(b"undefined"),
        tag::ERROR => out.extend_from_slice(b"error"),
        tag::FALSE => out.extend_from_slice(b"false"),
        tag::TRUE => out.extend_from_slice(b"true"),
        tag::SMALL | tag::WIDE => number::push_int(out, arena.int(node)),
        tag::REAL => real(out, arena.real(node), old),
        tag::STR => string(out, arena.str(node), old),
        tag::ABSTIME => {
            out.extend_from_slice(b"absTime(\"");
            time::push_abs(out, arena.abs_time(node));
            out.extend_from_slice(b"\")");
        }
        tag::RELTIME => {
            out.extend_from_slice(b"relTime(\"");
            time::push_rel(out, arena.real(node));
            out.extend_from_slice(b"\")");
        }
        _ => {}
    }
}

pub(crate) fn real(out: &mut Vec<u8>, value: f64, old: bool) {
    if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() {
            b"-0.0"
        } else {
            b"0.0"
        });
    } else if value.is_nan() {
        out.extend_from_slice(b"real(\"NaN\")");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 {
            b"real(\"INF\")"
        } else {
            b"real(\"-INF\")"
        });
    } else if old {
        number::push_short(out, value);
    } else {
        number::push_exponent(out, value);
    }
}

pub(crate) fn string(out: &mut Vec<u8>, text: &[u8], old: bool) {
    out.push(b'"');
    if old {
        let mut rest = text;
        while let Some(at) = rest.iter().position(|&b| b == b'"') {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(b"\\\"");
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    } else {
        escaped(out, text, b'"');
    }
    out.push(b'"');
}

/// The escapes of the new syntax; of the two quotes only the delimiter is escaped.
fn escaped(out: &mut Vec<u8>, text: &[u8], quote: u8) {
    let mut from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if (b' '..0x7f).contains(&byte) && byte != b'\\' && byte != quote {
            continue;
        }
        out.extend_from_slice(&text[from..at]);
        from = at + 1;
        match byte {
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            11 => out.extend_from_slice(b"\\v"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' | b'\'' => out.extend_from_slice(&[b'\\', byte]),
            _ => out.extend_from_slice(&[
                b'\\',
                b'0' + (byte >> 6),
                b'0' + (byte >> 3 & 7),
                b'0' + (byte & 7),
            ]),
        }
    }
    out.extend_from_slice(&text[from..]);
}

/// Prints a name, in quotes where it needs them.
pub(crate) fn identifier(out: &mut Vec<u8>, name: &[u8]) {
    if is_plain(name) {
        out.extend_from_slice(name);
    } else {
        out.push(b'\'');
        escaped(out, name, b'\'');
        out.push(b'\'');
    }
}

/// Whether a name can be printed without quotes.
pub(crate) fn is_plain(name: &[u8]) -> bool {
    match name {
        [first, rest @ ..] => {
            (first.is_ascii_alphabetic() || *first == b'_')
                && rest.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
                && !reserved(name)
        }
        [] => false,
    }
}

/// Words that cannot be names without quotes, and `parent`, which could.
fn reserved(name: &[u8]) -> bool {
    let words: &[&[u8]] = match name.len() {
        2 => &[b"is"],
        4 => &[b"true", b"isnt"],
        5 => &[b"false", b"error"],
        6 => &[b"parent"],
        9 => &[b"undefined"],
        _ => &[],
    };
    words.iter().any(|word| name.eq_ignore_ascii_case(word))
}
