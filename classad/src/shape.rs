//! Which attributes an ad has, apart from what they are.
//!
//! The ads of a pool come in a few kinds with the same attributes, so the sorted names, the index into them and the order
//! of printing are shared. That saves a third of an ad's memory, and it keeps in the processor's cache what each of ten
//! thousand slots would otherwise bring along: finding an attribute in a slot that was not looked at for a while then
//! costs one access to memory instead of three.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::name::{Name, print_order};
use crate::unparse::is_plain;

/// Ads with fewer attributes than this are searched without an index.
const INDEXED: usize = 12;
const VACANT: u16 = u16::MAX;
/// Shapes that a thread remembers.
const REMEMBERED: usize = 1024;

/// Names of attributes, sorted by key.
#[derive(Default)]
pub(crate) struct Shape {
    names: Vec<u32>,
    /// An open-addressing table of places in `names`. Twice as large as it needs to be, so most names that an ad lacks
    /// are known to be missing after one look.
    index: Vec<u16>,
    /// The order of printing.
    order: OnceLock<Vec<Printed>>,
}

/// An attribute as it is printed.
#[derive(Clone, Copy)]
pub(crate) struct Printed {
    pub(crate) name: &'static [u8],
    pub(crate) place: u32,
    /// The name needs no quotes.
    pub(crate) plain: bool,
}

impl Clone for Shape {
    fn clone(&self) -> Shape {
        // Copied to be changed, so the order is not worth copying.
        Shape {
            names: self.names.clone(),
            index: self.index.clone(),
            order: OnceLock::new(),
        }
    }
}

thread_local! {
    static KNOWN: RefCell<HashMap<u64, Arc<Shape>>> = RefCell::new(HashMap::new());
    static EMPTY: Arc<Shape> = Arc::new(Shape::default());
}

impl Shape {
    pub(crate) fn empty() -> Arc<Shape> {
        EMPTY.with(Arc::clone)
    }

    /// The shape with these names, which are sorted and distinct.
    pub(crate) fn of(names: &[u32]) -> Arc<Shape> {
        if names.is_empty() {
            return Shape::empty();
        }
        let mut hash = names.len() as u64;
        for &name in names {
            hash = (hash.rotate_left(5) ^ u64::from(name)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        KNOWN.with_borrow_mut(|known| {
            if let Some(shape) = known.get(&hash)
                && shape.names == names
            {
                return Arc::clone(shape);
            }
            let mut shape = Shape {
                names: names.to_vec(),
                ..Shape::default()
            };
            shape.reindex();
            let shape = Arc::new(shape);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            // Huge ads are rarely alike.
            if names.len() <= 4096 {
                known.insert(hash, Arc::clone(&shape));
            }
            shape
        })
    }

    #[inline]
    pub(crate) fn names(&self) -> &[u32] {
        &self.names
    }

    /// The place of the attribute with this key, or where it would have to be.
    pub(crate) fn search(&self, key: u32) -> Result<usize, usize> {
        self.names.binary_search_by_key(&key, |&raw| raw >> 8)
    }

    #[inline]
    pub(crate) fn find(&self, key: u32) -> Option<usize> {
        if self.index.is_empty() {
            return self.find_unindexed(key);
        }
        let mask = self.index.len() - 1;
        let mut slot = spread(key) & mask;
        loop {
            let place = self.index[slot] as usize;
            // A vacant slot is beyond all places.
            match self.names.get(place) {
                Some(&raw) if raw >> 8 == key => return Some(place),
                Some(_) => slot = (slot + 1) & mask,
                None => return None,
            }
        }
    }

    fn find_unindexed(&self, key: u32) -> Option<usize> {
        if self.names.len() >= INDEXED {
            return self.search(key).ok();
        }
        self.names.iter().position(|&raw| raw >> 8 == key)
    }

    fn reindex(&mut self) {
        self.index.clear();
        self.order = OnceLock::new();
        let count = self.names.len();
        if !(INDEXED..VACANT as usize).contains(&count) {
            return;
        }
        let size = (count * 2).next_power_of_two();
        self.index.resize(size, VACANT);
        for (place, &raw) in self.names.iter().enumerate() {
            let mut slot = spread(raw >> 8) & (size - 1);
            while self.index[slot] != VACANT {
                slot = (slot + 1) & (size - 1);
            }
            self.index[slot] = place as u16;
        }
    }

    pub(crate) fn insert(&mut self, at: usize, name: Name) {
        self.names.insert(at, name.raw());
        self.reindex();
    }

    pub(crate) fn remove(&mut self, at: usize) {
        self.names.remove(at);
        self.reindex();
    }

    /// The attributes in the order in which they are printed.
    pub(crate) fn order(&self) -> &[Printed] {
        self.order.get_or_init(|| {
            Name::with_table(|lookup| {
                let mut all: Vec<(u64, Printed)> = Vec::with_capacity(self.names.len());
                for (place, &raw) in self.names.iter().enumerate() {
                    let (name, order) = lookup(Name::from_raw(raw));
                    all.push((
                        order,
                        Printed {
                            name,
                            place: place as u32,
                            plain: is_plain(name),
                        },
                    ));
                }
                all.sort_unstable_by(|a, b| print_order((a.1.name, a.0), (b.1.name, b.0)));
                all.into_iter().map(|(_, printed)| printed).collect()
            })
        })
    }
}

/// Keys are handed out in sequence, and the names of an ad are met together; this spreads them anyway.
#[inline]
fn spread(key: u32) -> usize {
    (key.wrapping_mul(0x9E37_79B9) >> 15) as usize
}
