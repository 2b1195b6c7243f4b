//! Conditions.
//!
//! `Requirements` are made of comparisons joined by `&&` and `||`. What these pass on is one of a few cases, so it goes
//! through a register; a [`Val`] would be written to memory and read again at every operator. The meaning is that of
//! [`Machine::eval`], step by step, so that the limits on depth and steps hold alike.

use super::{At, Depth, Ev, Machine, Stop, Val, ops};
use crate::name;
use crate::tree::{Node, NodeId, Op, tag};

/// What a condition makes of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Truth {
    False,
    True,
    Undefined,
    Error,
    /// A value, but neither true nor false: an error to all that ask.
    Other,
    /// A limit was reached.
    Stop,
}

impl Truth {
    #[inline]
    fn of(b: bool) -> Truth {
        if b { Truth::True } else { Truth::False }
    }

    #[inline]
    fn of_value(value: &Ev<'_>) -> Truth {
        match value {
            Ok(Val::Bool(b)) => Truth::of(*b),
            Ok(Val::Undefined) => Truth::Undefined,
            Ok(Val::Error) => Truth::Error,
            Ok(Val::Int(i)) => Truth::of(*i != 0),
            Ok(Val::Real(r)) => Truth::of(*r != 0.0),
            Ok(_) => Truth::Other,
            Err(Stop) => Truth::Stop,
        }
    }

    /// As the value of a logical operator.
    #[inline]
    pub(crate) fn value<'a>(self) -> Ev<'a> {
        match self {
            Truth::False => Ok(Val::Bool(false)),
            Truth::True => Ok(Val::Bool(true)),
            Truth::Undefined => Ok(Val::Undefined),
            Truth::Error | Truth::Other => Ok(Val::Error),
            Truth::Stop => Err(Stop),
        }
    }

    #[inline]
    fn not(self) -> Truth {
        match self {
            Truth::False => Truth::True,
            Truth::True => Truth::False,
            Truth::Other => Truth::Error,
            same => same,
        }
    }
}

impl<'a> Machine<'a> {
    /// Evaluates a condition.
    pub(crate) fn truth(&'a self, at: &At<'_, 'a>, id: NodeId, depth: Depth) -> Truth {
        let node = at.arena.node(id);
        match node.tag() {
            tag::BINARY
                if (node.op() as u8) <= Op::Isnt as u8 || matches!(node.op(), Op::And | Op::Or) => {
            }
            tag::UNARY if matches!(node.op(), Op::Not | Op::Parens) => {}
            tag::ATTR => return self.truth_of_name(at, id, node, depth),
            _ => return Truth::of_value(&self.eval(at, id, depth)),
        }
        let Ok(depth) = depth.frame(1) else {
            return Truth::Stop;
        };
        if self.charge(1).is_err() || depth.left <= 0 {
            return Truth::Stop;
        }
        let inner = depth.deeper();
        match node.op() {
            Op::Parens => self.truth(at, id - 1, inner),
            Op::Not => self.truth(at, id - 1, inner).not(),
            Op::And | Op::Or => {
                let deciding = if node.op() == Op::Or {
                    Truth::True
                } else {
                    Truth::False
                };
                let left = self.truth(at, node.high(), inner);
                if left == deciding || matches!(left, Truth::Error | Truth::Stop) {
                    return left;
                }
                let right = self.truth(at, id - 1, inner);
                match (left, right) {
                    (_, Truth::Stop) => Truth::Stop,
                    (Truth::Other, _) | (_, Truth::Other) => Truth::Error,
                    (Truth::Undefined, right) if right == deciding || right == Truth::Error => {
                        right
                    }
                    (Truth::Undefined, _) => Truth::Undefined,
                    (_, right) => right,
                }
            }
            op => self.compare(at, id, op, node.high(), inner),
        }
    }

    /// An attribute that is a literal, or a condition itself.
    fn truth_of_name(&'a self, at: &At<'_, 'a>, id: NodeId, node: Node, depth: Depth) -> Truth {
        let place = at.place.get();
        let plain = place.ad == 0
            && place.unit < 2
            && self.plain
            && node.name().key() >= name::FIRST_ORDINARY;
        let own = &self.first[place.unit as usize & 1];
        let value = if plain {
            own.arena.root.get(node.name().key())
        } else {
            None
        };
        let Some(value) = value else {
            return Truth::of_value(&self.eval(at, id, depth));
        };
        match value.tag() {
            tag::TRUE | tag::FALSE if depth.left > 0 => match self.charge(2) {
                Ok(()) => Truth::of(value.tag() == tag::TRUE),
                Err(Stop) => Truth::Stop,
            },
            tag::LINK if depth.left > 0 && self.charge(1).is_ok() => {
                let unit = place.unit;
                self.enter(
                    at,
                    (own.arena, unit),
                    place,
                    value.high(),
                    depth,
                    |machine, at, id, depth| machine.truth(at, id, depth),
                )
                .unwrap_or(Truth::Undefined)
            }
            _ => Truth::of_value(&self.eval(at, id, depth)),
        }
    }

    #[inline]
    fn compare(&'a self, at: &At<'_, 'a>, id: NodeId, op: Op, left: NodeId, depth: Depth) -> Truth {
        // Looked at where they are returned to: moving them costs more than comparing them.
        let left = self.eval(at, left, depth);
        let Ok(l) = &left else { return Truth::Stop };
        let right = self.eval(at, id - 1, depth);
        let Ok(r) = &right else { return Truth::Stop };
        match (l, r) {
            (Val::Int(l), Val::Int(r)) => Truth::of(match op {
                Op::Lt => l < r,
                Op::Le => l <= r,
                Op::Eq | Op::Is => l == r,
                Op::Ne | Op::Isnt => l != r,
                Op::Ge => l >= r,
                _ => l > r,
            }),
            (Val::Undefined, Val::Undefined) if op == Op::Is => Truth::True,
            (Val::Undefined, Val::Undefined) if op == Op::Isnt => Truth::False,
            (Val::Undefined, _) | (_, Val::Undefined) if op == Op::Is => Truth::False,
            (Val::Undefined, _) | (_, Val::Undefined) if op == Op::Isnt => Truth::True,
            (Val::Undefined, Val::Int(_) | Val::Real(_) | Val::Str(_))
            | (Val::Int(_) | Val::Real(_) | Val::Str(_), Val::Undefined) => Truth::Undefined,
            (Val::Str(l), Val::Str(r)) => {
                if self.charge_bytes(l.len().min(r.len())).is_err() {
                    return Truth::Stop;
                }
                match op {
                    Op::Is => Truth::of(l == r),
                    Op::Isnt => Truth::of(l != r),
                    Op::Eq => Truth::of(l.eq_ignore_ascii_case(r)),
                    Op::Ne => Truth::of(!l.eq_ignore_ascii_case(r)),
                    _ => Truth::of_value(&Ok(ops::binary(op, Val::Str(l), Val::Str(r)))),
                }
            }
            _ => Truth::of_value(&Ok(ops::binary(op, *l, *r))),
        }
    }
}
