//! Functions on strings, which are bytes to all of them.

use std::cmp::Ordering;

use super::Call;
use crate::eval::{Ev, Machine, Stop, Val, ops};
use crate::number;
use crate::time;
use crate::tree::{Arena, Node, tag};
use crate::unparse::{self, Syntax};

/// The value as a string, as `string()` makes one; undefined and error stay what they are.
pub(crate) fn stringify<'a>(machine: &'a Machine<'a>, value: Val<'a>) -> Ev<'a> {
    let mut out = Vec::new();
    match value {
        Val::Str(_) | Val::Undefined | Val::Error => return Ok(value),
        Val::Abs(time) => time::push_abs(&mut out, time),
        // The library loses the fraction on the way.
        Val::Rel(secs) => time::push_rel(&mut out, secs.trunc()),
        other => push(machine, &mut out, other, 0)?,
    }
    machine.make_str(out)
}

/// Prints a value in the new syntax.
fn push<'a>(
    machine: &'a Machine<'a>,
    out: &mut Vec<u8>,
    value: Val<'a>,
    depth: u32,
) -> Result<(), Stop> {
    match value {
        Val::Undefined => out.extend_from_slice(b"undefined"),
        Val::Error => out.extend_from_slice(b"error"),
        Val::Bool(b) => out.extend_from_slice(if b { b"true" } else { b"false" }),
        Val::Int(i) => number::push_int(out, i),
        Val::Real(r) => unparse::real(out, r, false),
        Val::Str(text) => unparse::string(out, text, false),
        Val::Abs(time) => {
            let mut arena = Arena::default();
            let node = arena.make_abs_time(time);
            unparse::literal(out, &arena, node, false);
        }
        Val::Rel(secs) => {
            let mut arena = Arena::default();
            let node = arena.make_rel_time(secs);
            unparse::literal(out, &arena, node, false);
        }
        Val::List(unit, id) => {
            let arena = machine.unit(unit).arena;
            machine.charge(arena.nodes.len().min(1 << 20) / 16)?;
            unparse::value(out, arena, Node::new(tag::LINK, 0, id), Syntax::New);
        }
        Val::Ad(place) => {
            let arena = machine.unit(place.unit).arena;
            machine.charge(arena.nodes.len().min(1 << 20) / 16)?;
            unparse::ad(out, arena, place.ad, Syntax::New);
        }
        Val::Made(_) | Val::Shared(_) if depth > 64 => return Err(Stop),
        Val::Made(items) | Val::Shared(items) => {
            out.extend_from_slice(b"{ ");
            for (i, &item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                machine.charge(1)?;
                machine.room(out.len())?;
                push(machine, out, item, depth + 1)?;
            }
            out.extend_from_slice(b" }");
        }
    }
    machine.room(out.len())
}

/// What to make of strings that are put together one by one.
struct Joined {
    text: Vec<u8>,
    undefined: bool,
    defined: bool,
}

pub(super) fn strcat<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let mut text = Vec::new();
    for index in 0..c.args.len() {
        if c.depth.left <= 0 {
            return Err(Stop);
        }
        let value = c.machine.eval(c.at, c.args[index], c.depth.deeper())?;
        match stringify(c.machine, value)? {
            Val::Str(part) => text.extend_from_slice(part),
            // The first one that is undefined or an error decides.
            other => return Ok(other),
        }
        c.machine.room(text.len())?;
    }
    c.machine.make_str(text)
}

pub(super) fn join<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let mut joined = Joined {
        text: Vec::new(),
        undefined: false,
        defined: false,
    };
    let mut separator: &[u8] = b"";
    let depth = c.depth.deeper();
    let count = c.args.len();
    let mut list = None;
    if count == 1 || count == 2 {
        if c.depth.left <= 0 {
            return Err(Stop);
        }
        list = c
            .machine
            .items(c.machine.eval(c.at, c.args[count - 1], depth)?);
    }
    let plain = match list {
        Some(_) => count - 1,
        None => count,
    };
    for index in 0..plain {
        if c.depth.left <= 0 {
            return Err(Stop);
        }
        let value = c.machine.eval(c.at, c.args[index], depth)?;
        match stringify(c.machine, value)? {
            Val::Str(part) if index == 0 => separator = part,
            Val::Str(part) => joined.add(c, separator, part)?,
            Val::Undefined => joined.undefined = true,
            _ => return Ok(Val::Error),
        }
    }
    if let Some(items) = list {
        for index in 0..items.len() {
            if c.depth.left <= 0 {
                return Err(Stop);
            }
            let value = c.machine.item(c.at, items, index, depth)?;
            match stringify(c.machine, value)? {
                Val::Str(part) => joined.add(c, separator, part)?,
                Val::Undefined => joined.undefined = true,
                _ => return Ok(Val::Error),
            }
        }
    }
    if joined.undefined && !joined.defined {
        return Ok(Val::Undefined);
    }
    c.machine.make_str(joined.text)
}

impl Joined {
    /// Nothing separates what comes first, nor what comes after nothing but empty strings.
    fn add(&mut self, c: &Call<'_, '_>, separator: &[u8], part: &[u8]) -> Result<(), Stop> {
        if !self.text.is_empty() {
            self.text.extend_from_slice(separator);
        }
        self.defined = true;
        self.text.extend_from_slice(part);
        c.machine.room(self.text.len())
    }
}

pub(super) fn change_case<'a>(c: &Call<'_, 'a>, upper: bool) -> Ev<'a> {
    let Some(value) = c.only()? else {
        return Ok(Val::Error);
    };
    match stringify(c.machine, value)? {
        Val::Str(text) if upper => c.machine.make_str(text.to_ascii_uppercase()),
        Val::Str(text) => c.machine.make_str(text.to_ascii_lowercase()),
        other => Ok(other),
    }
}

pub(super) fn substr<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if !matches!(c.args.len(), 2 | 3) {
        return Ok(Val::Error);
    }
    let (text, offset) = (c.arg(0)?, c.arg(1)?);
    let len = if c.args.len() == 3 {
        Some(c.arg(2)?)
    } else {
        None
    };
    if matches!(text, Val::Undefined)
        || matches!(offset, Val::Undefined)
        || matches!(len, Some(Val::Undefined))
    {
        return Ok(Val::Undefined);
    }
    let (Val::Str(text), Val::Int(offset)) = (text, offset) else {
        return Ok(Val::Error);
    };
    let len = match len {
        None => None,
        Some(Val::Int(len)) => Some(i64::from(len as i32)),
        Some(_) => return Ok(Val::Error),
    };
    // Offset and length are 32 bits wide to the library.
    let offset = i64::from(offset as i32);
    let all = text.len() as i64;
    let from = if offset < 0 {
        (all + offset).max(0)
    } else {
        offset.min(all)
    };
    let rest = all - from;
    let len = match len {
        Some(0) => 0,
        None => rest,
        Some(len) if len < 0 => (rest + len).max(0),
        Some(len) => len.min(rest),
    };
    Ok(Val::Str(&text[from as usize..(from + len) as usize]))
}

pub(super) fn compare<'a>(c: &Call<'_, 'a>, ignore_case: bool) -> Ev<'a> {
    if c.args.len() != 2 {
        return Ok(Val::Error);
    }
    let (left, right) = (c.arg(0)?, c.arg(1)?);
    if matches!(left, Val::Undefined) || matches!(right, Val::Undefined) {
        return Ok(Val::Undefined);
    }
    match (stringify(c.machine, left)?, stringify(c.machine, right)?) {
        (Val::Str(l), Val::Str(r)) => {
            c.machine.charge_bytes(l.len().min(r.len()))?;
            let order = if ignore_case {
                ops::compare_ignoring_case(l, r)
            } else {
                l.cmp(r)
            };
            Ok(Val::Int(match order {
                Ordering::Less => -1,
                Ordering::Equal => 0,
                Ordering::Greater => 1,
            }))
        }
        _ => Ok(Val::Error),
    }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || (9..=13).contains(&byte)
}

/// Splits at any of the separators. An empty item is kept only between two equal ones that are not blank.
pub(super) fn split<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if !matches!(c.args.len(), 1 | 2) {
        return Ok(Val::Error);
    }
    let text = c.arg(0)?;
    let separators = if c.args.len() == 2 {
        c.arg(1)?
    } else {
        Val::Str(b", \t")
    };
    let (Val::Str(text), Val::Str(separators)) = (text, separators) else {
        return Ok(Val::Error);
    };
    c.machine
        .charge_bytes(text.len() + text.len() * separators.len().min(256) / 8)?;
    let wanted = crate::regex::Set::of(|b| separators.contains(&b));
    let mut items = Vec::new();
    let mut last = 0;
    let mut previous = None;
    for (at, &byte) in text.iter().enumerate() {
        if !wanted.has(byte) {
            continue;
        }
        if at > last {
            items.push(Val::Str(&text[last..at]));
        } else if previous == Some(byte) && !is_space(byte) {
            items.push(Val::Str(b""));
        }
        if !is_space(byte) {
            previous = Some(byte);
        }
        last = at + 1;
    }
    if text.len() > last {
        items.push(Val::Str(&text[last..]));
    }
    Ok(Val::Shared(c.machine.make_list(items)?))
}

/// `user@domain` and `slot@machine`: which half a text without `@` is.
pub(super) fn split_at<'a>(c: &Call<'_, 'a>, alone_is_first: bool) -> Ev<'a> {
    let Some(Val::Str(text)) = c.only()? else {
        return Ok(Val::Error);
    };
    let (first, second): (&[u8], &[u8]) = match text.iter().position(|&b| b == b'@') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None if alone_is_first => (text, b""),
        None => (b"", text),
    };
    Ok(Val::Shared(
        c.machine
            .make_list(vec![Val::Str(first), Val::Str(second)])?,
    ))
}
