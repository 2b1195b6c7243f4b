//! From the tree that flattening put together to nodes.

use super::{Flattener, Tree};
use crate::eval::{Items, Val};
use crate::tree::{AdId, Arena, Node, NodeId, Table, tag};
use crate::value::Value;

impl<'a> Flattener<'a> {
    /// Appends the tree's nodes.
    pub(super) fn emit(&self, arena: &mut Arena, tree: &Tree<'a>, scope: AdId) -> NodeId {
        let node = match tree {
            Tree::Literal(value) => return self.emit_value(arena, *value, scope),
            Tree::Copy(unit, id) => {
                return arena.copy_run(self.machine.unit(*unit).arena, *id, scope);
            }
            Tree::Unary(op, child) => {
                self.emit(arena, child, scope);
                Node::unary(*op)
            }
            Tree::Binary(op, left, right) => {
                let left = self.emit(arena, left, scope);
                self.emit(arena, right, scope);
                Node::binary(*op, left)
            }
            Tree::Cond(parts) => {
                let [test, yes, no] = &**parts;
                let test = self.emit(arena, test, scope);
                let yes = self.emit(arena, yes, scope);
                self.emit(arena, no, scope);
                Node::cond(test, yes)
            }
            Tree::Select(base, name) => {
                self.emit(arena, base, scope);
                Node::new(tag::SELECT, 0, name.raw())
            }
            Tree::Call(name, args) => {
                let args: Vec<NodeId> = args
                    .iter()
                    .map(|arg| self.emit(arena, arg, scope))
                    .collect();
                arena.make_call(*name, &args)
            }
            Tree::List(items) => {
                let items: Vec<NodeId> = items
                    .iter()
                    .map(|item| self.emit(arena, item, scope))
                    .collect();
                arena.make_list(scope, &items)
            }
            Tree::Ad(attributes) => {
                arena.nested.push(Table::within(scope));
                let id = arena.nested.len() as u32;
                let mut filled = Vec::new();
                for (name, tree) in attributes {
                    let start = arena.nodes.len();
                    self.emit(arena, tree, id);
                    filled.push((*name, arena.attribute_value(start)));
                }
                arena.nested[id as usize - 1].fill(&mut filled);
                Node::new(tag::AD, 0, id)
            }
        };
        arena.push(node)
    }

    fn emit_value(&self, arena: &mut Arena, value: Val<'a>, scope: AdId) -> NodeId {
        let node = match value {
            Val::Undefined => Node::UNDEFINED,
            Val::Error => Node::ERROR,
            Val::Bool(b) => Node::bool(b),
            Val::Int(i) => arena.make_int(i),
            Val::Real(r) => arena.make_real(r),
            Val::Str(text) => arena.make_str(text),
            Val::Abs(time) => arena.make_abs_time(time),
            Val::Rel(secs) => arena.make_rel_time(secs),
            Val::List(unit, id) => return arena.copy_run(self.machine.unit(unit).arena, id, scope),
            Val::Made(_) | Val::Shared(_) => {
                let items = match self.machine.items(value) {
                    Some(Items::Made(items)) => items,
                    _ => &[],
                };
                let items: Vec<NodeId> = items
                    .iter()
                    .map(|&item| self.emit_value(arena, item, scope))
                    .collect();
                arena.make_list(scope, &items)
            }
            Val::Ad(place) => {
                let ad = Value::from(self.machine.export_ad(place));
                crate::ad::push_value(arena, &ad, 0);
                return (arena.nodes.len() - 1) as u32;
            }
        };
        arena.push(node)
    }
}
