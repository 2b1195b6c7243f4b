//! How expressions and ads lie in memory.
//!
//! All that belongs to one ad is in one [`Arena`]: a sorted table of attributes, and the nodes of their expressions in
//! post-order, eight bytes each. The right child of a node is the node before it, so only left children need a link, and
//! a subtree is a contiguous run of nodes. Hence an ad is a handful of allocations however deep it is: dropping and
//! copying it do not recurse, and an evaluation walks memory that lies together.
//!
//! Layout of a node: tag in bits 0-7, a small payload in bits 8-31, a large one (index, offset or number) in bits 32-63.

use std::sync::Arc;

use crate::name::Name;
use crate::shape::{Printed, Shape};
use crate::value::AbsTime;

/// Index of a node in its arena.
pub(crate) type NodeId = u32;
/// An ad inside an arena: 0 is the ad that owns it, others are written inside expressions.
pub(crate) type AdId = u32;

/// Strings are addressed by 32 bits of offset and 24 bits of length.
pub(crate) const MAX_STRING: usize = (1 << 24) - 1;
/// No arena grows beyond this many nodes: the conditional operator has 28 bits for each of its links.
pub(crate) const MAX_NODES: usize = 1 << 26;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node(u64);

/// Kinds of nodes. Everything up to [`RELTIME`](tag::RELTIME) is a literal.
pub(crate) mod tag {
    pub(crate) const UNDEFINED: u8 = 0;
    pub(crate) const ERROR: u8 = 1;
    pub(crate) const FALSE: u8 = 2;
    pub(crate) const TRUE: u8 = 3;
    pub(crate) const SMALL: u8 = 4;
    pub(crate) const WIDE: u8 = 5;
    pub(crate) const REAL: u8 = 6;
    pub(crate) const STR: u8 = 7;
    pub(crate) const ABSTIME: u8 = 8;
    pub(crate) const RELTIME: u8 = 9;
    /// `name`
    pub(crate) const ATTR: u8 = 10;
    /// `.name`
    pub(crate) const ABSOLUTE: u8 = 11;
    /// `expr.name`, where `expr` is the node before.
    pub(crate) const SELECT: u8 = 12;
    pub(crate) const UNARY: u8 = 13;
    pub(crate) const BINARY: u8 = 14;
    pub(crate) const COND: u8 = 15;
    pub(crate) const CALL: u8 = 16;
    pub(crate) const LIST: u8 = 17;
    pub(crate) const AD: u8 = 18;
    /// One of the two ads of a match, inside the match ad.
    pub(crate) const FRAME: u8 = 19;
    /// Only as the value of an attribute: its expression is the node with this index.
    pub(crate) const LINK: u8 = 20;
}

/// Operators, in an order that lets ranges be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Op {
    Lt,
    Le,
    Ne,
    Eq,
    Ge,
    Gt,
    Is,
    Isnt,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    BitOr,
    BitXor,
    BitAnd,
    Shl,
    Shr,
    Ushr,
    Subscript,
    Elvis,
    Plus,
    Minus,
    Not,
    BitNot,
    Parens,
}

const OPS: [Op; 28] = [
    Op::Lt,
    Op::Le,
    Op::Ne,
    Op::Eq,
    Op::Ge,
    Op::Gt,
    Op::Is,
    Op::Isnt,
    Op::Add,
    Op::Sub,
    Op::Mul,
    Op::Div,
    Op::Mod,
    Op::Or,
    Op::And,
    Op::BitOr,
    Op::BitXor,
    Op::BitAnd,
    Op::Shl,
    Op::Shr,
    Op::Ushr,
    Op::Subscript,
    Op::Elvis,
    Op::Plus,
    Op::Minus,
    Op::Not,
    Op::BitNot,
    Op::Parens,
];

impl Node {
    pub(crate) const UNDEFINED: Node = Node(tag::UNDEFINED as u64);
    pub(crate) const ERROR: Node = Node(tag::ERROR as u64);

    #[inline]
    pub(crate) fn new(tag: u8, low: u32, high: u32) -> Node {
        Node(u64::from(tag) | u64::from(low) << 8 | u64::from(high) << 32)
    }

    #[inline]
    pub(crate) fn bool(b: bool) -> Node {
        Node(u64::from(if b { tag::TRUE } else { tag::FALSE }))
    }

    #[inline]
    pub(crate) fn tag(self) -> u8 {
        self.0 as u8
    }

    #[inline]
    pub(crate) fn low(self) -> u32 {
        (self.0 as u32) >> 8
    }

    #[inline]
    pub(crate) fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    pub(crate) fn name(self) -> Name {
        Name::from_raw(self.high())
    }

    #[inline]
    pub(crate) fn is_literal(self) -> bool {
        self.tag() <= tag::RELTIME
    }

    /// The operator of a [`tag::UNARY`] or [`tag::BINARY`] node.
    #[inline]
    pub(crate) fn op(self) -> Op {
        OPS[(self.low() as usize).min(OPS.len() - 1)]
    }

    pub(crate) fn unary(op: Op) -> Node {
        Node::new(tag::UNARY, op as u32, 0)
    }

    pub(crate) fn binary(op: Op, left: NodeId) -> Node {
        Node::new(tag::BINARY, op as u32, left)
    }

    pub(crate) fn cond(test: NodeId, yes: NodeId) -> Node {
        Node(u64::from(tag::COND) | u64::from(test) << 8 | u64::from(yes) << 36)
    }

    /// Test and first branch of a [`tag::COND`] node; the second branch is the node before it.
    #[inline]
    pub(crate) fn cond_links(self) -> (NodeId, NodeId) {
        ((self.0 >> 8) as u32 & 0x0FFF_FFFF, (self.0 >> 36) as u32)
    }
}

/// The attributes of one ad.
#[derive(Clone)]
pub(crate) struct Table {
    /// The ad that this one is written in.
    pub(crate) parent: AdId,
    shape: Arc<Shape>,
    /// In the order of the shape's names.
    pub(crate) values: Vec<Node>,
}

impl Default for Table {
    fn default() -> Table {
        Table::within(0)
    }
}

impl Table {
    /// An empty table of an ad that is written in another one.
    pub(crate) fn within(parent: AdId) -> Table {
        Table {
            parent,
            shape: Shape::empty(),
            values: Vec::new(),
        }
    }

    /// The same attributes with other values.
    pub(crate) fn with_values(&self, parent: AdId, values: Vec<Node>) -> Table {
        Table {
            parent,
            shape: Arc::clone(&self.shape),
            values,
        }
    }

    #[inline]
    pub(crate) fn names(&self) -> &[u32] {
        self.shape.names()
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn same_names(&self, other: &Table) -> bool {
        let (a, b) = (self.names(), other.names());
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a >> 8 == b >> 8)
    }

    /// Names and values in the order in which they are printed.
    pub(crate) fn in_order(
        &self,
    ) -> impl DoubleEndedIterator<Item = (Printed, Node)> + ExactSizeIterator {
        self.shape
            .order()
            .iter()
            .map(|printed| (*printed, self.values[printed.place as usize]))
    }

    #[inline]
    pub(crate) fn get(&self, key: u32) -> Option<Node> {
        self.shape
            .find(key)
            .and_then(|at| self.values.get(at).copied())
    }

    /// Sets an attribute; gives back its old value.
    pub(crate) fn insert(&mut self, name: Name, value: Node) -> Option<Node> {
        match self.shape.search(name.key()) {
            Ok(at) => Some(std::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                Arc::make_mut(&mut self.shape).insert(at, name);
                self.values.insert(at, value);
                None
            }
        }
    }

    /// Takes an attribute out.
    pub(crate) fn remove(&mut self, key: u32) -> Option<Node> {
        let at = self.shape.search(key).ok()?;
        Arc::make_mut(&mut self.shape).remove(at);
        Some(self.values.remove(at))
    }

    /// Makes the table from attributes in the order they were written: the last value and the first spelling count.
    pub(crate) fn fill(&mut self, attributes: &mut Vec<(u32, Node)>) {
        attributes.sort_by_key(|&(raw, _)| raw >> 8);
        let mut names: Vec<u32> = Vec::with_capacity(attributes.len());
        self.values = Vec::with_capacity(attributes.len());
        for (raw, node) in attributes.drain(..) {
            match (names.last(), self.values.last_mut()) {
                (Some(&last), Some(value)) if last >> 8 == raw >> 8 => *value = node,
                _ => {
                    names.push(raw);
                    self.values.push(node);
                }
            }
        }
        self.shape = Shape::of(&names);
    }
}

/// Everything that belongs to one ad or one expression.
#[derive(Clone, Default)]
pub(crate) struct Arena {
    pub(crate) root: Table,
    pub(crate) nested: Vec<Table>,
    pub(crate) nodes: Vec<Node>,
    /// Lists: length, enclosing ad, elements. Calls: name, length, arguments.
    pub(crate) kids: Vec<u32>,
    pub(crate) text: Vec<u8>,
    /// Numbers that need 64 bits.
    pub(crate) wide: Vec<u64>,
}

impl Arena {
    #[inline]
    pub(crate) fn table(&self, ad: AdId) -> &Table {
        if ad == 0 {
            &self.root
        } else {
            &self.nested[ad as usize - 1]
        }
    }

    #[inline]
    pub(crate) fn node(&self, id: NodeId) -> Node {
        self.nodes[id as usize]
    }

    #[inline]
    pub(crate) fn str(&self, node: Node) -> &[u8] {
        let start = node.high() as usize;
        &self.text[start..start + node.low() as usize]
    }

    #[inline]
    pub(crate) fn int(&self, node: Node) -> i64 {
        if node.tag() == tag::SMALL {
            i64::from(node.high() as i32)
        } else {
            self.wide[node.high() as usize] as i64
        }
    }

    #[inline]
    pub(crate) fn real(&self, node: Node) -> f64 {
        f64::from_bits(self.wide[node.high() as usize])
    }

    pub(crate) fn abs_time(&self, node: Node) -> AbsTime {
        let at = node.high() as usize;
        AbsTime {
            secs: self.wide[at] as i64,
            offset: self.wide[at + 1] as i64 as i32,
        }
    }

    /// Elements of a list, or arguments of a call.
    #[inline]
    pub(crate) fn children(&self, node: Node) -> &[NodeId] {
        let at = node.high() as usize;
        let len = self.kids[if node.tag() == tag::CALL { at + 1 } else { at }] as usize;
        &self.kids[at + 2..at + 2 + len]
    }

    /// The ad that a list is written in.
    #[inline]
    pub(crate) fn list_scope(&self, node: Node) -> AdId {
        self.kids[node.high() as usize + 1]
    }

    pub(crate) fn call_name(&self, node: Node) -> Name {
        Name::from_raw(self.kids[node.high() as usize])
    }

    pub(crate) fn make_int(&mut self, value: i64) -> Node {
        match i32::try_from(value) {
            Ok(small) => Node::new(tag::SMALL, 0, small as u32),
            Err(_) => self.make_wide(tag::WIDE, value as u64),
        }
    }

    pub(crate) fn make_real(&mut self, value: f64) -> Node {
        self.make_wide(tag::REAL, value.to_bits())
    }

    pub(crate) fn make_rel_time(&mut self, secs: f64) -> Node {
        self.make_wide(tag::RELTIME, secs.to_bits())
    }

    pub(crate) fn make_abs_time(&mut self, time: AbsTime) -> Node {
        let node = self.make_wide(tag::ABSTIME, time.secs as u64);
        self.wide.push(i64::from(time.offset) as u64);
        node
    }

    fn make_wide(&mut self, tag: u8, bits: u64) -> Node {
        self.wide.push(bits);
        Node::new(tag, 0, (self.wide.len() - 1) as u32)
    }

    /// A string literal; cut at [`MAX_STRING`] bytes, which the parser never lets happen.
    pub(crate) fn make_str(&mut self, text: &[u8]) -> Node {
        let text = &text[..text.len().min(MAX_STRING)];
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text);
        Node::new(tag::STR, text.len() as u32, start)
    }

    #[inline]
    pub(crate) fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    pub(crate) fn make_call(&mut self, name: Name, args: &[NodeId]) -> Node {
        let at = self.kids.len() as u32;
        self.kids.push(name.raw());
        self.kids.push(args.len() as u32);
        self.kids.extend_from_slice(args);
        Node::new(tag::CALL, u32::from(name.builtin().unwrap_or(u16::MAX)), at)
    }

    pub(crate) fn make_list(&mut self, scope: AdId, items: &[NodeId]) -> Node {
        let at = self.kids.len() as u32;
        self.kids.push(items.len() as u32);
        self.kids.push(scope);
        self.kids.extend_from_slice(items);
        Node::new(tag::LIST, 0, at)
    }

    /// What an attribute holds for an expression whose nodes were pushed from `start` on.
    pub(crate) fn attribute_value(&mut self, start: usize) -> Node {
        let last = self.nodes.len() - 1;
        let node = self.nodes[last];
        if last == start && node.is_literal() {
            self.nodes.pop();
            return node;
        }
        Node::new(tag::LINK, 0, last as u32)
    }

    /// The first node of the run that `id` ends.
    fn first(&self, mut id: NodeId) -> NodeId {
        loop {
            let node = self.node(id);
            id = match node.tag() {
                tag::SELECT | tag::UNARY => id - 1,
                tag::BINARY => node.high(),
                tag::COND => node.cond_links().0,
                tag::CALL | tag::LIST => match self.children(node).first() {
                    Some(&child) => child,
                    None => return id,
                },
                tag::AD => {
                    let values = &self.table(node.high()).values;
                    match values
                        .iter()
                        .filter(|v| v.tag() == tag::LINK)
                        .map(|v| v.high())
                        .min()
                    {
                        Some(child) => child,
                        None => return id,
                    }
                }
                _ => return id,
            };
        }
    }

    /// Copies a literal of another arena.
    pub(crate) fn copy_literal(&mut self, from: &Arena, node: Node) -> Node {
        match node.tag() {
            tag::WIDE => self.make_wide(tag::WIDE, from.wide[node.high() as usize]),
            tag::REAL | tag::RELTIME => self.make_wide(node.tag(), from.wide[node.high() as usize]),
            tag::STR => self.make_str(from.str(node)),
            tag::ABSTIME => self.make_abs_time(from.abs_time(node)),
            _ => node,
        }
    }

    /// Copies the value of an attribute of another arena, to be an attribute of the ad `scope` here.
    pub(crate) fn copy_value(&mut self, from: &Arena, value: Node, scope: AdId) -> Node {
        if value.tag() != tag::LINK {
            return self.copy_literal(from, value);
        }
        let start = self.nodes.len();
        self.copy_run(from, value.high(), scope);
        self.attribute_value(start)
    }

    /// Appends the subtree that ends at `last` in another arena; what it holds is then written in the ad `scope` here.
    pub(crate) fn copy_run(&mut self, from: &Arena, last: NodeId, scope: AdId) -> NodeId {
        let first = from.first(last);
        let shift = (self.nodes.len() as u32).wrapping_sub(first);
        let moved = |id: NodeId| id.wrapping_add(shift);
        // Nested ads come after their attributes, whose lists already have to know the new number.
        let mut ads: Vec<(AdId, AdId)> = Vec::new();
        for id in first..=last {
            let node = from.node(id);
            if node.tag() == tag::AD {
                self.nested.push(Table::default());
                ads.push((node.high(), self.nested.len() as u32));
            }
        }
        ads.sort_unstable();
        let new_ad = |old: AdId| {
            ads.binary_search_by_key(&old, |pair| pair.0)
                .map_or(scope, |at| ads[at].1)
        };
        self.nodes.reserve((last - first) as usize + 1);
        for id in first..=last {
            let node = from.node(id);
            let copy = match node.tag() {
                tag::BINARY => Node::binary(node.op(), moved(node.high())),
                tag::COND => {
                    let (test, yes) = node.cond_links();
                    Node::cond(moved(test), moved(yes))
                }
                tag::CALL => {
                    let args: Vec<NodeId> =
                        from.children(node).iter().map(|&id| moved(id)).collect();
                    self.make_call(from.call_name(node), &args)
                }
                tag::LIST => {
                    let items: Vec<NodeId> =
                        from.children(node).iter().map(|&id| moved(id)).collect();
                    self.make_list(new_ad(from.list_scope(node)), &items)
                }
                tag::AD => {
                    let table = from.table(node.high());
                    let values = table
                        .values
                        .iter()
                        .map(|&value| match value.tag() {
                            tag::LINK => Node::new(tag::LINK, 0, moved(value.high())),
                            _ => self.copy_literal(from, value),
                        })
                        .collect();
                    let id = new_ad(node.high());
                    self.nested[id as usize - 1] = table.with_values(new_ad(table.parent), values);
                    Node::new(tag::AD, 0, id)
                }
                _ => self.copy_literal(from, node),
            };
            self.nodes.push(copy);
        }
        (self.nodes.len() - 1) as u32
    }

    /// Whether two values are written alike, names and function names without regard to case.
    pub(crate) fn same(&self, a: Node, other: &Arena, b: Node) -> bool {
        let mut todo = vec![(a, u32::MAX, b, u32::MAX)];
        while let Some((a, a_id, b, b_id)) = todo.pop() {
            let (a, a_id) = if a.tag() == tag::LINK {
                (self.node(a.high()), a.high())
            } else {
                (a, a_id)
            };
            let (b, b_id) = if b.tag() == tag::LINK {
                (other.node(b.high()), b.high())
            } else {
                (b, b_id)
            };
            if a.tag() != b.tag() {
                return false;
            }
            let mut push = |a: NodeId, b: NodeId| todo.push((self.node(a), a, other.node(b), b));
            let alike = match a.tag() {
                tag::SMALL => a == b,
                tag::WIDE => self.int(a) == other.int(b),
                // Bits, so that a NaN equals itself.
                tag::REAL | tag::RELTIME => self.real(a).to_bits() == other.real(b).to_bits(),
                tag::STR => self.str(a) == other.str(b),
                tag::ABSTIME => self.abs_time(a) == other.abs_time(b),
                tag::ATTR | tag::ABSOLUTE => a.name().key() == b.name().key(),
                tag::SELECT => {
                    push(a_id - 1, b_id - 1);
                    a.name().key() == b.name().key()
                }
                tag::UNARY => {
                    push(a_id - 1, b_id - 1);
                    a.op() == b.op()
                }
                tag::BINARY => {
                    push(a_id - 1, b_id - 1);
                    push(a.high(), b.high());
                    a.op() == b.op()
                }
                tag::COND => {
                    push(a_id - 1, b_id - 1);
                    let (x, y) = (a.cond_links(), b.cond_links());
                    push(x.0, y.0);
                    push(x.1, y.1);
                    true
                }
                tag::CALL | tag::LIST => {
                    let (x, y) = (self.children(a), other.children(b));
                    x.iter().zip(y).for_each(|(&x, &y)| push(x, y));
                    x.len() == y.len()
                        && (a.tag() == tag::LIST
                            || self.call_name(a).key() == other.call_name(b).key())
                }
                tag::AD => {
                    let (x, y) = (self.table(a.high()), other.table(b.high()));
                    x.values
                        .iter()
                        .zip(&y.values)
                        .for_each(|(&x, &y)| todo.push((x, 0, y, 0)));
                    x.same_names(y)
                }
                _ => true,
            };
            if !alike {
                return false;
            }
        }
        true
    }

    /// Frees what growing left unused.
    pub(crate) fn shrink(&mut self) {
        self.nested.shrink_to_fit();
        self.nodes.shrink_to_fit();
        self.kids.shrink_to_fit();
        self.text.shrink_to_fit();
        self.wide.shrink_to_fit();
    }
}
