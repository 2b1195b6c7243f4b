//! Attribute and function names, interned once per process.
//!
//! A pool has a few hundred distinct names and millions of attributes that bear them, so an ad stores four bytes per
//! name and compares integers. A [`Name`] is a key (names that differ only in ASCII case share it) and a spelling.
//! Each thread keeps its own copy of the table, so that no lock is taken for a name that the thread has seen before.
//!
//! Names are never freed. What is parsed from outside is therefore limited to [`MAX_NAMES`] distinct names of together
//! [`MAX_BYTES`] bytes; beyond that a new name is a parse error.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::builtins;

/// How many distinct names (ignoring case) parsed text may introduce into the process.
const MAX_NAMES: usize = 1 << 21;
/// How many bytes of names parsed text may introduce into the process.
const MAX_BYTES: usize = 96 << 20;
/// Spellings of one name that are told apart. Later ones are printed like the first.
const SPELLINGS: u32 = 256;

/// An interned name: `key << 8 | spelling`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name(u32);

/// Names with a meaning of their own, in the order of their keys.
const RESERVED: [&str; 20] = [
    "toplevel",
    "root",
    "self",
    "parent",
    "MY",
    "CurrentTime",
    "TARGET",
    "other",
    "ad",
    "LEFT",
    "RIGHT",
    "lCtx",
    "rCtx",
    "symmetricMatch",
    "leftMatchesRight",
    "rightMatchesLeft",
    "leftRankValue",
    "rightRankValue",
    "Requirements",
    "Rank",
];

pub(crate) const TOPLEVEL: u32 = 0;
pub(crate) const ROOT: u32 = 1;
pub(crate) const SELF: u32 = 2;
pub(crate) const PARENT: u32 = 3;
pub(crate) const MY: u32 = 4;
pub(crate) const CURRENT_TIME: u32 = 5;
pub(crate) const TARGET: u32 = 6;
pub(crate) const OTHER: u32 = 7;
/// Keys below this resolve to something even where no ad has such an attribute.
pub(crate) const FIRST_ORDINARY: u32 = 18;
pub(crate) const REQUIREMENTS: u32 = 18;
pub(crate) const RANK: u32 = 19;
const FIRST_BUILTIN: u32 = RESERVED.len() as u32;

impl Name {
    /// The part that is equal for names that differ in case only.
    #[inline]
    pub(crate) fn key(self) -> u32 {
        self.0 >> 8
    }

    #[inline]
    pub(crate) fn raw(self) -> u32 {
        self.0
    }

    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Name {
        Name(raw)
    }

    /// The first spelling of the name with this key.
    pub(crate) fn from_key(key: u32) -> Name {
        Name(key << 8)
    }

    /// The built-in function of this name.
    #[inline]
    pub(crate) fn builtin(self) -> Option<u16> {
        // `CurrentTime` is a reserved name first, so its function is the last one, which has no key of its own.
        let index = match self.key() {
            CURRENT_TIME => builtins::NAMES.len() as u32 - 1,
            key => key.wrapping_sub(FIRST_BUILTIN),
        };
        let own = builtins::NAMES.len() as u32 - u32::from(self.key() != CURRENT_TIME);
        (index < own).then_some(index as u16)
    }

    /// Interns a name that the program itself uses.
    pub(crate) fn new(text: &[u8]) -> Name {
        LOCAL
            .with_borrow_mut(|local| local.intern(text, false))
            .unwrap_or(Name(0))
    }

    /// Interns a name from parsed text; `None` once the process holds too many names.
    #[inline]
    pub(crate) fn parsed(text: &[u8]) -> Option<Name> {
        LOCAL.with_borrow_mut(|local| local.intern(text, true))
    }

    /// The key of a name, if anything in the process has it: what was never interned is in no ad.
    pub(crate) fn known(text: &[u8]) -> Option<Name> {
        LOCAL.with_borrow_mut(|local| {
            let hash = hash(text);
            if let Some(name) = local.find(text, hash) {
                return Some(name);
            }
            let name = global()
                .folded
                .get(fold(text).as_slice())
                .map(|&key| Name(key << 8));
            if let Some(name) = name
                && local.known.len() < 4096
            {
                local.known.insert(text.to_vec(), name);
            }
            name
        })
    }

    /// The name as it was written.
    pub(crate) fn text(self) -> &'static [u8] {
        LOCAL.with_borrow_mut(|local| local.resolve(self).0)
    }

    /// Runs `f` with a function that gives spelling and sort key of a name: one table access for many names.
    pub(crate) fn with_table<T>(
        f: impl FnOnce(&mut dyn FnMut(Name) -> (&'static [u8], u64)) -> T,
    ) -> T {
        // Taken out for the time of the call, so that `f` may itself use names.
        let mut local = LOCAL.with_borrow_mut(std::mem::take);
        let result = f(&mut |name| local.resolve(name));
        LOCAL.with_borrow_mut(|slot| *slot = local);
        result
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.text().escape_ascii())
    }
}

/// The order in which attributes are printed: by length, then by the text without regard to case.
pub(crate) fn print_order(a: (&[u8], u64), b: (&[u8], u64)) -> Ordering {
    a.1.cmp(&b.1)
        .then_with(|| a.0.len().cmp(&b.0.len()))
        .then_with(|| {
            let lower = |text: &[u8]| text.iter().map(u8::to_ascii_lowercase).collect::<Vec<_>>();
            if a.0.len() <= 7 {
                Ordering::Equal
            } else {
                lower(a.0).cmp(&lower(b.0))
            }
        })
}

/// Length and first seven bytes in one comparable number.
fn order_key(text: &[u8]) -> u64 {
    let mut key = (text.len().min(255) as u64) << 56;
    for (i, byte) in text.iter().take(7).enumerate() {
        key |= u64::from(byte.to_ascii_lowercase()) << (48 - 8 * i);
    }
    key
}

struct Global {
    spelled: HashMap<&'static [u8], Name>,
    folded: HashMap<&'static [u8], u32>,
    spellings: Vec<Vec<&'static [u8]>>,
    bytes: usize,
}

impl Global {
    fn new() -> Global {
        let mut global = Global {
            spelled: HashMap::new(),
            folded: HashMap::new(),
            spellings: Vec::new(),
            bytes: 0,
        };
        let functions = &builtins::NAMES[..builtins::NAMES.len() - 1];
        for name in RESERVED.iter().chain(functions) {
            let _ = global.intern(name.as_bytes(), false);
        }
        global
    }

    fn intern(&mut self, text: &[u8], limited: bool) -> Option<Name> {
        if let Some(&name) = self.spelled.get(text) {
            return Some(name);
        }
        let folded = fold(text);
        let key = self.folded.get(folded.as_slice()).copied();
        if limited {
            let full = self.bytes + text.len() > MAX_BYTES || self.spellings.len() >= MAX_NAMES;
            match key {
                // An unusual spelling is not worth refusing an ad.
                Some(key) if full => return Some(Name(key << 8)),
                None if full => return None,
                _ => {}
            }
        }
        let key = match key {
            Some(key) => key,
            None => {
                // 24 bits of key; the limits above stop parsed names long before.
                let key = u32::try_from(self.spellings.len())
                    .ok()
                    .filter(|&key| key < 1 << 24)?;
                self.bytes += folded.len();
                self.folded.insert(folded.leak(), key);
                self.spellings.push(Vec::new());
                key
            }
        };
        let list = &mut self.spellings[key as usize];
        if list.len() as u32 >= SPELLINGS {
            return Some(Name(key << 8));
        }
        let name = Name(key << 8 | list.len() as u32);
        let text: &'static [u8] = text.to_vec().leak();
        self.bytes += text.len();
        list.push(text);
        self.spelled.insert(text, name);
        Some(name)
    }
}

static GLOBAL: LazyLock<Mutex<Global>> = LazyLock::new(|| Mutex::new(Global::new()));

fn global() -> MutexGuard<'static, Global> {
    // The table is append-only, so it is whole even if a thread died while it held the lock.
    GLOBAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's table, taken out for as long as many names are interned.
pub(crate) struct Names(Local);

impl Names {
    pub(crate) fn take() -> Names {
        Names(LOCAL.with_borrow_mut(std::mem::take))
    }

    /// Interns a name from parsed text; `None` once the process holds too many names.
    #[inline]
    pub(crate) fn parsed(&mut self, text: &[u8]) -> Option<Name> {
        self.0.intern(text, true)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let table = std::mem::take(&mut self.0);
        LOCAL.with_borrow_mut(|slot| *slot = table);
    }
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::new(Local::default());
}

/// One thread's view: an open-addressing table from spelling to name, and the spellings by name.
#[derive(Default)]
struct Local {
    slots: Vec<Slot>,
    used: usize,
    spellings: Vec<Spelled>,
    known: HashMap<Vec<u8>, Name>,
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    name: u32,
    text: &'static [u8],
}

const EMPTY: Slot = Slot {
    hash: 0,
    name: u32::MAX,
    text: &[],
};

#[derive(Clone, Default)]
struct Spelled {
    order: u64,
    first: &'static [u8],
    more: Vec<&'static [u8]>,
}

impl Local {
    #[inline]
    fn find(&self, text: &[u8], hash: u32) -> Option<Name> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = &self.slots[at];
            if slot.name == u32::MAX {
                return self
                    .known
                    .get(text)
                    .copied()
                    .filter(|_| !self.known.is_empty());
            }
            if slot.hash == hash && slot.text == text {
                return Some(Name(slot.name));
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn intern(&mut self, text: &[u8], limited: bool) -> Option<Name> {
        let hash = hash(text);
        if !self.slots.is_empty() {
            let mask = self.slots.len() - 1;
            let mut at = hash as usize & mask;
            loop {
                let slot = &self.slots[at];
                if slot.name == u32::MAX {
                    break;
                }
                if slot.hash == hash && slot.text == text {
                    return Some(Name(slot.name));
                }
                at = (at + 1) & mask;
            }
        }
        self.learn(text, hash, limited)
    }

    #[cold]
    fn learn(&mut self, text: &[u8], hash: u32, limited: bool) -> Option<Name> {
        let (name, spelling) = {
            let mut global = global();
            let name = global.intern(text, limited)?;
            (
                name,
                global.spellings[name.key() as usize][(name.0 & 255) as usize],
            )
        };
        // A spelling that was folded into the first one is looked up in the global table each time; it is rare.
        if spelling == text {
            self.insert(Slot {
                hash,
                name: name.0,
                text: spelling,
            });
        }
        Some(name)
    }

    fn insert(&mut self, slot: Slot) {
        if self.used * 2 >= self.slots.len() {
            let bigger = (self.slots.len() * 2).max(1024);
            let old = std::mem::replace(&mut self.slots, vec![EMPTY; bigger]);
            for slot in old.into_iter().filter(|slot| slot.name != u32::MAX) {
                self.place(slot);
            }
        }
        self.place(slot);
        self.used += 1;
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.slots[at].name != u32::MAX {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    #[inline]
    fn resolve(&mut self, name: Name) -> (&'static [u8], u64) {
        let spelling = (name.0 & 255) as usize;
        if let Some(known) = self.spellings.get(name.key() as usize) {
            if spelling == 0 && !known.first.is_empty() {
                return (known.first, known.order);
            }
            if spelling > 0
                && let Some(text) = known.more.get(spelling - 1)
            {
                return (text, known.order);
            }
        }
        self.refresh(name)
    }

    #[cold]
    fn refresh(&mut self, name: Name) -> (&'static [u8], u64) {
        let key = name.key() as usize;
        let global = global();
        if self.spellings.len() <= key {
            self.spellings
                .resize(global.spellings.len().max(key + 1), Spelled::default());
        }
        let Some(list) = global.spellings.get(key) else {
            return (b"", 0);
        };
        let known = &mut self.spellings[key];
        known.first = list.first().copied().unwrap_or(b"");
        known.more = list.iter().skip(1).copied().collect();
        known.order = order_key(known.first);
        let text = list
            .get((name.0 & 255) as usize)
            .copied()
            .unwrap_or(known.first);
        (text, known.order)
    }
}

fn fold(text: &[u8]) -> Vec<u8> {
    text.to_ascii_lowercase()
}

/// Eight bytes at a time; the table above only needs the low bits to be spread well.
#[inline]
fn hash(text: &[u8]) -> u32 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let word = |chunk: &[u8; 8]| u64::from_le_bytes(*chunk);
    let mut state = text.len() as u64;
    match text.last_chunk::<8>() {
        Some(last) => {
            for chunk in text.as_chunks::<8>().0 {
                state = (state.rotate_left(5) ^ word(chunk)).wrapping_mul(K);
            }
            // The last eight bytes, some of them once more, instead of a shorter piece.
            state = (state.rotate_left(5) ^ word(last)).wrapping_mul(K);
        }
        None => {
            let rest = text
                .iter()
                .fold(0, |bits, &byte| bits << 8 | u64::from(byte));
            state = (state.rotate_left(5) ^ rest).wrapping_mul(K);
        }
    }
    (state >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_share_a_key_and_keep_their_spelling() {
        let (a, b) = (Name::new(b"RequestCpus"), Name::new(b"requestCPUS"));
        assert_eq!(a.key(), b.key());
        assert_eq!(a.text(), b"RequestCpus");
        assert_eq!(b.text(), b"requestCPUS");
        assert_eq!(Name::known(b"REQUESTCPUS").map(Name::key), Some(a.key()));
    }

    #[test]
    fn reserved_names_have_the_keys_that_the_evaluator_expects() {
        assert_eq!(Name::new(b"target").key(), TARGET);
        assert_eq!(Name::new(b"requirements").key(), REQUIREMENTS);
        assert_eq!(Name::new(b"rank").key(), RANK);
        assert_eq!(Name::new(b"rightrankvalue").key(), FIRST_ORDINARY - 1);
    }
}
