//! Runs a program: depth first, with the ways not taken on a stack of its own.

use super::program::{Inst, Program};
use super::syntax::{Greed, Place, is_word};

/// Steps that a search may take: about as long as PCRE searches before it gives up.
const MAX_STEPS: usize = 4_000_000;
/// Ways not taken that are remembered.
const MAX_STACK: usize = 1 << 20;
const UNSET: usize = usize::MAX;

/// The search was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Where the groups of a match are; group 0 is all of it.
#[derive(Clone, Debug)]
pub(crate) struct Captures(Vec<usize>);

impl Captures {
    pub(crate) fn get(&self, group: usize) -> Option<(usize, usize)> {
        let (from, to) = (*self.0.get(group * 2)?, *self.0.get(group * 2 + 1)?);
        (from != UNSET && to != UNSET).then_some((from, to))
    }

    /// One more than the highest group that took part.
    pub(crate) fn count(&self) -> usize {
        (0..self.0.len() / 2)
            .rev()
            .find(|&group| self.get(group).is_some())
            .map_or(1, |group| group + 1)
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = Option<(usize, usize)>> + '_ {
        (0..self.0.len() / 2).map(|group| self.get(group))
    }
}

/// A way not taken, or something to undo on the way to it.
#[derive(Clone, Copy)]
enum Entry {
    Try {
        pc: u32,
        at: usize,
    },
    Restore {
        slot: u32,
        value: usize,
    },
    /// A repeated set that can give back bytes, or take more if it is lazy.
    Shorter {
        pc: u32,
        least: usize,
        at: usize,
    },
    Longer {
        pc: u32,
        at: usize,
        left: u32,
    },
}

struct Search<'p> {
    program: &'p Program,
    text: &'p [u8],
    start: usize,
    slots: Vec<usize>,
    stack: Vec<Entry>,
    steps: usize,
}

/// Looks for the first match; tells how many steps it took.
pub(super) fn find(
    program: &Program,
    text: &[u8],
    start: usize,
    at_start: bool,
) -> (Result<Option<Captures>, TooLong>, usize) {
    let slots = vec![UNSET; program.slots];
    let mut search = Search {
        program,
        text,
        start,
        slots,
        stack: Vec::new(),
        steps: 0,
    };
    let result = search.first(at_start);
    (result, search.steps)
}

impl Search<'_> {
    fn first(&mut self, at_start: bool) -> Result<Option<Captures>, TooLong> {
        if let Some(required) = &self.program.required
            && !self.text[self.start..].iter().any(|&b| required.has(b))
        {
            return Ok(None);
        }
        let mut at = self.start;
        loop {
            if let Some(first) = self.program.first.as_ref().filter(|_| !at_start) {
                match self.text[at..].iter().position(|&b| first.has(b)) {
                    Some(ahead) => at += ahead,
                    None => return Ok(None),
                }
            }
            if self.program.anchored && at > 0 {
                return Ok(None);
            }
            self.slots.fill(UNSET);
            self.slots[0] = at;
            if let Some(end) = self.run(0, at, if at_start { Some(at) } else { None })? {
                self.slots[1] = end;
                self.slots.truncate(self.program.groups * 2);
                return Ok(Some(Captures(std::mem::take(&mut self.slots))));
            }
            if at_start || at >= self.text.len() {
                return Ok(None);
            }
            at += 1;
        }
    }

    fn push(&mut self, entry: Entry) -> Result<(), TooLong> {
        if self.stack.len() >= MAX_STACK {
            return Err(TooLong);
        }
        self.stack.push(entry);
        Ok(())
    }

    fn save(&mut self, slot: u32, at: usize) -> Result<(), TooLong> {
        let value = std::mem::replace(&mut self.slots[slot as usize], at);
        self.push(Entry::Restore { slot, value })
    }

    /// Takes the next way that was not taken, of those above `base`.
    fn back(&mut self, base: usize) -> Option<(u32, usize)> {
        while self.stack.len() > base {
            match self.stack.pop()? {
                Entry::Try { pc, at } => return Some((pc, at)),
                Entry::Restore { slot, value } => self.slots[slot as usize] = value,
                Entry::Shorter { pc, least, at } => {
                    if at - 1 > least {
                        self.stack.push(Entry::Shorter {
                            pc,
                            least,
                            at: at - 1,
                        });
                    }
                    return Some((pc, at - 1));
                }
                Entry::Longer { pc, at, left } => {
                    let Inst::Repeat { set, .. } = self.program.code[pc as usize - 1] else {
                        continue;
                    };
                    let more = self
                        .text
                        .get(at)
                        .is_some_and(|&b| self.program.sets[set as usize].has(b));
                    if more {
                        if left > 1 {
                            self.stack.push(Entry::Longer {
                                pc,
                                at: at + 1,
                                left: left - 1,
                            });
                        }
                        return Some((pc, at + 1));
                    }
                }
            }
        }
        None
    }

    /// Matches from an instruction to the end of its piece of the program. `not` is an end that does not count.
    fn run(&mut self, pc: u32, at: usize, not: Option<usize>) -> Result<Option<usize>, TooLong> {
        let base = self.stack.len();
        let (mut pc, mut at) = (pc, at);
        loop {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(TooLong);
            }
            let next = match self.program.code[pc as usize] {
                Inst::Byte(byte) => (self.text.get(at) == Some(&byte)).then_some((pc + 1, at + 1)),
                Inst::Set(set) => {
                    let set = &self.program.sets[set as usize];
                    self.text
                        .get(at)
                        .is_some_and(|&b| set.has(b))
                        .then_some((pc + 1, at + 1))
                }
                Inst::Split(first, second) => {
                    self.push(Entry::Try { pc: second, at })?;
                    Some((first, at))
                }
                Inst::Jump(to) => Some((to, at)),
                Inst::Save(slot) | Inst::Mark(slot) => {
                    self.save(slot, at)?;
                    Some((pc + 1, at))
                }
                // The instruction after is the jump back into the loop.
                Inst::Progress(slot) if self.slots[slot as usize] == at => Some((pc + 2, at)),
                Inst::Progress(_) => Some((pc + 1, at)),
                Inst::Place(place) => self.holds(place, at).then_some((pc + 1, at)),
                Inst::Back { group, caseless } => {
                    self.again(group, caseless, at).map(|at| (pc + 1, at))
                }
                Inst::Repeat {
                    set,
                    min,
                    max,
                    greed,
                } => self.repeat(pc, at, set, (min, max), greed)?,
                Inst::Look {
                    ahead,
                    positive,
                    behind,
                    end,
                } => self
                    .look(pc, at, (ahead, positive), behind)?
                    .then_some((end, at)),
                Inst::Atomic { end } => {
                    let depth = self.stack.len();
                    let matched = self.run(pc + 1, at, None)?;
                    // What was captured inside has to be undone if what follows fails.
                    self.stack_keep_restores(depth);
                    matched.map(|at| (end, at))
                }
                Inst::Match if not == Some(at) => None,
                Inst::Match => {
                    self.stack_keep_restores(base);
                    return Ok(Some(at));
                }
                Inst::Fail => None,
            };
            match next.or_else(|| self.back(base)) {
                Some((to, position)) => (pc, at) = (to, position),
                None => return Ok(None),
            }
        }
    }

    /// Forgets the ways not taken above `base`, but not what has to be undone.
    fn stack_keep_restores(&mut self, base: usize) {
        let mut to = base;
        for from in base..self.stack.len() {
            if matches!(self.stack[from], Entry::Restore { .. }) {
                self.stack[to] = self.stack[from];
                to += 1;
            }
        }
        self.stack.truncate(to);
    }

    fn look(
        &mut self,
        pc: u32,
        at: usize,
        kind: (bool, bool),
        behind: u32,
    ) -> Result<bool, TooLong> {
        let (ahead, positive) = kind;
        let from = if ahead {
            Some(at)
        } else {
            at.checked_sub(behind as usize)
        };
        let depth = self.stack.len();
        let matched = match from {
            Some(from) => self.run(pc + 1, from, None)?.is_some(),
            None => false,
        };
        if !positive {
            // A negative condition leaves no captures.
            while self.stack.len() > depth {
                if let Some(Entry::Restore { slot, value }) = self.stack.pop() {
                    self.slots[slot as usize] = value;
                }
            }
        }
        Ok(matched == positive)
    }

    fn repeat(
        &mut self,
        pc: u32,
        at: usize,
        set: u32,
        (min, max): (u32, u32),
        greed: Greed,
    ) -> Result<Option<(u32, usize)>, TooLong> {
        let set = &self.program.sets[set as usize];
        let most = if greed == Greed::Lazy { min } else { max };
        let rest = &self.text[at..];
        let limit = rest.len().min(most as usize);
        let count = rest[..limit].iter().take_while(|&&b| set.has(b)).count();
        self.steps += count / 16;
        if count < min as usize {
            return Ok(None);
        }
        let (least, end) = (at + min as usize, at + count);
        match greed {
            Greed::Greedy if end > least => self.push(Entry::Shorter {
                pc: pc + 1,
                least,
                at: end,
            })?,
            Greed::Lazy if max > min => self.push(Entry::Longer {
                pc: pc + 1,
                at: end,
                left: max - min,
            })?,
            _ => {}
        }
        Ok(Some((pc + 1, end)))
    }

    fn holds(&self, place: Place, at: usize) -> bool {
        let text = self.text;
        let word = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(|&b| is_word(b));
        match place {
            Place::Start => at == 0,
            Place::LineStart => at == 0 || (text[at - 1] == b'\n' && at < text.len()),
            Place::End => at == text.len(),
            Place::LastLine => at == text.len() || (at + 1 == text.len() && text[at] == b'\n'),
            Place::LineEnd => at == text.len() || text[at] == b'\n',
            Place::Word => word(at.checked_sub(1)) != word(Some(at)),
            Place::NotWord => word(at.checked_sub(1)) == word(Some(at)),
            Place::SearchStart => at == self.start,
        }
    }

    /// What a group matched, once more; an unset group matches nothing.
    fn again(&mut self, group: u32, caseless: bool, at: usize) -> Option<usize> {
        let (from, to) = (
            self.slots[group as usize * 2],
            self.slots[group as usize * 2 + 1],
        );
        if from == UNSET || to == UNSET {
            return None;
        }
        let (found, wanted) = (self.text.get(at..at + (to - from))?, &self.text[from..to]);
        self.steps += wanted.len() / 16;
        let same = if caseless {
            found.eq_ignore_ascii_case(wanted)
        } else {
            found == wanted
        };
        same.then_some(at + wanted.len())
    }
}
