//! Values as the users of the library get them: nothing in them refers to the evaluation.

use super::{At, DETACHED, Depth, Machine, Place, Stop, Val};
use crate::ad::ClassAd;
use crate::tree::{Arena, Node, tag};
use crate::value::Value;

/// Levels of lists in a result that come from evaluating an element: a list can contain itself.
const MAX_LIST_DEPTH: u32 = 10;
/// The same, where lists are written inside one another; the parser lets no more through.
const MAX_WRITTEN_DEPTH: u32 = 170;
/// Elements of lists, on all levels, in a result.
const MAX_ELEMENTS: u32 = 1 << 20;

impl<'a> Machine<'a> {
    /// The value as the user of the library gets it.
    pub(crate) fn exported(&'a self, value: Val<'a>) -> Value {
        self.export(value, (0, 0), &mut { MAX_ELEMENTS })
    }

    /// Elements of lists are evaluated where they were written. `levels` counts the lists around the value, and those of
    /// them that were not written there.
    fn export(&'a self, value: Val<'a>, levels: (u32, u32), elements: &mut u32) -> Value {
        let (level, evaluated) = levels;
        match value {
            Val::Undefined => Value::Undefined,
            Val::Error => Value::Error,
            Val::Bool(b) => Value::Bool(b),
            Val::Int(i) => Value::Int(i),
            Val::Real(r) => Value::Real(r),
            // A long string in a list that doubles would be copied a million times.
            Val::Str(text) if level > 0 && self.produce(text.len()).is_err() => Value::Error,
            Val::Str(text) => Value::Str(text.into()),
            Val::Abs(time) => Value::AbsTime(time),
            Val::Rel(secs) => Value::RelTime(secs),
            Val::Ad(place) => {
                let arena = self.unit(place.unit).arena;
                match self.produce(arena.nodes.len() * 8 + arena.text.len()) {
                    Err(Stop) if level > 0 => Value::Error,
                    _ => Value::Ad(Box::new(self.export_ad(place))),
                }
            }
            _ if level >= MAX_WRITTEN_DEPTH || evaluated >= MAX_LIST_DEPTH => Value::Error,
            Val::List(unit, id) => {
                let unit = unit & !DETACHED;
                let arena = self.unit(unit).arena;
                let node = arena.node(id);
                let place = self.lexical(unit, arena.list_scope(node));
                let at = At {
                    arena,
                    unit,
                    ..self.at(place)
                };
                let mut out = Vec::new();
                for &id in arena.children(node) {
                    if *elements == 0 {
                        return Value::Error;
                    }
                    *elements -= 1;
                    let item = self.eval(&at, id, Depth::full()).unwrap_or(Val::Error);
                    let written = u32::from(arena.node(id).tag() != tag::LIST);
                    out.push(self.export(item, (level + 1, evaluated + written), elements));
                }
                Value::List(out)
            }
            Val::Made(items) | Val::Shared(items) => {
                let mut out = Vec::new();
                for &item in items {
                    if *elements == 0 {
                        return Value::Error;
                    }
                    *elements -= 1;
                    out.push(self.export(item, (level + 1, evaluated + 1), elements));
                }
                Value::List(out)
            }
        }
    }

    /// A copy of an ad that stands by itself.
    pub(crate) fn export_ad(&self, place: Place) -> ClassAd {
        let from = self.unit(place.unit).arena;
        let table = from.table(place.ad);
        let mut arena = Arena::default();
        let values = table
            .values
            .iter()
            .map(|&value| arena_copy(&mut arena, from, value))
            .collect();
        arena.root = table.with_values(0, values);
        ClassAd::from_arena(arena)
    }
}

fn arena_copy(arena: &mut Arena, from: &Arena, value: Node) -> Node {
    match value.tag() {
        tag::FRAME => Node::ERROR,
        _ => arena.copy_value(from, value, 0),
    }
}
