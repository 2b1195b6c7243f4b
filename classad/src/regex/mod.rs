//! Regular expressions with the semantics of PCRE, over bytes.
//!
//! Ads in the wild use back-references and look-around, byte strings that are not UTF-8, PCRE's `$` before a final newline
//! and its limit on how long a match may be searched for, which makes a pathological pattern an error. The crates for
//! regular expressions differ in one or the other of these, so this is a small backtracking engine of its own: a parser,
//! a compiler to a list of instructions, and a loop that runs them with an explicit stack, so that neither pattern nor
//! text can exhaust the thread's.
//!
//! Not supported, and thus an error like a malformed pattern: recursion, conditions, verbs, `(?|…)` and Unicode properties.

mod class;
mod exec;
mod program;
mod syntax;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

pub(crate) use exec::{Captures, TooLong};

/// How a pattern is to be read.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Options {
    pub(crate) caseless: bool,
    pub(crate) multiline: bool,
    pub(crate) dotall: bool,
    pub(crate) extended: bool,
}

impl Options {
    /// From letters as they are given to `regexp()`; others mean nothing.
    pub(crate) fn from_letters(letters: &[u8]) -> Options {
        let has = |letter: u8| letters.contains(&letter);
        Options {
            caseless: has(b'i'),
            multiline: has(b'm'),
            dotall: has(b's'),
            extended: has(b'x'),
        }
    }
}

/// A set of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Set([u64; 4]);

impl Set {
    #[inline]
    pub(crate) fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 != 0
    }

    pub(crate) fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(crate) fn add_all(&mut self, other: &Set) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    pub(crate) fn invert(&mut self) {
        for word in &mut self.0 {
            *word = !*word;
        }
    }

    pub(crate) fn of(test: impl Fn(u8) -> bool) -> Set {
        let mut set = Set::default();
        (0..=255).filter(|&b| test(b)).for_each(|b| set.add(b));
        set
    }

    /// Adds the other case of each letter.
    pub(crate) fn add_cases(&mut self) {
        for lower in b'a'..=b'z' {
            let upper = lower.to_ascii_uppercase();
            if self.has(lower) || self.has(upper) {
                self.add(lower);
                self.add(upper);
            }
        }
    }
}

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Regex {
    program: program::Program,
}

/// Patterns that are kept compiled per thread.
const CACHED: usize = 64;

type Cache = HashMap<(Vec<u8>, Options), Option<Rc<Regex>>>;

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(HashMap::new());
}

impl Regex {
    /// Compiles a pattern; `None` if it is malformed.
    pub(crate) fn new(pattern: &[u8], options: Options) -> Option<Regex> {
        let parsed = syntax::parse(pattern, options)?;
        Some(Regex {
            program: program::compile(&parsed)?,
        })
    }

    /// The same, from the thread's cache where it can be: policies are evaluated again and again.
    pub(crate) fn cached(pattern: &[u8], options: Options) -> Option<Rc<Regex>> {
        CACHE.with_borrow_mut(|cache| {
            // A lookup by reference would need a borrowed form of the pair; patterns are short.
            let key = (pattern.to_vec(), options);
            if let Some(regex) = cache.get(&key) {
                return regex.clone();
            }
            let regex = Regex::new(pattern, options).map(Rc::new);
            if cache.len() >= CACHED {
                cache.clear();
            }
            if pattern.len() <= 4096 {
                cache.insert(key, regex.clone());
            }
            regex
        })
    }

    /// Looks for the first match from `start` on. With `at_start`, only a match right there that is not empty counts.
    pub(crate) fn find(
        &self,
        text: &[u8],
        start: usize,
        at_start: bool,
    ) -> (Result<Option<Captures>, TooLong>, usize) {
        exec::find(&self.program, text, start, at_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(pattern: &str, text: &str, letters: &str) -> Option<Vec<Option<(usize, usize)>>> {
        let regex = Regex::new(
            pattern.as_bytes(),
            Options::from_letters(letters.as_bytes()),
        )?;
        regex
            .find(text.as_bytes(), 0, false)
            .0
            .ok()
            .flatten()
            .map(|c| c.all().collect())
    }

    fn found<'t>(pattern: &str, text: &'t str) -> Option<&'t str> {
        spans(pattern, text, "")
            .and_then(|s| s[0])
            .map(|(from, to)| &text[from..to])
    }

    #[test]
    fn patterns_match_as_in_pcre() {
        for (pattern, text, expected) in [
            ("b+", "abbbc", Some("bbb")),
            ("b+?", "abbbc", Some("b")),
            ("(a|ab)(c|bcd)", "abcd", Some("abcd")),
            ("^a$", "a\n", Some("a")),
            (r"\d{2,3}", "12345", Some("123")),
            (r"(\w)\1", "hello", Some("ll")),
            ("foo(?=bar)", "foobaz foobar", Some("foo")),
            ("(?<!x)y", "xy zy", Some("y")),
            ("(?<=ab|c)d", "abd", Some("d")),
            ("a(?!b)", "abac", Some("a")),
            ("(?>a+)b", "aaab", Some("aaab")),
            ("a++a", "aaa", None),
            (r"\Qa.b\E", "a.b", Some("a.b")),
            ("[[:alpha:]]+", "12ab", Some("ab")),
            ("[]a]+", "x]a", Some("]a")),
            ("(?i)ABC", "xabc", Some("abc")),
            ("a{,3}", "a{,3}", Some("a{,3}")),
            ("x{2", "x{2", Some("x{2")),
            ("(a*)*b", "aab", Some("aab")),
            ("", "abc", Some("")),
        ] {
            assert_eq!(found(pattern, text), expected, "{pattern}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in [
            "[",
            "(",
            ")",
            "*a",
            "a**",
            "(?<=a*)b",
            r"\",
            "[b-a]",
            r"(?<n>a)\k<m>",
            "a{3,2}",
            "^*",
            r"\8",
        ] {
            assert!(
                Regex::new(pattern.as_bytes(), Options::default()).is_none(),
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_match_that_takes_too_long_is_given_up() {
        let text = "a".repeat(40) + "b";
        let regex = Regex::new(b"^(a+)+$", Options::default()).expect("valid");
        assert!(regex.find(text.as_bytes(), 0, false).0.is_err());
    }
}
