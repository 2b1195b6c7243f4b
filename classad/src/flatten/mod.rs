//! Partial evaluation, with the library's rules for what is folded and reordered.
//!
//! An operand comes out as a value, as a tree, or, below an operator that is commutative and associative, as both: the
//! constants of `1 + x + 2` are gathered while the tree is built, and end up as `3 + x`.

mod emit;

use crate::ad::{ClassAd, Expr};
use crate::builtins::Kind;
use crate::eval::lookup::Found;
use crate::eval::{At, Depth, LEFT, Machine, NOWHERE, Place, Stop, Unit, Val, ops};
use crate::name::{self, Name};
use crate::tree::{AdId, Arena, Node, NodeId, Op, tag};
use crate::value::Value;

/// What is left of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Flat {
    /// Nothing but a value.
    Value(Value),
    /// An expression that needs more than the ad has.
    Expr(Expr),
}

impl ClassAd {
    /// Evaluates as much of an expression as the ad's attributes allow.
    ///
    /// ```
    /// use classad::{ClassAd, Expr, Flat};
    ///
    /// let ad = ClassAd::parse("[ a = 1; t = true ]")?;
    /// let left = |text: &str| match ad.flatten(&Expr::parse(text).expect("valid")) {
    ///     Flat::Value(value) => value.to_string(),
    ///     Flat::Expr(expr) => expr.to_string(),
    /// };
    /// assert_eq!(left("a + 2 * 3"), "7");
    /// assert_eq!(left("t && TARGET.Memory > a * 1024"), "TARGET.Memory > 1024");
    /// # Ok::<(), classad::ParseError>(())
    /// ```
    pub fn flatten(&self, expr: &Expr) -> Flat {
        self.flat(expr, Mode::Plain)
    }

    /// Like [`ClassAd::flatten`], and names of attributes are replaced by what is left of their expressions.
    pub fn flatten_inline(&self, expr: &Expr) -> Flat {
        self.flat(expr, Mode::Inline)
    }

    fn flat(&self, expr: &Expr, mode: Mode) -> Flat {
        let machine = Machine::single(self);
        let unit = machine.add_unit(Unit {
            arena: &expr.arena,
            top: 0,
            owner: LEFT,
            chain: None,
            bare: true,
        });
        let at = At {
            arena: &expr.arena,
            unit,
            ..machine.at(LEFT)
        };
        let flattener = Flattener {
            machine: &machine,
            mode,
        };
        match flattener.value(&at, expr.value, Depth::full()) {
            Err(Stop) => Flat::Value(Value::Error),
            Ok(Out {
                tree: None, value, ..
            }) => Flat::Value(machine.exported(value)),
            Ok(Out {
                tree: Some(tree), ..
            }) => {
                let mut arena = Arena::default();
                flattener.emit(&mut arena, &tree, 0);
                let value = arena.attribute_value(0);
                Flat::Expr(Expr { arena, value })
            }
        }
    }
}

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Names of attributes stay.
    Plain,
    /// They are replaced by what is left of their expressions.
    Inline,
    /// The same, but what is left evaluates to exactly what the expression does, in every match. The library's rules
    /// reorder operands, forget that an error on one side decides, and take the time of day for a constant.
    Exact,
}

impl ClassAd {
    /// What is left of an attribute's expression, such that it evaluates in every match to what the attribute does.
    pub(crate) fn prepare(&self, key: u32) -> Option<Expr> {
        let expr = self.get_key(key)?.to_expr();
        let machine = Machine::single(self);
        let unit = machine.add_unit(Unit {
            arena: &expr.arena,
            top: 0,
            owner: LEFT,
            chain: None,
            bare: true,
        });
        let at = At {
            arena: &expr.arena,
            unit,
            ..machine.at(LEFT)
        };
        let flattener = Flattener {
            machine: &machine,
            mode: Mode::Exact,
        };
        let tree = flattener
            .value(&at, expr.value, Depth::full())
            .and_then(Out::whole)
            .ok()?;
        let mut arena = Arena::default();
        flattener.emit(&mut arena, &tree, 0);
        // Doubling attributes are better left as they are.
        if arena.nodes.len() > 64 + 16 * self.arena.nodes.len() {
            return None;
        }
        arena.shrink();
        let value = arena.attribute_value(0);
        Some(Expr { arena, value })
    }
}

/// A tree that is being put together.
enum Tree<'a> {
    Literal(Val<'a>),
    /// As it is written.
    Copy(u32, NodeId),
    Unary(Op, Box<Tree<'a>>),
    Binary(Op, Box<Tree<'a>>, Box<Tree<'a>>),
    Cond(Box<[Tree<'a>; 3]>),
    Select(Box<Tree<'a>>, Name),
    Call(Name, Vec<Tree<'a>>),
    List(Vec<Tree<'a>>),
    Ad(Vec<(u32, Tree<'a>)>),
}

impl<'a> Tree<'a> {
    /// Whether it evaluates to a boolean, undefined or an error, and to nothing else.
    fn is_truth(&self) -> bool {
        match self {
            Tree::Binary(op, ..) => (*op as u8) <= Op::Isnt as u8 || matches!(op, Op::And | Op::Or),
            Tree::Unary(op, _) => *op == Op::Not,
            Tree::Literal(value) => matches!(value, Val::Bool(_) | Val::Undefined | Val::Error),
            _ => false,
        }
    }

    fn binary(op: Op, left: Tree<'a>, right: Tree<'a>) -> Tree<'a> {
        Tree::Binary(op, Box::new(left), Box::new(right))
    }
}

/// What an expression came to: a value, a tree, or with an operator `value op tree`.
struct Out<'a> {
    value: Val<'a>,
    tree: Option<Tree<'a>>,
    op: Option<Op>,
}

impl<'a> Out<'a> {
    fn value(value: Val<'a>) -> Out<'a> {
        Out {
            value,
            tree: None,
            op: None,
        }
    }

    fn tree(tree: Tree<'a>) -> Out<'a> {
        Out {
            value: Val::Undefined,
            tree: Some(tree),
            op: None,
        }
    }

    /// As one tree. The library makes no literals of lists and ads.
    fn whole(self) -> Result<Tree<'a>, Stop> {
        let literal = |value| match value {
            Val::List(..) | Val::Made(_) | Val::Shared(_) | Val::Ad(_) => Err(Stop),
            plain => Ok(Tree::Literal(plain)),
        };
        match (self.tree, self.op) {
            (None, _) => literal(self.value),
            (Some(tree), None) => Ok(tree),
            (Some(tree), Some(op)) => Ok(Tree::binary(op, literal(self.value)?, tree)),
        }
    }
}

type Flattened<'a> = Result<Out<'a>, Stop>;

struct Flattener<'a> {
    machine: &'a Machine<'a>,
    mode: Mode,
}

impl<'a> Flattener<'a> {
    fn value(&self, at: &At<'_, 'a>, value: Node, depth: Depth) -> Flattened<'a> {
        match value.tag() {
            tag::LINK => self.flatten(at, value.high(), depth, false),
            _ => self.machine.value(at, value, depth).map(Out::value),
        }
    }

    /// With `split`, the result may be a value and a tree.
    fn flatten(&self, at: &At<'_, 'a>, id: NodeId, depth: Depth, split: bool) -> Flattened<'a> {
        self.machine.charge(4)?;
        // A level costs more of the stack here than in evaluation.
        let depth = depth.frame(3)?;
        let node = at.arena.node(id);
        match node.tag() {
            tag::ATTR | tag::ABSOLUTE | tag::SELECT => self.reference(at, id, node, depth),
            tag::UNARY => self.unary(at, id, node.op(), depth),
            tag::BINARY if self.mode == Mode::Exact && matches!(node.op(), Op::And | Op::Or) => {
                self.logical(at, id, node, depth)
            }
            tag::BINARY if self.mode == Mode::Exact => {
                self.binary(at, id, node.op(), node.high(), depth)
            }
            tag::BINARY => match node.op() {
                Op::Add | Op::Mul | Op::Or | Op::And | Op::BitOr | Op::BitXor | Op::BitAnd => {
                    self.commutative(at, id, node, depth, split)
                }
                op => self.binary(at, id, op, node.high(), depth),
            },
            tag::COND => self.conditional(at, id, node, depth),
            tag::CALL => self.call(at, id, node, depth),
            // Elements are evaluated in other places, too.
            tag::LIST | tag::AD if self.mode == Mode::Exact => {
                Ok(Out::tree(Tree::Copy(at.unit, id)))
            }
            tag::LIST => {
                let mut items = Vec::new();
                for &item in at.arena.children(node) {
                    items.push(self.flatten(at, item, depth, false)?.whole()?);
                }
                Ok(Out::tree(Tree::List(items)))
            }
            tag::AD => self.ad(at, node.high(), depth),
            _ => self.machine.eval(at, id, depth).map(Out::value),
        }
    }

    fn reference(&self, at: &At<'_, 'a>, id: NodeId, node: Node, depth: Depth) -> Flattened<'a> {
        let machine = self.machine;
        let copy = || Out::tree(Tree::Copy(at.unit, id));
        if self.mode == Mode::Exact {
            // In a match, the outermost ad is another one, and so is what leads to it.
            let plain = match node.tag() {
                tag::ATTR => true,
                tag::SELECT => {
                    let base = at.arena.node(id - 1);
                    base.tag() == tag::ATTR && matches!(base.name().key(), name::MY | name::SELF)
                }
                _ => false,
            };
            if !plain {
                return Ok(copy());
            }
        }
        let found = match node.tag() {
            tag::ATTR => machine.find_bare(at, node.name()),
            tag::ABSOLUTE if at.root == NOWHERE => return Err(Stop),
            tag::ABSOLUTE => machine.find(at, at.root, node.name()),
            _ if depth.left <= 0 => Found::Error,
            _ => match machine.eval(at, id - 1, depth.deeper())? {
                Val::Undefined => Found::Undefined,
                Val::Ad(place) => machine.find(at, place, node.name()),
                // Selecting from the elements of a list makes a list, which is not folded.
                list if machine.items(list).is_some() => return Ok(copy()),
                _ => Found::Error,
            },
        };
        match found {
            Found::Error => Ok(Out::value(Val::Error)),
            Found::Undefined if self.mode != Mode::Plain && node.tag() == tag::SELECT => {
                let base = self.flatten(at, id - 1, depth.deeper(), false)?;
                Ok(match base.tree {
                    Some(tree) => Out::tree(Tree::Select(Box::new(tree), node.name())),
                    None => copy(),
                })
            }
            Found::Undefined => Ok(copy()),
            Found::Ad(_) if self.mode == Mode::Exact => Ok(copy()),
            Found::Ad(place) => {
                at.place.set(place);
                Ok(copy())
            }
            Found::Time if self.mode == Mode::Exact => Ok(copy()),
            Found::Time => Ok(Out::value(Val::Int(crate::builtins::times::now()))),
            Found::Value {
                arena,
                unit,
                place,
                value,
            } => {
                if value.tag() == tag::LINK && arena.node(value.high()).tag() == tag::AD {
                    if self.mode != Mode::Exact {
                        at.place.set(place);
                    }
                    return Ok(copy());
                }
                // What names mean in an inner ad they need not mean outside of it.
                if self.mode == Mode::Exact && place != LEFT {
                    return Ok(copy());
                }
                if depth.left <= 0 {
                    return Err(Stop);
                }
                let inner = At {
                    arena,
                    unit,
                    place: place.into(),
                    ..at.clone()
                };
                let out = self.value(&inner, value, depth.deeper())?;
                Ok(if out.tree.is_some() && self.mode == Mode::Plain {
                    copy()
                } else {
                    out
                })
            }
        }
    }

    fn unary(&self, at: &At<'_, 'a>, id: NodeId, op: Op, depth: Depth) -> Flattened<'a> {
        let out = self.flatten(at, id - 1, depth, false)?;
        Ok(match out.tree {
            Some(tree) if op == Op::Parens && self.mode == Mode::Exact => Out::tree(tree),
            Some(tree) => Out::tree(Tree::Unary(op, Box::new(tree))),
            None => Out::value(ops::unary(op, out.value)),
        })
    }

    fn binary(
        &self,
        at: &At<'_, 'a>,
        id: NodeId,
        op: Op,
        left: NodeId,
        depth: Depth,
    ) -> Flattened<'a> {
        let left = self.flatten(at, left, depth, false)?;
        let right = self.flatten(at, id - 1, depth, false)?;
        if left.tree.is_none() && right.tree.is_none() {
            let value = match op {
                Op::Subscript => self.machine.subscript(at, left.value, right.value, depth)?,
                _ => ops::binary(op, left.value, right.value),
            };
            return Ok(Out::value(value));
        }
        match (left.whole(), right.whole()) {
            (Ok(left), Ok(right)) => Ok(Out::tree(Tree::binary(op, left, right))),
            _ if matches!(op, Op::Subscript | Op::Elvis) => Err(Stop),
            _ => Ok(Out::value(Val::Undefined)),
        }
    }

    /// `&&` and `||` without a change of meaning: the left side may decide, and a neutral one falls away where the other
    /// is a truth value anyway.
    fn logical(&self, at: &At<'_, 'a>, id: NodeId, node: Node, depth: Depth) -> Flattened<'a> {
        let op = node.op();
        let deciding = op == Op::Or;
        let left = self.flatten(at, node.high(), depth, false)?;
        let decided = matches!(left.value, Val::Error) || ops::truth(left.value) == Some(deciding);
        if left.tree.is_none() && decided {
            return Ok(Out::value(ops::binary(op, left.value, Val::Undefined)));
        }
        let right = self.flatten(at, id - 1, depth, false)?;
        let neutral =
            |side: &Out<'a>| side.tree.is_none() && ops::truth(side.value) == Some(!deciding);
        Ok(match (left, right) {
            (
                Out {
                    tree: None,
                    value: l,
                    ..
                },
                Out {
                    tree: None,
                    value: r,
                    ..
                },
            ) => Out::value(ops::binary(op, l, r)),
            (
                left,
                Out {
                    tree: Some(right), ..
                },
            ) if neutral(&left) && right.is_truth() => Out::tree(right),
            (
                Out {
                    tree: Some(left), ..
                },
                right,
            ) if neutral(&right) && left.is_truth() => Out::tree(left),
            (left, right) => Out::tree(Tree::binary(op, left.whole()?, right.whole()?)),
        })
    }

    fn commutative(
        &self,
        at: &At<'_, 'a>,
        id: NodeId,
        node: Node,
        depth: Depth,
        split: bool,
    ) -> Flattened<'a> {
        let left = self.flatten(at, node.high(), depth, true)?;
        let right = self.flatten(at, id - 1, depth, true)?;
        let out = combine(node.op(), left, right)?;
        if split || out.op.is_none() {
            Ok(out)
        } else {
            out.whole().map(Out::tree)
        }
    }

    fn conditional(&self, at: &At<'_, 'a>, id: NodeId, node: Node, depth: Depth) -> Flattened<'a> {
        let (test, yes) = node.cond_links();
        let out = self.flatten(at, test, depth, false)?;
        if out.tree.is_none() && !matches!(out.value, Val::Undefined) {
            return match ops::truth(out.value) {
                Some(true) => self.flatten(at, yes, depth, false),
                Some(false) => self.flatten(at, id - 1, depth, false),
                None => Ok(Out::value(Val::Error)),
            };
        }
        let yes = self.flatten(at, yes, depth, false)?.whole()?;
        let no = self.flatten(at, id - 1, depth, false)?.whole()?;
        // A test that is undefined for now stays as it is written.
        let test = out.tree.unwrap_or(Tree::Copy(at.unit, test));
        Ok(Out::tree(Tree::Cond(Box::new([test, yes, no]))))
    }

    fn call(&self, at: &At<'_, 'a>, id: NodeId, node: Node, depth: Depth) -> Flattened<'a> {
        let name = at.arena.call_name(node);
        if name.builtin().is_none() {
            return Ok(Out::value(Val::Error));
        }
        if self.mode == Mode::Exact {
            return self.exact_call(at, id, node, depth);
        }
        let mut fold = true;
        let mut args = Vec::new();
        for &arg in at.arena.children(node) {
            let out = self.flatten(at, arg, depth, false)?;
            fold &= out.tree.is_none();
            args.push(out);
        }
        let args = args.into_iter().map(Out::whole).collect::<Result<_, _>>()?;
        if fold {
            self.machine.eval(at, id, depth).map(Out::value)
        } else {
            Ok(Out::tree(Tree::Call(name, args)))
        }
    }

    fn exact_call(&self, at: &At<'_, 'a>, id: NodeId, node: Node, depth: Depth) -> Flattened<'a> {
        let kind = crate::builtins::kind(node);
        let name = at.arena.call_name(node);
        if kind == Kind::Context {
            return Ok(Out::tree(Tree::Copy(at.unit, id)));
        }
        let children = at.arena.children(node);
        if let (Kind::Choice, &[test, yes, no]) = (kind, children) {
            let test = self.flatten(at, test, depth, false)?;
            return Ok(match (test.tree, ops::truth(test.value)) {
                (Some(test), _) => {
                    let yes = self.flatten(at, yes, depth, false)?.whole()?;
                    let no = self.flatten(at, no, depth, false)?.whole()?;
                    Out::tree(Tree::Call(name, vec![test, yes, no]))
                }
                (None, Some(true)) => self.flatten(at, yes, depth, false)?,
                (None, Some(false)) => self.flatten(at, no, depth, false)?,
                (None, None) if matches!(test.value, Val::Undefined) => Out::value(Val::Undefined),
                (None, None) => Out::value(Val::Error),
            });
        }
        let mut fold = kind == Kind::Pure;
        let mut args = Vec::new();
        for &arg in children {
            let out = self.flatten(at, arg, depth, false)?;
            fold &= out.tree.is_none();
            args.push(out.whole()?);
        }
        if fold {
            let value = self.machine.eval(at, id, depth)?;
            // Lists and ads are left to be made where they are needed.
            if !matches!(
                value,
                Val::List(..) | Val::Made(_) | Val::Shared(_) | Val::Ad(_) | Val::Rel(_)
            ) {
                return Ok(Out::value(value));
            }
        }
        Ok(Out::tree(Tree::Call(name, args)))
    }

    fn ad(&self, at: &At<'_, 'a>, ad: AdId, depth: Depth) -> Flattened<'a> {
        let place = Place { unit: at.unit, ad };
        let inner = At {
            place: place.into(),
            ..at.clone()
        };
        let table = at.arena.table(ad);
        let mut attributes = Vec::new();
        for (&name, &value) in table.names().iter().zip(&table.values) {
            attributes.push((name, self.value(&inner, value, depth)?.whole()?));
        }
        Ok(Out::tree(Tree::Ad(attributes)))
    }
}

/// Joins the operands of an operator that is commutative and associative.
fn combine<'a>(op: Op, left: Out<'a>, right: Out<'a>) -> Flattened<'a> {
    let with = |op: Option<Op>, value: Val<'a>, tree: Tree<'a>| Out {
        value,
        tree: Some(tree),
        op,
    };
    let one = left.tree.is_some() != right.tree.is_some();
    if one && matches!(op, Op::Or | Op::And) {
        // The side that is known may decide.
        let known = |side: &Out<'a>| {
            if side.tree.is_some() {
                Val::Undefined
            } else {
                side.value
            }
        };
        let value = ops::binary(op, known(&left), known(&right));
        if matches!(value, Val::Bool(_)) {
            return Ok(Out::value(value));
        }
        let neutral = |side: &Out<'a>| side.tree.is_none() && matches!(side.value, Val::Bool(true));
        if op == Op::And && neutral(&left) {
            return Ok(Out {
                tree: right.tree,
                ..Out::value(Val::Undefined)
            });
        }
        if op == Op::And && neutral(&right) {
            return Ok(Out {
                tree: left.tree,
                ..Out::value(Val::Undefined)
            });
        }
    }
    Ok(match (left, right) {
        (
            Out {
                tree: None,
                value: l,
                ..
            },
            Out {
                tree: None,
                value: r,
                ..
            },
        ) => Out::value(ops::binary(op, l, r)),
        (
            Out {
                tree: None, value, ..
            },
            Out {
                tree: Some(tree),
                op: None,
                ..
            },
        )
        | (
            Out {
                tree: Some(tree),
                op: None,
                ..
            },
            Out {
                tree: None, value, ..
            },
        ) => with(Some(op), value, tree),
        (
            Out {
                tree: Some(l),
                op: None,
                ..
            },
            Out {
                tree: Some(r),
                op: None,
                ..
            },
        ) => Out::tree(Tree::binary(op, l, r)),
        (left, right) if left.op != Some(op) && right.op != Some(op) => {
            Out::tree(Tree::binary(op, left.whole()?, right.whole()?))
        }
        (left, right) => {
            let (l, r) = (left.op == Some(op), right.op == Some(op));
            let value = match (l, r) {
                (true, true) => ops::binary(op, left.value, right.value),
                (true, false) if right.tree.is_none() => ops::binary(op, left.value, right.value),
                (false, true) if left.tree.is_none() => ops::binary(op, left.value, right.value),
                (true, false) => left.value,
                _ => right.value,
            };
            let tree = match (left.tree, right.tree) {
                (Some(l), Some(r)) => Tree::binary(op, l, r),
                (Some(tree), None) | (None, Some(tree)) => tree,
                (None, None) => Tree::Literal(Val::Undefined),
            };
            with(Some(op), value, tree)
        }
    })
}
