//! Which names an expression refers to: inside its ad, and beyond it.
//!
//! The walk follows the library's: through expressions and, where a name is found, into what it stands for. Both kinds of
//! references can blow up exponentially there; here every attribute's expression is visited once for each ad it is
//! looked at from, which gives the same sets.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};

use crate::ad::{ClassAd, Expr};
use crate::eval::lookup::Found;
use crate::eval::{At, Depth, LEFT, Machine, NOWHERE, Place, Unit, Val};
use crate::name::Name;
use crate::tree::{Node, NodeId, tag};
use crate::unparse::{self, Syntax};

/// The names that an expression refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Names that have to come from elsewhere, such as `TARGET.Memory`; `None` if that cannot be told.
    pub external: Option<BTreeSet<String>>,
    /// Attributes of the ad itself; `None` if that cannot be told.
    pub internal: Option<BTreeSet<String>>,
}

impl ClassAd {
    /// The names that an expression, as part of this ad, refers to.
    ///
    /// ```
    /// use classad::{ClassAd, Expr};
    ///
    /// let job = ClassAd::parse("[ RequestMemory = 512; Rank = TARGET.Mips ]")?;
    /// let refs = job.references(&Expr::parse("TARGET.Memory >= RequestMemory && HasFile")?);
    /// assert!(refs.external.is_some_and(|names| names.iter().eq(["HasFile", "TARGET.Memory"])));
    /// assert!(refs.internal.is_some_and(|names| names.iter().eq(["RequestMemory"])));
    /// # Ok::<(), classad::ParseError>(())
    /// ```
    pub fn references(&self, expr: &Expr) -> References {
        let names = |all: Option<Vec<Vec<u8>>>| -> Option<BTreeSet<String>> {
            let mut seen = HashSet::new();
            let all = all?
                .into_iter()
                .filter(|name| seen.insert(name.to_ascii_lowercase()));
            Some(all.map(crate::ad::bytes_to_string).collect())
        };
        let run = |internal: bool| {
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
            walk(&machine, &at, expr.value, Depth::full(), internal)
        };
        References {
            external: names(run(false)),
            internal: names(run(true)),
        }
    }
}

/// The external references of an expression, in the order in which sets of the library keep them.
pub(crate) fn external<'a>(
    machine: &'a Machine<'a>,
    at: &At<'_, 'a>,
    value: Node,
    depth: Depth,
) -> Option<Vec<Vec<u8>>> {
    let mut names = walk(machine, at, value, depth, false)?;
    names.sort_by_key(|name| name.to_ascii_lowercase());
    names.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
    Some(names)
}

fn walk<'a>(
    machine: &'a Machine<'a>,
    at: &At<'_, 'a>,
    value: Node,
    depth: Depth,
    internal: bool,
) -> Option<Vec<Vec<u8>>> {
    let mut walk = Walk {
        machine,
        root: at.root,
        internal,
        names: Vec::new(),
        seen: HashSet::new(),
        todo: Vec::new(),
    };
    walk.value(at, value, false);
    while let Some(step) = walk.todo.pop() {
        let at = At {
            arena: machine.unit(step.unit).arena,
            unit: step.unit,
            place: Cell::new(step.place),
            ..*at
        };
        walk.node(&at, step.id, step.scoping, depth)?;
    }
    Some(walk.names)
}

/// A node to look at, and the ad in which its names are looked up.
struct Step {
    unit: u32,
    id: NodeId,
    place: Place,
    /// The node only says whose attribute is meant.
    scoping: bool,
}

struct Walk<'a> {
    machine: &'a Machine<'a>,
    root: Place,
    internal: bool,
    names: Vec<Vec<u8>>,
    seen: HashSet<(u32, NodeId, u32, u32, bool)>,
    todo: Vec<Step>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, at: &At<'_, 'a>, value: Node, scoping: bool) {
        if value.tag() == tag::LINK {
            self.later(at, value.high(), scoping);
        }
    }

    fn later(&mut self, at: &At<'_, 'a>, id: NodeId, scoping: bool) {
        if self
            .seen
            .insert((at.unit, id, at.place.get().unit, at.place.get().ad, scoping))
        {
            self.todo.push(Step {
                unit: at.unit,
                id,
                place: at.place.get(),
                scoping,
            });
        }
    }

    /// Looks at one node; `None` if the library could not tell, either.
    fn node(&mut self, at: &At<'_, 'a>, id: NodeId, scoping: bool, depth: Depth) -> Option<()> {
        self.machine.charge(1).ok()?;
        let node = at.arena.node(id);
        match node.tag() {
            tag::ATTR => self.name(at, at.place.get(), node.name(), scoping),
            tag::ABSOLUTE if self.root == NOWHERE => None,
            tag::ABSOLUTE => self.name(at, self.root, node.name(), scoping),
            tag::SELECT => self.select(at, id, node.name(), scoping, depth),
            tag::UNARY => {
                self.later(at, id - 1, scoping);
                Some(())
            }
            tag::BINARY => {
                self.later(at, node.high(), scoping);
                self.later(at, id - 1, scoping);
                Some(())
            }
            tag::COND => {
                let (test, yes) = node.cond_links();
                self.later(at, test, scoping);
                self.later(at, yes, scoping);
                self.later(at, id - 1, scoping);
                Some(())
            }
            tag::CALL | tag::LIST => {
                at.arena
                    .children(node)
                    .iter()
                    .for_each(|&child| self.later(at, child, scoping));
                Some(())
            }
            // As the library does it, names in an inner ad are looked up in the outer one.
            tag::AD if self.internal && scoping => Some(()),
            tag::AD => {
                at.arena
                    .table(node.high())
                    .values
                    .iter()
                    .for_each(|&value| self.value(at, value, scoping));
                Some(())
            }
            _ => Some(()),
        }
    }

    fn select(
        &mut self,
        at: &At<'_, 'a>,
        id: NodeId,
        name: Name,
        scoping: bool,
        depth: Depth,
    ) -> Option<()> {
        if self.internal {
            self.later(at, id - 1, true);
        }
        match self.machine.eval(at, id - 1, depth).ok()? {
            Val::Ad(place) => self.name(at, place, name, scoping),
            Val::Undefined if self.internal => Some(()),
            Val::Undefined => {
                let mut full = Vec::new();
                unparse::value(
                    &mut full,
                    at.arena,
                    Node::new(tag::LINK, 0, id - 1),
                    Syntax::New,
                );
                full.push(b'.');
                full.extend_from_slice(name.text());
                self.names.push(full);
                Some(())
            }
            _ => None,
        }
    }

    fn name(&mut self, at: &At<'_, 'a>, start: Place, name: Name, scoping: bool) -> Option<()> {
        let at = At {
            root: self.root,
            place: at.place.clone(),
            ..*at
        };
        match self.machine.find(&at, start, name) {
            Found::Undefined => {
                if !self.internal {
                    self.names.push(name.text().to_vec());
                }
                Some(())
            }
            Found::Error => None,
            Found::Time => Some(()),
            Found::Value {
                arena,
                unit,
                place,
                value,
            } => {
                if self.internal && place == self.root {
                    self.names.push(name.text().to_vec());
                }
                self.value(
                    &At {
                        arena,
                        unit,
                        place: Cell::new(place),
                        ..at
                    },
                    value,
                    scoping,
                );
                Some(())
            }
            Found::Ad(place) => {
                let unit = self.machine.unit(place.unit);
                let inner = At {
                    arena: unit.arena,
                    unit: place.unit,
                    place: Cell::new(place),
                    ..at
                };
                if !(self.internal && scoping) {
                    let values = &unit.arena.table(place.ad).values;
                    values
                        .iter()
                        .for_each(|&value| self.value(&inner, value, scoping));
                }
                Some(())
            }
        }
    }
}
