//! From a pattern to its tree.

use super::class::class;
use super::{Options, Set};

/// Groups inside groups. PCRE allows 250; patterns in policies have three.
const MAX_NESTING: u32 = 100;
/// The largest number in a quantifier.
const MAX_REPEAT: u32 = 65_535;

/// How often a quantified item is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Greed {
    Greedy,
    Lazy,
    Possessive,
}

/// Conditions on a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Start of the text.
    Start,
    /// Start of a line.
    LineStart,
    /// End of the text.
    End,
    /// End of the text, or before the newline that ends it.
    LastLine,
    /// End of a line.
    LineEnd,
    Word,
    NotWord,
    /// Where the search started.
    SearchStart,
}

#[derive(Debug)]
pub(super) enum Tree {
    Set(Set),
    Concat(Vec<Tree>),
    Either(Vec<Tree>),
    Capture(u32, Box<Tree>),
    Repeat {
        item: Box<Tree>,
        min: u32,
        max: Option<u32>,
        greed: Greed,
    },
    Place(Place),
    Back {
        group: u32,
        caseless: bool,
    },
    Look {
        ahead: bool,
        positive: bool,
        body: Box<Tree>,
    },
    Atomic(Box<Tree>),
    /// `\K`: the match is reported from here.
    Keep,
}

/// A pattern and how many groups capture in it.
pub(super) struct Parsed {
    pub(super) tree: Tree,
    pub(super) groups: u32,
}

pub(super) struct Parser<'p> {
    pub(super) pattern: &'p [u8],
    pub(super) at: usize,
    pub(super) options: Options,
    groups: u32,
    names: Vec<(Vec<u8>, u32)>,
    nesting: u32,
    /// The highest group that is referred to, which has to exist in the end.
    referred: u32,
    named: Vec<Vec<u8>>,
    /// Between `\Q` and `\E`.
    quoting: bool,
}

/// Reads a pattern; `None` if it is malformed.
pub(super) fn parse(pattern: &[u8], options: Options) -> Option<Parsed> {
    let mut parser = Parser {
        pattern,
        at: 0,
        options,
        groups: 0,
        names: Vec::new(),
        nesting: 0,
        referred: 0,
        named: Vec::new(),
        quoting: false,
    };
    let tree = parser.alternatives()?;
    let known = |name: &Vec<u8>| parser.names.iter().any(|(n, _)| n == name);
    if parser.at < pattern.len()
        || parser.referred > parser.groups
        || !parser.named.iter().all(known)
    {
        return None;
    }
    Some(Parsed {
        tree,
        groups: parser.groups,
    })
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

pub(super) fn is_space(byte: u8) -> bool {
    byte == b' ' || (9..=13).contains(&byte)
}

/// What an escape stands for.
pub(super) enum Escape {
    Byte(u8),
    Tree(Tree),
    /// Nothing, as `\E` by itself.
    Nothing,
}

impl Parser<'_> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.pattern.get(self.at).copied()
    }

    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn starts(&self, text: &[u8]) -> bool {
        self.pattern[self.at..].starts_with(text)
    }

    fn byte(&self, byte: u8) -> Tree {
        let mut set = Set::default();
        set.add(byte);
        if self.options.caseless {
            set.add_cases();
        }
        Tree::Set(set)
    }

    fn alternatives(&mut self) -> Option<Tree> {
        let options = self.options;
        let mut all = Vec::new();
        loop {
            all.push(self.sequence()?);
            if !self.take(b'|') {
                break;
            }
        }
        // Options that are set inside a group end with it.
        self.options = options;
        Some(if all.len() == 1 {
            all.remove(0)
        } else {
            Tree::Either(all)
        })
    }

    /// Skips what `x` makes meaningless.
    fn skip(&mut self) {
        while self.options.extended && !self.quoting {
            match self.peek() {
                Some(byte) if is_space(byte) => self.at += 1,
                Some(b'#') => {
                    while !matches!(self.peek(), None | Some(b'\n')) {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
    }

    fn sequence(&mut self) -> Option<Tree> {
        let mut items = Vec::new();
        loop {
            if self.quoting {
                if self.starts(b"\\E") {
                    self.at += 2;
                    self.quoting = false;
                    if !items.is_empty() {
                        self.quantify(&mut items)?;
                    }
                    continue;
                }
                let Some(byte) = self.peek() else { break };
                self.at += 1;
                items.push(self.byte(byte));
                continue;
            }
            self.skip();
            let Some(byte) = self.peek() else { break };
            if matches!(byte, b'|' | b')') {
                break;
            }
            let before = items.len();
            self.item(byte, &mut items)?;
            if items.len() > before {
                self.quantify(&mut items)?;
            }
        }
        Some(if items.len() == 1 {
            items.remove(0)
        } else {
            Tree::Concat(items)
        })
    }

    fn item(&mut self, byte: u8, items: &mut Vec<Tree>) -> Option<()> {
        self.at += 1;
        let tree = match byte {
            b'(' => match self.group()? {
                Some(tree) => tree,
                None => return Some(()),
            },
            b'[' => self.set()?,
            b'.' if self.options.dotall => Tree::Set(Set::of(|_| true)),
            b'.' => Tree::Set(Set::of(|b| b != b'\n')),
            b'^' if self.options.multiline => Tree::Place(Place::LineStart),
            b'^' => Tree::Place(Place::Start),
            b'$' if self.options.multiline => Tree::Place(Place::LineEnd),
            b'$' => Tree::Place(Place::LastLine),
            b'*' | b'+' | b'?' => return None,
            b'{' => {
                self.at -= 1;
                if self.counts().is_some() {
                    return None;
                }
                self.at += 1;
                self.byte(b'{')
            }
            b'\\' => match self.escape(false)? {
                Escape::Byte(byte) => self.byte(byte),
                Escape::Tree(tree) => tree,
                Escape::Nothing => return Some(()),
            },
            _ => self.byte(byte),
        };
        items.push(tree);
        Some(())
    }

    /// `{n}`, `{n,}` or `{n,m}` at this place, else nothing is consumed.
    fn counts(&mut self) -> Option<(u32, Option<u32>)> {
        let from = self.at;
        let counts = self.braces();
        if counts.is_none() {
            self.at = from;
        }
        counts
    }

    fn braces(&mut self) -> Option<(u32, Option<u32>)> {
        if !self.take(b'{') {
            return None;
        }
        let min = self.number()?;
        let max = if self.take(b',') {
            if self.peek() == Some(b'}') {
                None
            } else {
                Some(self.number()?)
            }
        } else {
            Some(min)
        };
        self.take(b'}').then_some((min, max))
    }

    fn number(&mut self) -> Option<u32> {
        let from = self.at;
        let mut value = 0u32;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            value = value
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'));
            self.at += 1;
        }
        (self.at > from).then_some(value)
    }

    fn quantifier(&mut self) -> Option<(u32, Option<u32>)> {
        let counts = match self.peek()? {
            b'*' => (0, None),
            b'+' => (1, None),
            b'?' => (0, Some(1)),
            b'{' => return self.counts(),
            _ => return None,
        };
        self.at += 1;
        Some(counts)
    }

    /// A quantifier after the last item, and what makes it lazy or possessive. There can be only one.
    fn quantify(&mut self, items: &mut Vec<Tree>) -> Option<()> {
        self.skip();
        let Some((min, max)) = self.quantifier() else {
            return Some(());
        };
        if min > MAX_REPEAT || max.is_some_and(|max| max > MAX_REPEAT || max < min) {
            return None;
        }
        let greed = match self.peek() {
            Some(b'?') => Greed::Lazy,
            Some(b'+') => Greed::Possessive,
            _ => Greed::Greedy,
        };
        self.at += usize::from(greed != Greed::Greedy);
        self.skip();
        let from = self.at;
        if self.quantifier().is_some() {
            return None;
        }
        self.at = from;
        // `\Q\E*` has nothing to repeat, and a position cannot be repeated.
        let item = items
            .pop()
            .filter(|item| !matches!(item, Tree::Place(_) | Tree::Keep))?;
        items.push(Tree::Repeat {
            item: Box::new(item),
            min,
            max,
            greed,
        });
        Some(())
    }

    /// After an opening parenthesis. A comment or a setting of options is nothing to match.
    fn group(&mut self) -> Option<Option<Tree>> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return None;
        }
        let outer = self.options;
        let tree = self.group_body()?;
        if tree.is_some() {
            self.options = outer;
            if !self.take(b')') {
                return None;
            }
        }
        self.nesting -= 1;
        Some(tree)
    }

    fn group_body(&mut self) -> Option<Option<Tree>> {
        if self.peek() == Some(b'*') {
            return None;
        }
        if !self.take(b'?') {
            return self.capture(None).map(Some);
        }
        let kind = self.peek()?;
        self.at += 1;
        let look = |ahead, positive, body| Tree::Look {
            ahead,
            positive,
            body: Box::new(body),
        };
        let tree = match kind {
            b':' => self.alternatives()?,
            b'=' => look(true, true, self.alternatives()?),
            b'!' => look(true, false, self.alternatives()?),
            b'>' => Tree::Atomic(Box::new(self.alternatives()?)),
            b'#' => {
                while self.peek()? != b')' {
                    self.at += 1;
                }
                self.at += 1;
                return Some(None);
            }
            b'<' if self.take(b'=') => look(false, true, self.alternatives()?),
            b'<' if self.take(b'!') => look(false, false, self.alternatives()?),
            b'<' => {
                let name = self.name(b'>')?;
                self.capture(Some(name))?
            }
            b'\'' => {
                let name = self.name(b'\'')?;
                self.capture(Some(name))?
            }
            b'P' if self.take(b'<') => {
                let name = self.name(b'>')?;
                self.capture(Some(name))?
            }
            b'P' if self.take(b'=') => {
                let name = self.name(b')')?;
                self.at -= 1;
                self.back_to_name(name)?
            }
            _ => {
                self.at -= 1;
                return self.settings();
            }
        };
        Some(Some(tree))
    }

    fn capture(&mut self, name: Option<Vec<u8>>) -> Option<Tree> {
        self.groups += 1;
        let group = self.groups;
        if let Some(name) = name {
            if self.names.iter().any(|(n, _)| *n == name) {
                return None;
            }
            self.names.push((name, group));
        }
        Some(Tree::Capture(group, Box::new(self.alternatives()?)))
    }

    fn name(&mut self, close: u8) -> Option<Vec<u8>> {
        let from = self.at;
        while self.peek().is_some_and(is_word) {
            self.at += 1;
        }
        let name = self.pattern[from..self.at].to_vec();
        let valid = !name.is_empty() && name.len() <= 32 && !name[0].is_ascii_digit();
        (self.take(close) && valid).then_some(name)
    }

    fn back_to_name(&mut self, name: Vec<u8>) -> Option<Tree> {
        // Only groups to the left can be named here; the library also knows those to the right.
        let group = self
            .names
            .iter()
            .find(|(n, _)| *n == name)
            .map(|&(_, group)| group);
        if group.is_none() {
            self.named.push(name);
        }
        Some(Tree::Back {
            group: group?,
            caseless: self.options.caseless,
        })
    }

    /// `(?i)`, `(?i-m:…)` and the like.
    fn settings(&mut self) -> Option<Option<Tree>> {
        let mut options = self.options;
        let mut on = true;
        if self.take(b'^') {
            options = Options::default();
        }
        loop {
            let letter = self.peek()?;
            self.at += 1;
            match letter {
                b'i' => options.caseless = on,
                b'm' => options.multiline = on,
                b's' => options.dotall = on,
                b'x' => options.extended = on,
                b'n' | b'J' | b'U' => return None,
                b'-' if on => on = false,
                b')' => {
                    self.options = options;
                    return Some(None);
                }
                b':' => {
                    self.options = options;
                    return self.alternatives().map(Some);
                }
                _ => return None,
            }
        }
    }

    /// After a backslash.
    pub(super) fn escape(&mut self, in_set: bool) -> Option<Escape> {
        let letter = self.peek()?;
        self.at += 1;
        let byte = match letter {
            b'a' => 7,
            b'e' => 27,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'c' => {
                let control = self.peek().filter(|b| (b' '..0x7f).contains(b))?;
                self.at += 1;
                control.to_ascii_uppercase() ^ 0x40
            }
            b'x' => self.hexadecimal()?,
            b'o' => {
                if !self.take(b'{') {
                    return None;
                }
                let value = self.octal(u32::MAX as usize)?;
                if !self.take(b'}') {
                    return None;
                }
                u8::try_from(value).ok()?
            }
            b'0' => {
                self.at -= 1;
                self.octal(3)? as u8
            }
            b'1'..=b'9' => return self.digit_escape(letter, in_set),
            b'E' => return Some(Escape::Nothing),
            b'Q' => {
                self.quoting = true;
                return Some(Escape::Nothing);
            }
            b'd' | b'D' | b's' | b'S' | b'w' | b'W' | b'h' | b'H' | b'v' | b'V' => {
                return class(letter).map(|set| Escape::Tree(Tree::Set(set)));
            }
            b'b' if in_set => 8,
            _ if in_set && letter.is_ascii_alphanumeric() => return None,
            b'b' => return Some(Escape::Tree(Tree::Place(Place::Word))),
            b'B' => return Some(Escape::Tree(Tree::Place(Place::NotWord))),
            b'A' => return Some(Escape::Tree(Tree::Place(Place::Start))),
            b'Z' => return Some(Escape::Tree(Tree::Place(Place::LastLine))),
            b'z' => return Some(Escape::Tree(Tree::Place(Place::End))),
            b'G' => return Some(Escape::Tree(Tree::Place(Place::SearchStart))),
            b'K' => return Some(Escape::Tree(Tree::Keep)),
            b'N' if self.peek() != Some(b'{') => {
                return Some(Escape::Tree(Tree::Set(Set::of(|b| b != b'\n'))));
            }
            b'C' | b'X' => return Some(Escape::Tree(Tree::Set(Set::of(|_| true)))),
            b'R' => {
                let pair = Tree::Concat(vec![self.plain(b'\r'), self.plain(b'\n')]);
                let single = Tree::Set(Set::of(|b| matches!(b, 10..=13 | 0x85)));
                return Some(Escape::Tree(Tree::Atomic(Box::new(Tree::Either(vec![
                    pair, single,
                ])))));
            }
            b'g' => return self.group_escape().map(Escape::Tree),
            b'k' => {
                let close = match self.peek()? {
                    b'<' => b'>',
                    b'\'' => b'\'',
                    b'{' => b'}',
                    _ => return None,
                };
                self.at += 1;
                let name = self.name(close)?;
                return self.back_to_name(name).map(Escape::Tree);
            }
            _ if letter.is_ascii_alphanumeric() => return None,
            other => other,
        };
        Some(Escape::Byte(byte))
    }

    fn plain(&self, byte: u8) -> Tree {
        let mut set = Set::default();
        set.add(byte);
        Tree::Set(set)
    }

    fn hexadecimal(&mut self) -> Option<u8> {
        let braces = self.take(b'{');
        let mut value = 0u32;
        let mut digits = 0;
        while let Some(digit) = self.peek().and_then(|b| (b as char).to_digit(16)) {
            if digits == 2 && !braces {
                break;
            }
            value = value.saturating_mul(16).saturating_add(digit);
            digits += 1;
            self.at += 1;
        }
        if braces && (digits == 0 || !self.take(b'}')) {
            return None;
        }
        u8::try_from(value).ok()
    }

    fn octal(&mut self, most: usize) -> Option<u32> {
        let mut value = 0u32;
        let from = self.at;
        while self.at - from < most
            && let Some(digit) = self.peek().filter(|b| matches!(b, b'0'..=b'7'))
        {
            value = value
                .saturating_mul(8)
                .saturating_add(u32::from(digit - b'0'));
            self.at += 1;
        }
        (self.at > from).then_some(value)
    }

    /// `\1` and the like: a back-reference, or from 10 on, where there are not so many groups, a byte in octal.
    fn digit_escape(&mut self, first: u8, in_set: bool) -> Option<Escape> {
        let from = self.at - 1;
        if !in_set {
            self.at = from;
            let number = self.number()?;
            if number < 10 || number <= self.groups {
                self.referred = self.referred.max(number);
                return Some(Escape::Tree(Tree::Back {
                    group: number,
                    caseless: self.options.caseless,
                }));
            }
        }
        self.at = from;
        if first >= b'8' {
            return None;
        }
        u8::try_from(self.octal(3)?).ok().map(Escape::Byte)
    }

    /// `\g1`, `\g{-1}`, `\g{name}`
    fn group_escape(&mut self) -> Option<Tree> {
        let braces = self.take(b'{');
        let relative = self.take(b'-');
        if let Some(number) = self.number() {
            if braces && !self.take(b'}') {
                return None;
            }
            let group = if relative {
                (self.groups + 1).checked_sub(number)?
            } else {
                number
            };
            if group == 0 {
                return None;
            }
            self.referred = self.referred.max(group);
            return Some(Tree::Back {
                group,
                caseless: self.options.caseless,
            });
        }
        if !braces || relative {
            return None;
        }
        let name = self.name(b'}')?;
        self.back_to_name(name)
    }
}
