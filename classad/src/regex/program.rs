//! From the tree of a pattern to instructions.

use super::Set;
use super::syntax::{Greed, Parsed, Place, Tree};

/// Instructions in a program. Counted repetitions are written out, so a pattern can ask for more.
const MAX_PROGRAM: usize = 1 << 16;
/// The longest text that a look-behind may cover.
const MAX_BEHIND: usize = 65_535;

#[derive(Clone, Copy, Debug)]
pub(super) enum Inst {
    /// One byte of the set with this number.
    Set(u32),
    Byte(u8),
    /// Goes on at the first place, and at the second if that fails.
    Split(u32, u32),
    Jump(u32),
    /// Remembers the position.
    Save(u32),
    Place(Place),
    Back {
        group: u32,
        caseless: bool,
    },
    /// A set again and again.
    Repeat {
        set: u32,
        min: u32,
        max: u32,
        greed: Greed,
    },
    /// The instructions up to `end` as a condition; `behind` is how far before this place they start.
    Look {
        ahead: bool,
        positive: bool,
        behind: u32,
        end: u32,
    },
    /// The instructions up to `end`, of whose ways to match only the first counts.
    Atomic {
        end: u32,
    },
    /// Leaves the loop if this round of it matched nothing: the position is the same as in the slot.
    Progress(u32),
    /// Remembers the position for [`Inst::Progress`].
    Mark(u32),
    /// The end of a look-around or an atomic group, or of everything.
    Match,
    Fail,
}

#[derive(Debug)]
pub(super) struct Program {
    pub(super) code: Vec<Inst>,
    pub(super) sets: Vec<Set>,
    /// Slots for positions: two for each group, then the marks.
    pub(super) slots: usize,
    pub(super) groups: usize,
    /// What a match can start with, unless it can be empty.
    pub(super) first: Option<Set>,
    /// A byte that every match contains.
    pub(super) required: Option<Set>,
    /// Matches only at the start of the text.
    pub(super) anchored: bool,
}

struct Compiler {
    code: Vec<Inst>,
    sets: Vec<Set>,
    slots: u32,
}

pub(super) fn compile(parsed: &Parsed) -> Option<Program> {
    let groups = parsed.groups as usize + 1;
    let mut compiler = Compiler {
        code: Vec::new(),
        sets: Vec::new(),
        slots: groups as u32 * 2,
    };
    compiler.tree(&parsed.tree)?;
    compiler.push(Inst::Match)?;
    let mut first = Set::default();
    let nonempty = starts(&parsed.tree, &mut first);
    Some(Program {
        code: compiler.code,
        sets: compiler.sets,
        slots: compiler.slots as usize,
        groups,
        first: nonempty.then_some(first),
        required: required(&parsed.tree),
        anchored: anchored(&parsed.tree),
    })
}

/// Adds what a match can start with; false if it can be empty as far as is known.
fn starts(tree: &Tree, set: &mut Set) -> bool {
    match tree {
        Tree::Set(own) => {
            set.add_all(own);
            true
        }
        Tree::Concat(items) => items.iter().any(|item| starts(item, set)),
        Tree::Either(items) => {
            // All of them count, whatever the first one is.
            let mut all = true;
            for item in items {
                all &= starts(item, set);
            }
            all
        }
        Tree::Capture(_, item) | Tree::Atomic(item) => starts(item, set),
        Tree::Repeat { item, min, .. } => starts(item, set) && *min > 0,
        Tree::Place(_) | Tree::Look { .. } | Tree::Keep => false,
        Tree::Back { .. } => {
            *set = Set::of(|_| true);
            false
        }
    }
}

/// The last byte that has to be in every match.
fn required(tree: &Tree) -> Option<Set> {
    match tree {
        Tree::Set(set) => {
            let count = (0..=255).filter(|&b| set.has(b)).count();
            let letters = (b'a'..=b'z').any(|b| set.has(b) && set.has(b.to_ascii_uppercase()));
            (count == 1 || (count == 2 && letters)).then_some(*set)
        }
        Tree::Concat(items) => items.iter().rev().find_map(required),
        Tree::Capture(_, item) | Tree::Atomic(item) => required(item),
        Tree::Repeat { item, min, .. } if *min > 0 => required(item),
        _ => None,
    }
}

fn anchored(tree: &Tree) -> bool {
    match tree {
        Tree::Place(Place::Start) => true,
        Tree::Concat(items) => items.first().is_some_and(anchored),
        Tree::Either(items) => items.iter().all(anchored),
        Tree::Capture(_, item) | Tree::Atomic(item) => anchored(item),
        _ => false,
    }
}

/// The length of everything the tree matches, if it is always the same.
fn length(tree: &Tree) -> Option<usize> {
    match tree {
        Tree::Set(_) => Some(1),
        Tree::Concat(items) => items
            .iter()
            .try_fold(0usize, |sum, item| Some(sum.saturating_add(length(item)?))),
        Tree::Either(items) => {
            let first = length(items.first()?)?;
            items
                .iter()
                .all(|item| length(item) == Some(first))
                .then_some(first)
        }
        Tree::Capture(_, item) | Tree::Atomic(item) => length(item),
        Tree::Repeat { item, min, max, .. } if *max == Some(*min) => {
            Some(length(item)?.saturating_mul(*min as usize))
        }
        Tree::Place(_) | Tree::Look { .. } | Tree::Keep => Some(0),
        Tree::Repeat { .. } | Tree::Back { .. } => None,
    }
}

/// Whether the tree can match nothing at all.
fn can_be_empty(tree: &Tree) -> bool {
    match tree {
        Tree::Set(_) => false,
        Tree::Concat(items) => items.iter().all(can_be_empty),
        Tree::Either(items) => items.iter().any(can_be_empty),
        Tree::Capture(_, item) | Tree::Atomic(item) => can_be_empty(item),
        Tree::Repeat { item, min, .. } => *min == 0 || can_be_empty(item),
        _ => true,
    }
}

impl Compiler {
    fn push(&mut self, inst: Inst) -> Option<u32> {
        if self.code.len() >= MAX_PROGRAM {
            return None;
        }
        self.code.push(inst);
        Some(self.code.len() as u32 - 1)
    }

    fn here(&self) -> u32 {
        self.code.len() as u32
    }

    fn set(&mut self, set: &Set) -> u32 {
        let at = self
            .sets
            .iter()
            .position(|known| known == set)
            .unwrap_or_else(|| {
                self.sets.push(*set);
                self.sets.len() - 1
            });
        at as u32
    }

    fn slot(&mut self) -> u32 {
        self.slots += 1;
        self.slots - 1
    }

    fn tree(&mut self, tree: &Tree) -> Option<()> {
        match tree {
            Tree::Set(set) => {
                let mut members = (0..=255).filter(|&b| set.has(b));
                let inst = match (members.next(), members.next()) {
                    (Some(byte), None) => Inst::Byte(byte),
                    (None, _) => Inst::Fail,
                    _ => Inst::Set(self.set(set)),
                };
                self.push(inst)?;
            }
            Tree::Concat(items) => {
                for item in items {
                    self.tree(item)?;
                }
            }
            Tree::Either(items) => self.either(items)?,
            Tree::Capture(group, item) => {
                self.push(Inst::Save(group * 2))?;
                self.tree(item)?;
                self.push(Inst::Save(group * 2 + 1))?;
            }
            Tree::Repeat {
                item,
                min,
                max,
                greed,
            } => self.repeat(item, *min, *max, *greed)?,
            Tree::Place(place) => {
                self.push(Inst::Place(*place))?;
            }
            Tree::Back { group, caseless } => {
                self.push(Inst::Back {
                    group: *group,
                    caseless: *caseless,
                })?;
            }
            Tree::Look {
                ahead: true,
                positive,
                body,
            } => self.look(true, *positive, 0, body)?,
            Tree::Look {
                ahead: false,
                positive,
                body,
            } => self.behind(*positive, body)?,
            Tree::Atomic(item) => self.atomic(|compiler| compiler.tree(item))?,
            Tree::Keep => {
                self.push(Inst::Save(0))?;
            }
        }
        Some(())
    }

    fn either(&mut self, items: &[Tree]) -> Option<()> {
        let mut jumps = Vec::new();
        for (i, item) in items.iter().enumerate() {
            if i + 1 == items.len() {
                self.tree(item)?;
                break;
            }
            let split = self.push(Inst::Fail)?;
            self.tree(item)?;
            jumps.push(self.push(Inst::Fail)?);
            self.code[split as usize] = Inst::Split(split + 1, self.here());
        }
        let end = self.here();
        for jump in jumps {
            self.code[jump as usize] = Inst::Jump(end);
        }
        Some(())
    }

    fn atomic(&mut self, body: impl FnOnce(&mut Compiler) -> Option<()>) -> Option<()> {
        let at = self.push(Inst::Fail)?;
        body(self)?;
        self.push(Inst::Match)?;
        self.code[at as usize] = Inst::Atomic { end: self.here() };
        Some(())
    }

    fn look(&mut self, ahead: bool, positive: bool, behind: u32, body: &Tree) -> Option<()> {
        let at = self.push(Inst::Fail)?;
        self.tree(body)?;
        self.push(Inst::Match)?;
        self.code[at as usize] = Inst::Look {
            ahead,
            positive,
            behind,
            end: self.here(),
        };
        Some(())
    }

    /// Alternatives of a look-behind may differ in length, but each has to have one.
    fn behind(&mut self, positive: bool, body: &Tree) -> Option<()> {
        let alternatives = match body {
            Tree::Either(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        let mut lengths = Vec::new();
        for item in alternatives {
            lengths.push(length(item).filter(|&l| l <= MAX_BEHIND)? as u32);
        }
        if !positive {
            for (item, behind) in alternatives.iter().zip(lengths) {
                self.look(false, false, behind, item)?;
            }
            return Some(());
        }
        let mut jumps = Vec::new();
        for (i, (item, behind)) in alternatives.iter().zip(lengths).enumerate() {
            let split = if i + 1 < alternatives.len() {
                Some(self.push(Inst::Fail)?)
            } else {
                None
            };
            self.look(false, true, behind, item)?;
            if let Some(split) = split {
                jumps.push(self.push(Inst::Fail)?);
                self.code[split as usize] = Inst::Split(split + 1, self.here());
            }
        }
        let end = self.here();
        for jump in jumps {
            self.code[jump as usize] = Inst::Jump(end);
        }
        Some(())
    }

    fn repeat(&mut self, item: &Tree, min: u32, max: Option<u32>, greed: Greed) -> Option<()> {
        if let Tree::Set(set) = item {
            let set = self.set(set);
            self.push(Inst::Repeat {
                set,
                min,
                max: max.unwrap_or(u32::MAX),
                greed,
            })?;
            return Some(());
        }
        if greed == Greed::Possessive {
            return self.atomic(|compiler| compiler.repeat(item, min, max, Greed::Greedy));
        }
        for _ in 0..min {
            self.tree(item)?;
        }
        let lazy = greed == Greed::Lazy;
        let fork = |inside: u32, outside: u32| {
            if lazy {
                Inst::Split(outside, inside)
            } else {
                Inst::Split(inside, outside)
            }
        };
        match max {
            None => {
                let split = self.push(Inst::Fail)?;
                let mark = can_be_empty(item).then(|| self.slot());
                if let Some(mark) = mark {
                    self.push(Inst::Mark(mark))?;
                }
                self.tree(item)?;
                if let Some(mark) = mark {
                    self.push(Inst::Progress(mark))?;
                }
                self.push(Inst::Jump(split))?;
                self.code[split as usize] = fork(split + 1, self.here());
            }
            Some(max) => {
                let mut splits = Vec::new();
                for _ in min..max {
                    splits.push(self.push(Inst::Fail)?);
                    self.tree(item)?;
                }
                let end = self.here();
                for split in splits {
                    self.code[split as usize] = fork(split + 1, end);
                }
            }
        }
        Some(())
    }
}
