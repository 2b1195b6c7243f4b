//! Evaluation: an expression, the ads around it, and limits on what it may cost.
//!
//! A [`Machine`] lives for one evaluation. It knows the ads that take part as *units* and owns what the evaluation makes:
//! strings, lists and freshly parsed expressions. So values are small and copied freely, and nothing is counted or freed
//! before the end.
//!
//! In a match the two ads are units 0 and 1, and units 2 to 4 are what the library puts around them: a context for each
//! in which `TARGET` and its like are defined, and the match ad at the root.
//!
//! What bounds an evaluation, besides the library's own limits on depth and steps: every level of the evaluator's
//! recursion is counted ([`MAX_FRAMES`]), long strings cost steps in proportion, and what is produced is limited
//! ([`MAX_BYTES`]). Whoever exceeds a limit gets `error`.

mod export;
pub(crate) mod lookup;
pub(crate) mod ops;
mod scope;
pub(crate) mod truth;

pub use scope::Scope;

use std::cell::Cell;

use elsa::FrozenVec;
use truth::Truth;

use crate::ad::ClassAd;
use crate::builtins;
use crate::name::Name;
use crate::tree::{AdId, Arena, Node, NodeId, Op, tag};
use crate::value::AbsTime;

/// The library's limit on nested operators and references.
pub(crate) const MAX_DEPTH: i32 = 400;
/// The library's limit on evaluated nodes.
const MAX_STEPS: i64 = 10_000_000;
/// Levels of recursion of any kind; what fits into a stack of 2 MiB without optimization.
pub(crate) const MAX_FRAMES: i32 = 700;
/// Bytes of strings and elements of lists (as many bytes as they take) that an evaluation may make.
const MAX_BYTES: usize = 64 << 20;

/// The evaluation is over: a limit was reached, and the result is `error` whatever is around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop;

pub(crate) type Ev<'a> = Result<Val<'a>, Stop>;

/// A value during evaluation. Lists and ads stay as they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Val<'a> {
    Undefined,
    Error,
    Bool(bool),
    Int(i64),
    Real(f64),
    Str(&'a [u8]),
    Abs(AbsTime),
    Rel(f64),
    /// A list as written: its unit and node. The unit has [`DETACHED`] set if it is a copy to the library, which then is
    /// of the type of the lists that functions make.
    List(u32, NodeId),
    /// A list made by selecting from the elements of another one.
    Made(&'a [Val<'a>]),
    /// A list made by a function. To the library this is another type than the former two.
    Shared(&'a [Val<'a>]),
    Ad(Place),
}

/// An ad that takes part in the evaluation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) unit: u32,
    pub(crate) ad: AdId,
}

/// Mark in the unit of a list that left its evaluation.
pub(crate) const DETACHED: u32 = 1 << 31;

/// No ad at all.
pub(crate) const NOWHERE: Place = Place {
    unit: u32::MAX,
    ad: 0,
};
pub(crate) const LEFT: Place = Place { unit: 0, ad: 0 };
pub(crate) const RIGHT: Place = Place { unit: 1, ad: 0 };
pub(crate) const MATCH: Place = Place { unit: 4, ad: 0 };

/// An arena that takes part, and what is around its ad.
#[derive(Clone, Copy)]
pub(crate) struct Unit<'a> {
    pub(crate) arena: &'a Arena,
    /// The ad of the arena that `owner` is around.
    pub(crate) top: AdId,
    pub(crate) owner: Place,
    /// Where the unit's own ad looks further.
    pub(crate) chain: Option<&'a ClassAd>,
    /// The arena holds an expression without an ad: what is written in it is written in the owner.
    pub(crate) bare: bool,
}

/// Where evaluation is.
#[derive(Clone)]
pub(crate) struct At<'s, 'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) unit: u32,
    /// The ad in which names are looked up. Some functions leave it changed for what is evaluated after them.
    pub(crate) place: Cell<Place>,
    /// The outermost ad.
    pub(crate) root: Place,
    pub(crate) active: Option<&'s Active<'s>>,
    /// An ad inside one of the matched ads, and the ad that names it lacks are looked up in.
    pub(crate) context: Option<(Place, Place)>,
}

/// The attributes whose evaluation led here: one that leads to itself is undefined.
pub(crate) struct Active<'s> {
    unit: u32,
    node: NodeId,
    up: Option<&'s Active<'s>>,
}

/// What may still be nested: the library's count, and the levels of recursion.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    pub(crate) left: i32,
    frames: i32,
}

impl Depth {
    pub(crate) fn full() -> Depth {
        Depth {
            left: MAX_DEPTH,
            frames: MAX_FRAMES,
        }
    }

    #[inline]
    pub(crate) fn deeper(self) -> Depth {
        Depth {
            left: self.left - 1,
            ..self
        }
    }

    fn higher(self) -> Depth {
        Depth {
            left: self.left + 1,
            ..self
        }
    }

    /// Takes so many levels of recursion.
    pub(crate) fn frame(self, frames: i32) -> Result<Depth, Stop> {
        let frames = self.frames - frames;
        if frames < 0 {
            Err(Stop)
        } else {
            Ok(Depth { frames, ..self })
        }
    }
}

pub(crate) struct Machine<'a> {
    first: [Unit<'a>; 5],
    count: u32,
    more: FrozenVec<Box<Unit<'a>>>,
    /// Two ads are matched, and neither is chained to another one.
    plain: bool,
    steps: Cell<i64>,
    bytes: Cell<usize>,
    strings: FrozenVec<Vec<u8>>,
    lists: FrozenVec<Vec<Val<'a>>>,
    arenas: FrozenVec<Box<Arena>>,
}

impl<'a> Machine<'a> {
    /// For one ad by itself.
    pub(crate) fn single(my: &'a ClassAd) -> Machine<'a> {
        let unit = Unit {
            arena: &my.arena,
            top: 0,
            owner: NOWHERE,
            chain: my.chained_parent(),
            bare: false,
        };
        Machine::new([unit; 5], 1)
    }

    /// For two ads that are matched.
    pub(crate) fn pair(left: &'a ClassAd, right: &'a ClassAd) -> Machine<'a> {
        let around = lookup::surroundings();
        let unit = |ad: &'a ClassAd, owner: u32| Unit {
            arena: &ad.arena,
            top: 0,
            owner: Place { unit: owner, ad: 0 },
            chain: ad.chained_parent(),
            bare: false,
        };
        let context = |arena: &'a Arena, owner: Place| Unit {
            arena,
            top: 0,
            owner,
            chain: None,
            bare: false,
        };
        let units = [
            unit(left, 2),
            unit(right, 3),
            context(&around[0], MATCH),
            context(&around[1], MATCH),
            context(&around[2], NOWHERE),
        ];
        Machine::new(units, 5)
    }

    fn new(first: [Unit<'a>; 5], count: u32) -> Machine<'a> {
        Machine {
            first,
            count,
            more: FrozenVec::new(),
            plain: count == 5 && first[0].chain.is_none() && first[1].chain.is_none(),
            steps: Cell::new(MAX_STEPS),
            bytes: Cell::new(0),
            strings: FrozenVec::new(),
            lists: FrozenVec::new(),
            arenas: FrozenVec::new(),
        }
    }

    /// Whether two ads are matched.
    #[inline]
    pub(crate) fn is_match(&self) -> bool {
        self.count == 5
    }

    #[inline]
    pub(crate) fn unit(&self, unit: u32) -> &Unit<'a> {
        match self.first.get(unit as usize) {
            Some(unit) => unit,
            None => &self.more[(unit & !DETACHED) as usize - 5],
        }
    }

    pub(crate) fn add_unit(&self, unit: Unit<'a>) -> u32 {
        self.more.push(Box::new(unit));
        self.more.len() as u32 + 4
    }

    #[inline]
    pub(crate) fn charge(&self, steps: usize) -> Result<(), Stop> {
        let left = self.steps.get() - steps as i64;
        self.steps.set(left);
        if left < 0 { Err(Stop) } else { Ok(()) }
    }

    /// Charges for work on a string of this length.
    #[inline]
    pub(crate) fn charge_bytes(&self, bytes: usize) -> Result<(), Stop> {
        if bytes < 256 {
            Ok(())
        } else {
            self.charge(bytes / 64)
        }
    }

    fn produce(&self, bytes: usize) -> Result<(), Stop> {
        let all = self.bytes.get() + bytes;
        self.bytes.set(all);
        if all > MAX_BYTES {
            Err(Stop)
        } else {
            self.charge_bytes(bytes)
        }
    }

    /// Whether so much more may still be made.
    pub(crate) fn room(&self, bytes: usize) -> Result<(), Stop> {
        if self.bytes.get() + bytes > MAX_BYTES {
            Err(Stop)
        } else {
            Ok(())
        }
    }

    pub(crate) fn make_str(&'a self, text: Vec<u8>) -> Ev<'a> {
        self.produce(text.len())?;
        Ok(Val::Str(if text.is_empty() {
            &[]
        } else {
            self.strings.push_get(text)
        }))
    }

    pub(crate) fn make_list(&'a self, items: Vec<Val<'a>>) -> Result<&'a [Val<'a>], Stop> {
        self.produce(items.len() * size_of::<Val<'_>>() + 32)?;
        Ok(self.lists.push_get(items))
    }

    pub(crate) fn keep_arena(&'a self, arena: Arena) -> Result<&'a Arena, Stop> {
        self.produce(arena.nodes.len() * 8 + arena.text.len() + 256)?;
        Ok(self.arenas.push_get(Box::new(arena)))
    }

    /// Evaluates the value of an attribute.
    #[inline]
    pub(crate) fn value(&'a self, at: &At<'_, 'a>, value: Node, depth: Depth) -> Ev<'a> {
        match value.tag() {
            tag::LINK => self.eval(at, value.high(), depth),
            tag::FRAME => Ok(Val::Ad(Place {
                unit: value.high(),
                ad: 0,
            })),
            _ => {
                self.charge(1)?;
                Ok(literal(at.arena, value))
            }
        }
    }

    pub(crate) fn eval(&'a self, at: &At<'_, 'a>, id: NodeId, depth: Depth) -> Ev<'a> {
        let node = at.arena.node(id);
        if node.tag() == tag::BINARY
            && ((node.op() as u8) <= Op::Isnt as u8 || matches!(node.op(), Op::And | Op::Or))
        {
            return self.truth(at, id, depth).value();
        }
        self.charge(1)?;
        match node.tag() {
            tag::ATTR => return self.attribute(at, node.name(), depth),
            tag::LIST => return Ok(Val::List(at.unit, id)),
            tag::AD => {
                return Ok(Val::Ad(Place {
                    unit: at.unit,
                    ad: node.high(),
                }));
            }
            tag::BINARY | tag::CALL | tag::SELECT | tag::UNARY | tag::COND | tag::ABSOLUTE => {}
            _ => return Ok(literal(at.arena, node)),
        }
        // A call is two functions deep.
        let depth = depth.frame(if node.tag() == tag::CALL { 2 } else { 1 })?;
        match node.tag() {
            tag::BINARY => self.binary(at, id, node, depth),
            tag::CALL => builtins::call(self, at, node, depth),
            tag::SELECT => self.select(at, id, node.name(), depth),
            tag::UNARY => {
                let value = self.operand(at, id - 1, depth)?;
                Ok(ops::unary(node.op(), value))
            }
            tag::COND => self.conditional(at, id, node, depth),
            _ => {
                if at.root == NOWHERE {
                    return Err(Stop);
                }
                let found = self.find(at, at.root, node.name());
                self.found(at, found, depth)
            }
        }
    }

    /// An operand of an operator, which is one level deeper.
    #[inline]
    fn operand(&'a self, at: &At<'_, 'a>, id: NodeId, depth: Depth) -> Ev<'a> {
        if depth.left <= 0 {
            return Err(Stop);
        }
        self.eval(at, id, depth.deeper())
    }

    fn binary(&'a self, at: &At<'_, 'a>, id: NodeId, node: Node, depth: Depth) -> Ev<'a> {
        let op = node.op();
        // Operands are looked at where they are returned to; see `truth`.
        let left = self.operand(at, node.high(), depth);
        let Ok(l) = &left else { return Err(Stop) };
        if op == Op::Elvis && !matches!(l, Val::Undefined) {
            return left;
        }
        let right = self.operand(at, id - 1, depth);
        let Ok(r) = &right else { return Err(Stop) };
        match (op, l, r) {
            (Op::Elvis, ..) => right,
            (Op::Subscript, ..) => self.subscript(at, *l, *r, depth.deeper()),
            (Op::Add, Val::Int(l), Val::Int(r)) => Ok(Val::Int(l.wrapping_add(*r))),
            (Op::Sub, Val::Int(l), Val::Int(r)) => Ok(Val::Int(l.wrapping_sub(*r))),
            (Op::Mul, Val::Int(l), Val::Int(r)) => Ok(Val::Int(l.wrapping_mul(*r))),
            _ => Ok(ops::binary(op, *l, *r)),
        }
    }

    fn conditional(&'a self, at: &At<'_, 'a>, id: NodeId, node: Node, depth: Depth) -> Ev<'a> {
        let (test, yes) = node.cond_links();
        if depth.left <= 0 {
            return Err(Stop);
        }
        match self.truth(at, test, depth.deeper()) {
            Truth::True => self.operand(at, yes, depth),
            Truth::False => self.operand(at, id - 1, depth),
            Truth::Undefined => Ok(Val::Undefined),
            Truth::Error => Ok(Val::Error),
            Truth::Stop => Err(Stop),
            Truth::Other => {
                // What is no condition costs the evaluation of both branches, and their failure counts.
                self.operand(at, yes, depth)?;
                self.operand(at, id - 1, depth)?;
                Ok(Val::Error)
            }
        }
    }

    pub(crate) fn subscript(
        &'a self,
        at: &At<'_, 'a>,
        left: Val<'a>,
        right: Val<'a>,
        depth: Depth,
    ) -> Ev<'a> {
        match (left, right) {
            (Val::Error, _) | (_, Val::Error) => Ok(Val::Error),
            (Val::Undefined, _) | (_, Val::Undefined) => Ok(Val::Undefined),
            (Val::Ad(place), Val::Str(name)) => {
                let Some(name) = Name::known(name) else {
                    return Ok(Val::Undefined);
                };
                let Some(found) = self.own(place, name.key()) else {
                    return Ok(Val::Undefined);
                };
                let inner = At {
                    place: Cell::new(place),
                    root: self.outermost(place),
                    context: None,
                    ..*at
                };
                let value = self.found(&inner, found, depth);
                Ok(value.map_or(Val::Error, |value| self.detached(value)))
            }
            (Val::List(unit, id), Val::Int(index)) => {
                let unit = unit & !DETACHED;
                let arena = self.unit(unit).arena;
                let node = arena.node(id);
                // The library keeps only the low 32 bits of the index.
                let Ok(index) = usize::try_from(index as i32) else {
                    return Ok(Val::Error);
                };
                let Some(&item) = arena.children(node).get(index) else {
                    return Ok(Val::Error);
                };
                if depth.left <= 0 {
                    return Ok(Val::Error);
                }
                let place = Cell::new(self.lexical(unit, arena.list_scope(node)));
                let inner = At {
                    arena,
                    unit,
                    place,
                    ..*at
                };
                Ok(self
                    .eval(&inner, item, depth.deeper())
                    .unwrap_or(Val::Error))
            }
            (Val::Made(items) | Val::Shared(items), Val::Int(index)) => {
                let item = usize::try_from(index as i32)
                    .ok()
                    .and_then(|index| items.get(index));
                Ok(item.copied().unwrap_or(Val::Error))
            }
            _ => Ok(Val::Error),
        }
    }

    /// The elements of a list, unevaluated.
    pub(crate) fn items(&self, list: Val<'a>) -> Option<Items<'a>> {
        match list {
            Val::List(unit, id) => {
                let unit = unit & !DETACHED;
                let arena = self.unit(unit).arena;
                Some(Items::Written {
                    arena,
                    unit,
                    ids: arena.children(arena.node(id)),
                })
            }
            Val::Made(items) | Val::Shared(items) => Some(Items::Made(items)),
            _ => None,
        }
    }

    /// Evaluates an element of a list for a function: in the place of the caller, whoever wrote the list.
    pub(crate) fn item(
        &'a self,
        at: &At<'_, 'a>,
        items: Items<'a>,
        index: usize,
        depth: Depth,
    ) -> Ev<'a> {
        match items {
            Items::Written { arena, unit, ids } => {
                let inner = At {
                    arena,
                    unit,
                    place: at.place.clone(),
                    ..*at
                };
                let value = self.eval(&inner, ids[index], depth);
                // An element may change the place for what comes after it.
                at.place.set(inner.place.get());
                value
            }
            Items::Made(items) => {
                self.charge(1)?;
                Ok(items[index])
            }
        }
    }

    /// The start of an evaluation in an ad.
    pub(crate) fn at(&self, place: Place) -> At<'static, 'a> {
        if place == NOWHERE {
            return At {
                place: Cell::new(NOWHERE),
                root: NOWHERE,
                ..self.at(LEFT)
            };
        }
        let arena = self.unit(place.unit).arena;
        At {
            arena,
            unit: place.unit,
            place: Cell::new(place),
            root: self.outermost(place),
            active: None,
            context: None,
        }
    }

    /// Evaluates a name as if it were an expression by itself.
    pub(crate) fn evaluate_name(&'a self, place: Place, name: Name) -> Val<'a> {
        let at = self.at(place);
        let found = self.find(&at, place, name);
        // The attribute itself is not a level of its own here.
        self.found(&at, found, Depth::full().higher())
            .unwrap_or(Val::Error)
    }

    /// Evaluates an attribute that the ad itself has.
    #[inline]
    pub(crate) fn evaluate_own(&'a self, place: Place, key: u32, depth: Depth) -> Val<'a> {
        let Some(found) = self.own(place, key) else {
            return Val::Undefined;
        };
        self.found(&self.at(place), found, depth)
            .unwrap_or(Val::Error)
    }

    /// Evaluates an expression of one of the two ads; only where it holds lists or ads does it need a unit.
    pub(crate) fn evaluate_prepared(
        &'a self,
        place: Place,
        arena: &'a Arena,
        value: Node,
    ) -> Val<'a> {
        if value.is_literal() {
            return literal(arena, value);
        }
        self.evaluate_expr(place, arena, value)
    }

    /// Evaluates an expression as if it were an attribute of an ad that takes part.
    pub(crate) fn evaluate_expr(&'a self, place: Place, arena: &'a Arena, value: Node) -> Val<'a> {
        let unit = self.add_unit(Unit {
            arena,
            top: 0,
            owner: place,
            chain: None,
            bare: true,
        });
        let at = At {
            arena,
            unit,
            ..self.at(place)
        };
        self.value(&at, value, Depth::full()).unwrap_or(Val::Error)
    }
}

/// The elements of a list.
#[derive(Clone, Copy)]
pub(crate) enum Items<'a> {
    Written {
        arena: &'a Arena,
        unit: u32,
        ids: &'a [NodeId],
    },
    Made(&'a [Val<'a>]),
}

impl Items<'_> {
    pub(crate) fn len(self) -> usize {
        match self {
            Items::Written { ids, .. } => ids.len(),
            Items::Made(items) => items.len(),
        }
    }
}

#[inline]
pub(crate) fn literal(arena: &Arena, node: Node) -> Val<'_> {
    match node.tag() {
        tag::UNDEFINED => Val::Undefined,
        tag::FALSE => Val::Bool(false),
        tag::TRUE => Val::Bool(true),
        tag::SMALL | tag::WIDE => Val::Int(arena.int(node)),
        tag::REAL => Val::Real(arena.real(node)),
        tag::STR => Val::Str(arena.str(node)),
        tag::ABSTIME => Val::Abs(arena.abs_time(node)),
        // The library evaluates this literal to a real, though it prints it as a time.
        tag::RELTIME => Val::Real(arena.real(node)),
        tag::FRAME => Val::Ad(Place {
            unit: node.high(),
            ad: 0,
        }),
        _ => Val::Error,
    }
}
