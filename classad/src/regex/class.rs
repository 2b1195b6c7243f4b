//! Sets of bytes in brackets, and those with a name.

use super::Set;
use super::syntax::{Escape, Parser, Tree, is_space, is_word};

/// The class of `\d` and its like.
pub(super) fn class(letter: u8) -> Option<Set> {
    let mut set = match letter.to_ascii_lowercase() {
        b'd' => Set::of(|b| b.is_ascii_digit()),
        b's' => Set::of(is_space),
        b'w' => Set::of(is_word),
        b'h' => Set::of(|b| matches!(b, b' ' | b'\t' | 0xA0)),
        b'v' => Set::of(|b| matches!(b, 10..=13 | 0x85)),
        _ => return None,
    };
    if letter.is_ascii_uppercase() {
        set.invert();
    }
    Some(set)
}

fn posix(name: &[u8]) -> Option<Set> {
    Some(match name {
        b"alpha" => Set::of(|b| b.is_ascii_alphabetic()),
        b"lower" => Set::of(|b| b.is_ascii_lowercase()),
        b"upper" => Set::of(|b| b.is_ascii_uppercase()),
        b"alnum" => Set::of(|b| b.is_ascii_alphanumeric()),
        b"ascii" => Set::of(|b| b.is_ascii()),
        b"blank" => Set::of(|b| matches!(b, b' ' | b'\t')),
        b"cntrl" => Set::of(|b| b.is_ascii_control()),
        b"digit" => Set::of(|b| b.is_ascii_digit()),
        b"graph" => Set::of(|b| b.is_ascii_graphic()),
        b"print" => Set::of(|b| b.is_ascii_graphic() || b == b' '),
        b"punct" => Set::of(|b| b.is_ascii_punctuation()),
        b"space" => Set::of(is_space),
        b"word" => Set::of(is_word),
        b"xdigit" => Set::of(|b| b.is_ascii_hexdigit()),
        _ => return None,
    })
}

impl Parser<'_> {
    /// After an opening bracket.
    pub(super) fn set(&mut self) -> Option<Tree> {
        let mut set = Set::default();
        let negated = self.take(b'^');
        let mut first = true;
        let mut quoting = false;
        loop {
            if quoting && self.starts(b"\\E") {
                self.at += 2;
                quoting = false;
                continue;
            }
            let byte = self.peek()?;
            if byte == b']' && !first && !quoting {
                self.at += 1;
                break;
            }
            if !quoting && self.starts(b"\\Q") {
                self.at += 2;
                quoting = true;
                continue;
            }
            if !quoting && self.starts(b"\\E") {
                self.at += 2;
                continue;
            }
            first = false;
            let Some(low) = self.set_member(quoting, &mut set)? else {
                // A class cannot start a range.
                if !quoting
                    && self.peek() == Some(b'-')
                    && !matches!(self.pattern.get(self.at + 1), Some(b']'))
                {
                    return None;
                }
                continue;
            };
            let range = !quoting
                && self.peek() == Some(b'-')
                && self.pattern.get(self.at + 1).is_some_and(|&b| b != b']')
                && !self.starts(b"-\\E]");
            if !range {
                set.add(low);
                continue;
            }
            self.at += 1;
            let high = self
                .set_member(false, &mut set)?
                .filter(|&high| high >= low)?;
            (low..=high).for_each(|b| set.add(b));
        }
        if self.options.caseless {
            set.add_cases();
        }
        if negated {
            set.invert();
        }
        Some(Tree::Set(set))
    }

    /// One byte of a set; or `None` inside if a whole class was added.
    fn set_member(&mut self, quoting: bool, set: &mut Set) -> Option<Option<u8>> {
        let byte = self.peek()?;
        if !quoting
            && byte == b'['
            && matches!(self.pattern.get(self.at + 1), Some(b':' | b'.' | b'='))
        {
            let kind = self.pattern[self.at + 1];
            let rest = &self.pattern[self.at + 2..];
            let end = rest.windows(2).position(|w| w == [kind, b']']);
            let plain = |text: &[u8]| text.iter().all(|b| b.is_ascii_alphabetic() || *b == b'^');
            if let Some(end) = end.filter(|&end| plain(&rest[..end])) {
                if kind != b':' {
                    return None;
                }
                let name = &rest[..end];
                let mut class = posix(name.strip_prefix(b"^").unwrap_or(name))?;
                if self.options.caseless && matches!(name, b"upper" | b"lower") {
                    class.add_cases();
                }
                if name.starts_with(b"^") {
                    class.invert();
                }
                set.add_all(&class);
                self.at += end + 4;
                return Some(None);
            }
        }
        self.at += 1;
        if quoting || byte != b'\\' {
            return Some(Some(byte));
        }
        match self.escape(true)? {
            Escape::Byte(byte) => Some(Some(byte)),
            Escape::Tree(Tree::Set(class)) => {
                set.add_all(&class);
                Some(None)
            }
            _ => None,
        }
    }
}
