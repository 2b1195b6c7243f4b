//! An ad of which only what somebody looks at is parsed.
//!
//! A slot's ad has two hundred lines, of which a match reads twenty: those that the job and we name, and those that the
//! expressions among these name in turn. Which these are is found out at the first slot and hardly changes after it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use classad::{ClassAd, ParseError};
use memchr::{memchr, memchr_iter};

/// Lines whose names differ in length, first or last letter from all that are wanted are most of a large pool's 2 million,
/// and cost no look into a table.
const SHAPES: usize = 1 << 12;

/// Which lines are worth a look.
pub(super) struct Wanted {
    shapes: Vec<bool>,
    /// In lower case.
    names: HashSet<Vec<u8>>,
    /// Hashes of the expressions whose names are among them already.
    known: HashSet<u64>,
    hasher: RandomState,
    lower: Vec<u8>,
}

impl Wanted {
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Wanted {
        let mut wanted = Wanted {
            shapes: vec![false; SHAPES],
            names: HashSet::new(),
            known: HashSet::new(),
            hasher: RandomState::new(),
            lower: Vec::new(),
        };
        names
            .into_iter()
            .for_each(|name| wanted.want(name.as_bytes()));
        wanted
    }

    fn want(&mut self, name: &[u8]) {
        self.shapes[shape(name)] = true;
        self.names.insert(name.to_ascii_lowercase());
    }

    /// Those lines of an ad, and whatever they lead to, as name and value.
    pub(super) fn lines<'a>(&mut self, ad: &'a [u8], found: &mut Vec<(&'a [u8], &'a [u8])>) {
        loop {
            found.clear();
            self.pick(ad, found);
            let known = self.names.len();
            for (_, value) in found.iter() {
                self.follow(value);
            }
            if self.names.len() == known {
                return;
            }
        }
    }

    fn pick<'a>(&mut self, ad: &'a [u8], found: &mut Vec<(&'a [u8], &'a [u8])>) {
        let mut start = 0;
        for end in memchr_iter(b'\n', ad).chain([ad.len()]) {
            let line = &ad[start..end];
            start = end + 1;
            let Some(equals) = memchr(b'=', line) else {
                continue;
            };
            let name = line[..equals].trim_ascii();
            if !self.shapes[shape(name)] {
                continue;
            }
            self.lower.clear();
            self.lower.extend(name.iter().map(u8::to_ascii_lowercase));
            if self.names.contains(&self.lower) {
                found.push((name, line[equals + 1..].trim_ascii()));
            }
        }
    }

    /// Every word of an expression may be a name; too many cost nothing but time.
    fn follow(&mut self, value: &[u8]) {
        let is_literal = match value {
            [b'"', text @ .., b'"'] => memchr(b'"', text).is_none(),
            [first, ..] => {
                first.is_ascii_digit() && value.iter().all(|byte| !byte.is_ascii_alphabetic())
            }
            [] => true,
        };
        if is_literal || !self.known.insert(self.hasher.hash_one(value)) {
            return;
        }
        let words = value.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        for word in words.filter(|word| !word.is_empty()) {
            self.want(word);
        }
    }
}

fn shape(name: &[u8]) -> usize {
    let letter = |byte: Option<&u8>| byte.map_or(0, |byte| usize::from(byte & 0x1f));
    (name.len() * 67 + letter(name.first()) * 257 + letter(name.last()) * 31) % SHAPES
}

/// These lines as an ad.
pub(super) fn parse(lines: &[(&[u8], &[u8])]) -> Result<ClassAd, ParseError> {
    let mut text = Vec::with_capacity(4096);
    for (name, value) in lines {
        text.extend_from_slice(name);
        text.extend_from_slice(b" = ");
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    ClassAd::parse_old_bytes(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_expression_leads_to_is_found_and_nothing_else() {
        let ad = b"Zone = \"Start\"\nRequirements = START && true\nstart = MY.Limit > 3\nLimit = 4\nOther = Zone";
        let mut wanted = Wanted::new(["requirements"]);
        let mut lines = Vec::new();
        wanted.lines(ad, &mut lines);
        let names: Vec<_> = lines
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name))
            .collect();
        assert_eq!(names, ["Requirements", "start", "Limit"]);
        assert_eq!(parse(&lines).unwrap().eval_bool("Requirements"), Some(true));
    }
}
