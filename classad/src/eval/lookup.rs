//! Finding what a name means.

use std::cell::Cell;
use std::sync::LazyLock;

use super::{
    Active, At, DETACHED, Depth, Ev, LEFT, MATCH, Machine, NOWHERE, Place, RIGHT, Stop, Unit, Val,
};
use crate::name::{self, Name};
use crate::parse;
use crate::tree::{AdId, Arena, Node, NodeId, tag};

/// What a name was found to be.
#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    /// An attribute: its value, and the ad that has it.
    Value {
        arena: &'a Arena,
        unit: u32,
        place: Place,
        value: Node,
    },
    Ad(Place),
    Time,
    Undefined,
    Error,
}

/// A value that becomes an element of a list: a relative time is a real once it is read again.
pub(crate) fn as_literal(value: Val<'_>) -> Val<'_> {
    if let Val::Rel(secs) = value {
        Val::Real(secs)
    } else {
        value
    }
}

/// What the library puts around the two ads of a match: their contexts, and the match ad.
pub(crate) fn surroundings() -> &'static [Arena; 3] {
    static AROUND: LazyLock<[Arena; 3]> = LazyLock::new(|| {
        let parse = |text: &str| parse::new_ad(text.as_bytes()).expect("the text below is an ad");
        let mut outer = parse(
            "[symmetricMatch = RIGHT.requirements && LEFT.requirements; leftMatchesRight = RIGHT.requirements; \
             rightMatchesLeft = LEFT.requirements; leftRankValue = LEFT.rank; rightRankValue = RIGHT.rank; \
             LEFT = 0; RIGHT = 1; lCtx = 2; rCtx = 3]",
        );
        for value in &mut outer.root.values {
            if value.tag() == tag::SMALL {
                *value = Node::new(tag::FRAME, 0, value.high());
            }
        }
        [
            parse("[other = .RIGHT; TARGET = .RIGHT; MY = .LEFT; ad = .LEFT]"),
            parse("[other = .LEFT; TARGET = .LEFT; MY = .RIGHT; ad = .RIGHT]"),
            outer,
        ]
    });
    &AROUND
}

impl<'a> Machine<'a> {
    /// The ad around an ad.
    fn parent(&self, place: Place) -> Place {
        if place == NOWHERE {
            return NOWHERE;
        }
        let unit = self.unit(place.unit);
        if place.ad == unit.top {
            return unit.owner;
        }
        self.lexical(place.unit, unit.arena.table(place.ad).parent)
    }

    /// The ad that something is written in.
    pub(crate) fn lexical(&self, unit: u32, ad: AdId) -> Place {
        let known = self.unit(unit);
        if known.bare && ad == known.top {
            known.owner
        } else {
            Place { unit, ad }
        }
    }

    pub(crate) fn outermost(&self, mut place: Place) -> Place {
        loop {
            let parent = self.parent(place);
            if parent == NOWHERE {
                return place;
            }
            place = parent;
        }
    }

    /// An attribute of an ad itself, or of one that it is chained to.
    #[inline]
    pub(crate) fn own(&self, place: Place, key: u32) -> Option<Found<'a>> {
        if place == NOWHERE {
            return None;
        }
        let unit = self.unit(place.unit);
        if let Some(value) = unit.arena.table(place.ad).get(key) {
            return Some(Found::Value {
                arena: unit.arena,
                unit: place.unit,
                place,
                value,
            });
        }
        if place.ad != 0 {
            None
        } else {
            self.chained(unit, place, key)
        }
    }

    #[inline]
    fn chained(&self, unit: &Unit<'a>, place: Place, key: u32) -> Option<Found<'a>> {
        let mut ad = unit.chain?;
        loop {
            if let Some(value) = ad.arena.root.get(key) {
                let owner = NOWHERE;
                let unit = self.add_unit(Unit {
                    arena: &ad.arena,
                    top: 0,
                    owner,
                    chain: ad.chained_parent(),
                    bare: false,
                });
                return Some(Found::Value {
                    arena: &ad.arena,
                    unit,
                    place,
                    value,
                });
            }
            ad = ad.chained_parent()?;
        }
    }

    /// Looks a name up in an ad and in those around it.
    pub(crate) fn find(&self, at: &At<'_, 'a>, start: Place, name: Name) -> Found<'a> {
        let key = name.key();
        let mut place = start;
        while place != NOWHERE {
            if let Some(found) = self.own(place, key) {
                return found;
            }
            // Ordinary names are neither special nor in what is around matched ads.
            if place.unit < 2 && place.ad == 0 && self.is_match() && key >= name::FIRST_ORDINARY {
                return Found::Undefined;
            }
            let parent = if place == at.root {
                NOWHERE
            } else {
                self.parent(place)
            };
            match key {
                name::TOPLEVEL | name::ROOT => return Found::Ad(at.root),
                name::SELF | name::MY => return Found::Ad(place),
                name::PARENT if parent == NOWHERE => return Found::Undefined,
                name::PARENT => return Found::Ad(parent),
                name::CURRENT_TIME => return Found::Time,
                _ => place = parent,
            }
        }
        Found::Undefined
    }

    /// A name by itself: what its ad and those around it lack is looked up in the other ad of the match.
    pub(crate) fn find_bare(&self, at: &At<'_, 'a>, name: Name) -> Found<'a> {
        let found = self.find(at, at.place.get(), name);
        if !matches!(found, Found::Undefined) || !self.is_match() {
            return found;
        }
        match at.place.get() {
            LEFT => self.find(at, RIGHT, name),
            RIGHT => self.find(at, LEFT, name),
            place => match at.context {
                Some((inside, other)) if inside == place => self.find(at, other, name),
                _ => found,
            },
        }
    }

    #[inline]
    pub(crate) fn attribute(&'a self, at: &At<'_, 'a>, name: Name, depth: Depth) -> Ev<'a> {
        let key = name.key();
        let place = at.place.get();
        // The usual case: an ordinary name at the top of an ad that is matched with another one.
        if place.ad == 0 && place.unit < 2 && self.plain && key >= name::FIRST_ORDINARY {
            let unit = &self.first[place.unit as usize];
            if let Some(value) = unit.arena.root.get(key) {
                return self.attribute_value(at, unit.arena, place, value, depth);
            }
            let other = Place {
                unit: 1 - place.unit,
                ad: 0,
            };
            let unit = &self.first[other.unit as usize];
            return match unit.arena.root.get(key) {
                Some(value) => self.attribute_value(at, unit.arena, other, value, depth),
                None => Ok(Val::Undefined),
            };
        }
        let found = self.find_bare(at, name);
        self.found(at, found, depth)
    }

    /// Evaluates an attribute of the ad at a place, which is that of its unit.
    #[inline]
    fn attribute_value(
        &'a self,
        at: &At<'_, 'a>,
        arena: &'a Arena,
        place: Place,
        value: Node,
        depth: Depth,
    ) -> Ev<'a> {
        if depth.left <= 0 {
            return Err(Stop);
        }
        if value.tag() != tag::LINK {
            self.charge(1)?;
            return Ok(super::literal(arena, value));
        }
        self.enter(
            at,
            (arena, place.unit),
            place,
            value.high(),
            depth,
            Machine::eval,
        )
        .unwrap_or(Ok(Val::Undefined))
    }

    /// Evaluates the expression of an attribute in its ad; `None` if that is what is being evaluated already.
    #[inline]
    pub(super) fn enter<T>(
        &'a self,
        at: &At<'_, 'a>,
        (arena, unit): (&'a Arena, u32),
        place: Place,
        node: NodeId,
        depth: Depth,
        evaluate: impl FnOnce(&'a Machine<'a>, &At<'_, 'a>, NodeId, Depth) -> T,
    ) -> Option<T> {
        let mut active = at.active;
        while let Some(above) = active {
            if above.node == node && above.unit == unit {
                return None;
            }
            active = above.up;
        }
        let here = Active {
            unit,
            node,
            up: at.active,
        };
        let place = Cell::new(place);
        let inner = At {
            arena,
            unit,
            place,
            root: at.root,
            active: Some(&here),
            context: at.context,
        };
        Some(evaluate(self, &inner, node, depth.deeper()))
    }

    /// Evaluates what was found.
    #[inline]
    pub(crate) fn found(&'a self, at: &At<'_, 'a>, found: Found<'a>, depth: Depth) -> Ev<'a> {
        let Found::Value {
            arena,
            unit,
            place,
            value,
        } = found
        else {
            return match found {
                Found::Error => Ok(Val::Error),
                Found::Undefined => Ok(Val::Undefined),
                _ if depth.left <= 0 => Err(Stop),
                Found::Ad(place) => Ok(Val::Ad(place)),
                _ => Ok(Val::Int(crate::builtins::times::now())),
            };
        };
        if depth.left <= 0 {
            return Err(Stop);
        }
        if value.tag() != tag::LINK {
            self.charge(1)?;
            return Ok(super::literal(arena, value));
        }
        self.enter(at, (arena, unit), place, value.high(), depth, Machine::eval)
            .unwrap_or(Ok(Val::Undefined))
    }

    /// `expr.name`
    pub(crate) fn select(
        &'a self,
        at: &At<'_, 'a>,
        id: NodeId,
        name: Name,
        depth: Depth,
    ) -> Ev<'a> {
        if let Some(place) = self.direct(at, id, depth) {
            self.charge(3)?;
            if self.plain && name.key() >= name::FIRST_ORDINARY {
                let arena = self.first[place.unit as usize].arena;
                return match arena.root.get(name.key()) {
                    Some(value) => self.attribute_value(at, arena, place, value, depth),
                    None => Ok(Val::Undefined),
                };
            }
            let found = self.find(at, place, name);
            return self.found(at, found, depth);
        }
        if depth.left <= 0 {
            return Ok(Val::Error);
        }
        let base = self.eval(at, id - 1, depth.deeper())?;
        self.select_from(at, base, name, depth)
    }

    /// The ad that `MY` or `TARGET` before the dot stands for, where that is plain: the usual case in a match.
    #[inline]
    fn direct(&self, at: &At<'_, 'a>, id: NodeId, depth: Depth) -> Option<Place> {
        let base = at.arena.node(id - 1);
        let place = at.place.get();
        if base.tag() != tag::ATTR
            || place.ad != 0
            || place.unit > 1
            || depth.left <= 4
            || !self.is_match()
        {
            return None;
        }
        // An ad may have attributes of these names itself.
        let unit = self.unit(place.unit);
        let first = unit
            .arena
            .root
            .names()
            .first()
            .map_or(u32::MAX, |raw| raw >> 8);
        if first < name::FIRST_ORDINARY || unit.chain.is_some() {
            return None;
        }
        match base.name().key() {
            name::MY => Some(place),
            name::TARGET | name::OTHER if at.root == MATCH => Some(Place {
                unit: 1 - place.unit,
                ad: 0,
            }),
            _ => None,
        }
    }

    /// `.name` of a value.
    fn select_from(&'a self, at: &At<'_, 'a>, base: Val<'a>, name: Name, depth: Depth) -> Ev<'a> {
        match base {
            Val::Undefined => Ok(Val::Undefined),
            Val::Ad(place) => {
                let found = self.find(at, place, name);
                self.found(at, found, depth)
            }
            Val::List(..) | Val::Made(_) | Val::Shared(_) => {
                self.select_each(at, base, name, depth)
            }
            _ => Ok(Val::Error),
        }
    }

    /// `.name` of each element of a list.
    fn select_each(&'a self, at: &At<'_, 'a>, base: Val<'a>, name: Name, depth: Depth) -> Ev<'a> {
        let Some(items) = self.items(base) else {
            return Ok(Val::Error);
        };
        let inner = At {
            root: self.outermost(at.place.get()),
            place: at.place.clone(),
            ..*at
        };
        let mut values = Vec::new();
        for index in 0..items.len() {
            self.charge(1)?;
            let value = if depth.left <= 0 {
                Val::Error
            } else {
                let item = self.item(&inner, items, index, depth.deeper())?;
                self.select_from(&inner, item, name, depth)?
            };
            values.push(match value {
                Val::Ad(place) => Val::Ad(self.orphan(place)),
                other => as_literal(other),
            });
        }
        if depth.left <= 0 {
            return Err(Stop);
        }
        Ok(Val::Made(self.make_list(values)?))
    }

    /// What the library makes of a list or an ad that leaves its evaluation: a copy with nothing around it.
    pub(crate) fn detached(&self, value: Val<'a>) -> Val<'a> {
        match value {
            Val::Ad(place) => Val::Ad(self.orphan(place)),
            Val::List(unit, id) => {
                let known = self.unit(unit);
                let top = known.arena.list_scope(known.arena.node(id));
                let unit = self.add_unit(Unit {
                    top,
                    owner: NOWHERE,
                    bare: true,
                    ..*known
                });
                Val::List(unit | DETACHED, id)
            }
            other => other,
        }
    }

    /// The same ad with nothing around it: the library copies ads that it selects from lists.
    pub(crate) fn orphan(&self, place: Place) -> Place {
        let unit = self.unit(place.unit);
        let unit = self.add_unit(Unit {
            top: place.ad,
            owner: NOWHERE,
            ..*unit
        });
        Place { unit, ad: place.ad }
    }
}

impl<'a> Machine<'a> {
    /// The ad around an ad.
    pub(crate) fn around(&self, place: Place) -> Place {
        self.parent(place)
    }

    /// Where a reference leads, without evaluating what is there; `None` if nowhere.
    ///
    /// As in the library, the place is then the ad where the search ended, found or not.
    pub(crate) fn dereference(
        &'a self,
        at: &At<'_, 'a>,
        id: NodeId,
        depth: Depth,
    ) -> Result<Option<Found<'a>>, Stop> {
        let node = at.arena.node(id);
        let found = match node.tag() {
            tag::ATTR => self.find_bare(at, node.name()),
            tag::ABSOLUTE if at.root != NOWHERE => self.find(at, at.root, node.name()),
            tag::SELECT if depth.left > 0 => match self.eval(at, id - 1, depth.deeper()) {
                Ok(Val::Ad(place)) => self.find(at, place, node.name()),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        match found {
            Found::Value { place, .. } => at.place.set(place),
            Found::Undefined => at.place.set(at.root),
            _ => {}
        }
        Ok(matches!(found, Found::Value { .. } | Found::Ad(_)).then_some(found))
    }
}
