//! Functions whose arguments are expressions rather than values.

use std::cell::Cell;

use super::Call;
use super::strings::stringify;
use crate::eval::lookup::{Found, as_literal};
use crate::eval::{At, Ev, LEFT, MATCH, NOWHERE, Place, RIGHT, Stop, Unit, Val, ops};
use crate::parse;
use crate::refs;
use crate::regex::{Options, Regex};
use crate::tree::{Node, tag};
use crate::unparse::{self, Syntax};

/// Parses a text and evaluates it where the call is.
pub(super) fn eval<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let Some(value) = c.only()? else {
        return Ok(Val::Error);
    };
    let Val::Str(text) = stringify(c.machine, value)? else {
        return Ok(Val::Error);
    };
    if c.depth.left <= 0 {
        return Err(Stop);
    }
    // A fresh parse costs far more than the evaluation of what is there already.
    c.machine.charge(16 + text.len() / 4)?;
    let Ok((arena, value)) = parse::expression(text, false) else {
        return Ok(Val::Error);
    };
    let arena = c.machine.keep_arena(arena)?;
    let unit = c.machine.add_unit(Unit {
        arena,
        top: 0,
        owner: c.at.place.get(),
        chain: None,
        bare: true,
    });
    let inner = At {
        arena,
        unit,
        place: c.at.place.clone(),
        ..*c.at
    };
    let value = c.machine.value(&inner, value, c.depth.deeper());
    c.at.place.set(inner.place.get());
    value
}

/// An attribute's expression as text.
pub(super) fn unparse<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let &[arg] = c.args else {
        return Ok(Val::Error);
    };
    let node = c.at.arena.node(arg);
    if !matches!(node.tag(), tag::ATTR | tag::ABSOLUTE | tag::SELECT) {
        return Ok(Val::Error);
    }
    // Only a plain name is looked up, and only as it is printed.
    let mut name = Vec::new();
    unparse::value(
        &mut name,
        c.at.arena,
        Node::new(tag::LINK, 0, arg),
        Syntax::New,
    );
    let found = crate::name::Name::known(&name)
        .and_then(|name| c.machine.own(c.at.place.get(), name.key()));
    let Some(Found::Value { arena, value, .. }) = found else {
        return c.machine.make_str(Vec::new());
    };
    let mut out = Vec::new();
    c.machine.charge(arena.nodes.len() / 16)?;
    unparse::value(&mut out, arena, value, Syntax::Pretty);
    c.machine.make_str(out)
}

/// The names that an attribute's expression needs from elsewhere; with a pattern, whether one of them matches.
pub(super) fn unresolved<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if !matches!(c.args.len(), 1 | 2) {
        return Ok(Val::Error);
    }
    let node = c.at.arena.node(c.args[0]);
    if !matches!(node.tag(), tag::ATTR | tag::ABSOLUTE | tag::SELECT) {
        return Ok(Val::Error);
    }
    let Some(Found::Value {
        arena,
        unit,
        place,
        value,
    }) = c.machine.dereference(c.at, c.args[0], c.depth)?
    else {
        return Ok(Val::Undefined);
    };
    let regex = match c.args.get(1) {
        Some(_) => {
            let Val::Str(pattern) = c.arg(1)? else {
                return Err(Stop);
            };
            match Regex::cached(
                pattern,
                Options {
                    caseless: true,
                    ..Options::default()
                },
            ) {
                Some(regex) => Some(regex),
                None => return Ok(Val::Error),
            }
        }
        None => None,
    };
    let at = At {
        arena,
        unit,
        place: Cell::new(place),
        ..*c.at
    };
    let names = refs::external(c.machine, &at, value, c.depth).unwrap_or_default();
    let mut list = Vec::new();
    for name in &names {
        let name = match name.get(..7) {
            Some(start) if start.eq_ignore_ascii_case(b"target.") => &name[7..],
            _ => name,
        };
        if let Some(regex) = &regex {
            let (found, steps) = regex.find(name, 0, false);
            c.machine.charge(1 + steps / 8)?;
            if matches!(found, Ok(Some(captures)) if captures.get(0).is_some_and(|(from, to)| to > from))
            {
                return Ok(Val::Bool(true));
            }
            continue;
        }
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(name);
    }
    if regex.is_some() {
        Ok(Val::Bool(false))
    } else {
        c.machine.make_str(list)
    }
}

/// `evalInEachContext` and `countMatches`: an expression in each ad of a list.
pub(super) fn each<'a>(c: &Call<'_, 'a>, values: bool) -> Ev<'a> {
    let &[expr, list] = c.args else {
        return Ok(Val::Error);
    };
    let machine = c.machine;
    // A reference that leads somewhere stands for what is there.

    let mut target = Target {
        at: c.at.clone(),
        value: Node::new(tag::LINK, 0, expr),
    };
    if matches!(
        c.at.arena.node(expr).tag(),
        tag::ATTR | tag::ABSOLUTE | tag::SELECT
    ) {
        match machine.dereference(c.at, expr, c.depth)? {
            Some(Found::Value {
                arena, unit, value, ..
            }) => {
                target = Target {
                    at: At {
                        arena,
                        unit,
                        ..c.at.clone()
                    },
                    value,
                };
            }
            Some(Found::Ad(place)) => {
                target.value = Node::new(tag::AD, 0, place.ad);
                target.at = At {
                    arena: machine.unit(place.unit).arena,
                    unit: place.unit,
                    ..c.at.clone()
                };
            }
            _ => {}
        }
    }
    let list = match machine.eval(c.at, list, c.depth) {
        Ok(Val::Undefined) if values => return Ok(Val::Undefined),
        Ok(Val::Undefined) => return Ok(Val::Int(0)),
        Ok(list) => list,
        Err(Stop) => return Ok(Val::Error),
    };
    let Some(items) = machine.items(list) else {
        return Ok(Val::Error);
    };
    let mut results = Vec::new();
    let mut count = 0;
    for index in 0..items.len() {
        machine.charge(1)?;
        let result = match machine.item(c.at, items, index, c.depth) {
            Ok(Val::Ad(place)) => target.evaluate(c, place).unwrap_or(Val::Error),
            Ok(Val::Undefined) => Val::Undefined,
            _ => Val::Error,
        };
        if values {
            results.push(as_literal(result));
        } else if ops::truth(result) == Some(true) {
            count += 1;
        }
    }
    if values {
        Ok(Val::Shared(machine.make_list(results)?))
    } else {
        Ok(Val::Int(count))
    }
}

/// What is evaluated in each ad.
struct Target<'s, 'a> {
    at: At<'s, 'a>,
    value: Node,
}

impl<'a> Target<'_, 'a> {
    fn evaluate(&self, c: &Call<'_, 'a>, place: Place) -> Ev<'a> {
        let machine = c.machine;
        let mut context = None;
        if machine.is_match() && c.at.root == MATCH {
            let around = machine.around(place);
            // What the ad lacks is looked up in the other ad of the match, as for the ad that it is part of.
            if machine.is_within(around, LEFT) {
                context = Some((place, RIGHT));
            } else if machine.is_within(around, RIGHT) {
                context = Some((place, LEFT));
            }
        }
        let at = At {
            place: Cell::new(place),
            root: machine.outermost(place),
            context,
            ..self.at
        };
        match self.value.tag() {
            tag::AD => Ok(Val::Ad(Place {
                unit: at.unit,
                ad: self.value.high(),
            })),
            _ => machine.value(&at, self.value, c.depth.deeper().frame(8)?),
        }
    }
}

impl<'a> crate::eval::Machine<'a> {
    /// Whether `inner` is `place` or around it.
    fn is_within(&self, inner: Place, mut place: Place) -> bool {
        while place != NOWHERE {
            if place == inner {
                return true;
            }
            place = self.around(place);
        }
        false
    }
}
