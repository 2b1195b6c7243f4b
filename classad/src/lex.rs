//! Tokens.
//!
//! Written by hand rather than with a combinator library: a minus sign belongs to a number or not depending on the token
//! before it, adjacent strings are one token, and a pool's collector parses a thousand ads a second, so every byte is
//! looked at once and nothing is copied that has no escape in it.

/// What a token is. The text of numbers, names and strings is in the [`Lexer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tok {
    End,
    Bad,
    Int,
    Real,
    Str,
    Ident,
    True,
    False,
    Undefined,
    Error,
    Dot,
    Star,
    Slash,
    Percent,
    Plus,
    Minus,
    Amp,
    Pipe,
    Caret,
    Tilde,
    AndAnd,
    OrOr,
    Bang,
    Lt,
    Le,
    Gt,
    Ge,
    EqEq,
    NotEq,
    Is,
    Isnt,
    Shl,
    Shr,
    Ushr,
    Assign,
    Question,
    Elvis,
    Colon,
    Semicolon,
    Comma,
    OpenBracket,
    CloseBracket,
    OpenParen,
    CloseParen,
    OpenBrace,
    CloseBrace,
}

const SPACE: u8 = 1;
const ALPHA: u8 = 2;
const DIGIT: u8 = 4;
const UNDERSCORE: u8 = 8;
const WORD: u8 = ALPHA | DIGIT | UNDERSCORE;

static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        table[i] = if byte.is_ascii_alphabetic() {
            ALPHA
        } else if byte.is_ascii_digit() {
            DIGIT
        } else if byte == b'_' {
            UNDERSCORE
        } else if byte == b' ' || (byte >= 9 && byte <= 13) {
            SPACE
        } else {
            0
        };
        i += 1;
    }
    table
};

/// Where a string's or a name's text is.
#[derive(Clone, Copy)]
enum Held {
    Source(usize, usize),
    Scratch,
}

pub(crate) struct Lexer<'s> {
    pub(crate) src: &'s [u8],
    pub(crate) pos: usize,
    /// Strings of the old syntax: a backslash is literal but before a quote.
    old: bool,
    /// Start of the current token.
    pub(crate) start: usize,
    held: Held,
    scratch: Vec<u8>,
    previous: Tok,
}

impl<'s> Lexer<'s> {
    pub(crate) fn new(src: &'s [u8], old: bool) -> Lexer<'s> {
        Lexer {
            src,
            pos: 0,
            old,
            start: 0,
            held: Held::Source(0, 0),
            scratch: Vec::new(),
            previous: Tok::End,
        }
    }

    /// Looks at other text; what was allocated is used again.
    pub(crate) fn restart(&mut self, src: &'s [u8]) {
        self.src = src;
        self.pos = 0;
        self.start = 0;
        self.previous = Tok::End;
    }

    /// The byte at an offset from the position; 0 past the end, which also ends the text.
    #[inline]
    fn at(&self, ahead: usize) -> u8 {
        self.src.get(self.pos + ahead).copied().unwrap_or(0)
    }

    /// Text of the current number, name or string.
    #[inline]
    pub(crate) fn text(&self) -> &[u8] {
        match self.held {
            Held::Source(start, end) => &self.src[start..end],
            Held::Scratch => &self.scratch,
        }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Tok {
        let tok = self.token();
        self.previous = tok;
        tok
    }

    fn token(&mut self) -> Tok {
        loop {
            let byte = self.at(0);
            if CLASS[byte as usize] & SPACE != 0 {
                self.pos += 1;
                continue;
            }
            self.start = self.pos;
            if byte == b'/' && !self.comment() {
                if self.start == usize::MAX {
                    self.start = self.pos;
                    return Tok::Bad;
                }
                self.pos += 1;
                return Tok::Slash;
            }
            if byte != b'/' {
                break;
            }
        }
        let byte = self.at(0);
        let class = CLASS[byte as usize];
        if class & (ALPHA | UNDERSCORE) != 0 {
            return self.word();
        }
        if class & DIGIT != 0 || byte == b'.' {
            return self.number();
        }
        match byte {
            0 => Tok::End,
            b'"' | b'\'' => self.string(byte),
            b'-' => self.minus(),
            _ => self.punctuation(byte),
        }
    }

    /// Skips a comment; false if there is none, with `start` set to `usize::MAX` if it does not end.
    fn comment(&mut self) -> bool {
        match self.at(1) {
            b'/' => {
                while !matches!(self.at(0), 0 | b'\n') {
                    self.pos += 1;
                }
                true
            }
            b'*' => {
                self.pos += 2;
                while !(self.at(0) == b'*' && self.at(1) == b'/') {
                    if self.at(0) == 0 {
                        self.start = usize::MAX;
                        return false;
                    }
                    self.pos += 1;
                }
                self.pos += 2;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn word(&mut self) -> Tok {
        let start = self.pos;
        let mut all = 0;
        let mut end = start;
        while let Some(&byte) = self.src.get(end) {
            let class = CLASS[byte as usize];
            if class & WORD == 0 {
                break;
            }
            all |= class;
            end += 1;
        }
        self.pos = end;
        self.held = Held::Source(start, end);
        let text = &self.src[start..end];
        if all != ALPHA {
            return Tok::Ident;
        }
        match text.len() {
            2 if text.eq_ignore_ascii_case(b"is") => Tok::Is,
            4 if text.eq_ignore_ascii_case(b"true") => Tok::True,
            4 if text.eq_ignore_ascii_case(b"isnt") => Tok::Isnt,
            5 if text.eq_ignore_ascii_case(b"false") => Tok::False,
            5 if text.eq_ignore_ascii_case(b"error") => Tok::Error,
            9 if text.eq_ignore_ascii_case(b"undefined") => Tok::Undefined,
            _ => Tok::Ident,
        }
    }

    /// A minus sign directly before a digit belongs to the number, unless what came before can be subtracted from.
    fn minus(&mut self) -> Tok {
        let number = match self.previous {
            Tok::Int
            | Tok::Real
            | Tok::True
            | Tok::False
            | Tok::Str
            | Tok::Undefined
            | Tok::Error
            | Tok::Ident
            | Tok::Dot
            | Tok::CloseBracket
            | Tok::CloseParen
            | Tok::CloseBrace => false,
            _ => self.at(1).is_ascii_digit() || (self.at(1) == b'.' && self.at(2).is_ascii_digit()),
        };
        if number {
            return self.number();
        }
        self.pos += 1;
        Tok::Minus
    }

    fn digits(&mut self) {
        while self.at(0).is_ascii_digit() {
            self.pos += 1;
        }
    }

    fn number(&mut self) -> Tok {
        let start = self.pos;
        if self.at(0) == b'-' {
            self.pos += 1;
        }
        let first = self.at(0);
        let mut real = false;
        let mut digits = false;
        if first == b'0' && self.at(1).eq_ignore_ascii_case(&b'x') {
            // Lexed, but hexadecimal numbers mean nothing here: without a sign they are refused below.
            self.pos += 2;
            if !self.at(0).is_ascii_hexdigit() {
                return Tok::Bad;
            }
            while self.at(0).is_ascii_hexdigit() {
                self.pos += 1;
            }
            digits = true;
        } else if first.is_ascii_digit() {
            digits = true;
            let from = self.pos;
            self.digits();
            let exponent = matches!(self.at(0), b'.' | b'e' | b'E');
            if first == b'0'
                && !exponent
                && self.src[from..self.pos]
                    .iter()
                    .any(|d| matches!(d, b'8' | b'9'))
            {
                return Tok::Bad;
            }
            real = matches!(self.at(0), b'e' | b'E');
        }
        if first == b'.' || self.at(0) == b'.' {
            self.pos += 1;
            // The library takes one more: `a..b` is `a.b`.
            if first == b'.' && self.at(0) == b'.' {
                self.pos += 1;
            }
            if self.at(0).is_ascii_digit() {
                real = true;
                self.digits();
            } else if digits {
                return Tok::Bad;
            } else {
                return Tok::Dot;
            }
        }
        if real && matches!(self.at(0), b'e' | b'E') {
            self.pos += 1;
            if matches!(self.at(0), b'+' | b'-') {
                self.pos += 1;
            }
            if !self.at(0).is_ascii_digit() {
                return Tok::Bad;
            }
            self.digits();
        }
        self.held = Held::Source(start, self.pos);
        if real {
            return Tok::Real;
        }
        if self.src[start] == b'0' && self.pos - start > 1 {
            // Neither octal nor hexadecimal numbers, and no leading zeros.
            return Tok::Bad;
        }
        Tok::Int
    }

    fn string(&mut self, quote: u8) -> Tok {
        let tok = if quote == b'"' { Tok::Str } else { Tok::Ident };
        self.pos += 1;
        if self.old {
            self.old_string(quote, tok)
        } else {
            self.new_string(quote, tok)
        }
    }

    fn new_string(&mut self, quote: u8, tok: Tok) -> Tok {
        let start = self.pos;
        let mut escapes = false;
        let mut joined = false;
        let mut segment = start;
        loop {
            let mut odd = false;
            loop {
                let byte = self.at(0);
                if byte == 0 {
                    self.start = self.start.min(self.src.len());
                    return Tok::Bad;
                }
                if byte == quote && !odd {
                    break;
                }
                odd = byte == b'\\' && !odd;
                escapes |= byte == b'\\';
                self.pos += 1;
            }
            let end = self.pos;
            self.pos += 1;
            let mut ahead = 0;
            while CLASS[self.at(ahead) as usize] & SPACE != 0 {
                ahead += 1;
            }
            let more = self.at(ahead) == quote;
            if joined || more {
                if !joined {
                    self.scratch.clear();
                    joined = true;
                }
                self.scratch.extend_from_slice(&self.src[segment..end]);
            }
            if more {
                self.pos += ahead + 1;
                segment = self.pos;
                continue;
            }
            self.held = if joined {
                Held::Scratch
            } else {
                Held::Source(start, end)
            };
            if escapes {
                if !joined {
                    self.scratch.clear();
                    self.scratch.extend_from_slice(&self.src[start..end]);
                    self.held = Held::Scratch;
                }
                if !unescape(&mut self.scratch) {
                    return Tok::Bad;
                }
            }
            return tok;
        }
    }

    fn old_string(&mut self, quote: u8, tok: Tok) -> Tok {
        let start = self.pos;
        let mut segment = start;
        let mut cooked = false;
        loop {
            while !matches!(self.at(0), 0) && self.at(0) != quote {
                self.pos += 1;
            }
            if self.at(0) == 0 {
                return Tok::Bad;
            }
            let escaped = self.pos > segment && self.src[self.pos - 1] == b'\\';
            // A quote at the very end closes the string whatever is before it: `"C:\dir\"`.
            if escaped && !matches!(self.at(1), 0 | b'\n') {
                if !cooked {
                    self.scratch.clear();
                    cooked = true;
                }
                self.scratch
                    .extend_from_slice(&self.src[segment..self.pos - 1]);
                self.scratch.push(quote);
                self.pos += 1;
                segment = self.pos;
                continue;
            }
            let end = self.pos;
            self.pos += 1;
            self.held = Held::Source(start, end);
            if cooked {
                self.scratch.extend_from_slice(&self.src[segment..end]);
                self.held = Held::Scratch;
            }
            return tok;
        }
    }

    fn punctuation(&mut self, byte: u8) -> Tok {
        let (tok, len) = match (byte, self.at(1), self.at(2)) {
            (b'&', b'&', _) => (Tok::AndAnd, 2),
            (b'&', ..) => (Tok::Amp, 1),
            (b'|', b'|', _) => (Tok::OrOr, 2),
            (b'|', ..) => (Tok::Pipe, 1),
            (b'=', b'=', _) => (Tok::EqEq, 2),
            (b'=', b'?', b'=') => (Tok::Is, 3),
            (b'=', b'?', _) => (Tok::Bad, 1),
            (b'=', b'!', b'=') => (Tok::Isnt, 3),
            (b'=', ..) => (Tok::Assign, 1),
            (b'!', b'=', _) => (Tok::NotEq, 2),
            (b'!', ..) => (Tok::Bang, 1),
            (b'<', b'=', _) => (Tok::Le, 2),
            (b'<', b'<', _) => (Tok::Shl, 2),
            (b'<', ..) => (Tok::Lt, 1),
            (b'>', b'=', _) => (Tok::Ge, 2),
            (b'>', b'>', b'>') => (Tok::Ushr, 3),
            (b'>', b'>', _) => (Tok::Shr, 2),
            (b'>', ..) => (Tok::Gt, 1),
            (b'?', ..) => {
                let mut ahead = 1;
                while CLASS[self.at(ahead) as usize] & SPACE != 0 {
                    ahead += 1;
                }
                if self.at(ahead) == b':' {
                    (Tok::Elvis, ahead + 1)
                } else {
                    (Tok::Question, 1)
                }
            }
            (b'(', ..) => (Tok::OpenParen, 1),
            (b')', ..) => (Tok::CloseParen, 1),
            (b',', ..) => (Tok::Comma, 1),
            (b';', ..) => (Tok::Semicolon, 1),
            (b'[', ..) => (Tok::OpenBracket, 1),
            (b']', ..) => (Tok::CloseBracket, 1),
            (b'{', ..) => (Tok::OpenBrace, 1),
            (b'}', ..) => (Tok::CloseBrace, 1),
            (b'+', ..) => (Tok::Plus, 1),
            (b'*', ..) => (Tok::Star, 1),
            (b'%', ..) => (Tok::Percent, 1),
            (b'^', ..) => (Tok::Caret, 1),
            (b'~', ..) => (Tok::Tilde, 1),
            (b':', ..) => (Tok::Colon, 1),
            _ => (Tok::Bad, 1),
        };
        self.pos += len;
        tok
    }
}

/// Replaces the escapes of the new syntax in place; false if one of them is a NUL.
fn unescape(text: &mut Vec<u8>) -> bool {
    let octal = |byte: Option<&u8>| byte.filter(|b| matches!(b, b'0'..=b'7')).map(|b| b - b'0');
    let mut to = 0;
    let mut at = 0;
    while at < text.len() {
        let mut byte = text[at];
        if byte == b'\\' && at + 1 < text.len() {
            at += 1;
            byte = match text[at] {
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => match octal(Some(&other)) {
                    None => other,
                    Some(mut number) => {
                        if let Some(digit) = octal(text.get(at + 1)) {
                            at += 1;
                            number = number << 3 | digit;
                            if number < 0x20
                                && let Some(digit) = octal(text.get(at + 1))
                            {
                                at += 1;
                                number = number << 3 | digit;
                            }
                        }
                        if number == 0 {
                            return false;
                        }
                        number
                    }
                },
            };
        }
        text[to] = byte;
        to += 1;
        at += 1;
    }
    text.truncate(to);
    true
}

/// The value of a [`Tok::Int`]: one that does not fit is 0, as in the library.
#[inline]
pub(crate) fn int_value(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut value: i64 = 0;
    if digits.len() <= 18 {
        for digit in digits.iter().take_while(|d| d.is_ascii_digit()) {
            value = value * 10 + i64::from(digit - b'0');
        }
        return if negative { -value } else { value };
    }
    for digit in digits.iter().take_while(|d| d.is_ascii_digit()) {
        // Downwards, because i64 reaches further there.
        match value
            .checked_mul(10)
            .and_then(|v| v.checked_sub(i64::from(digit - b'0')))
        {
            Some(next) => value = next,
            None => return 0,
        }
    }
    if negative {
        value
    } else {
        value.checked_neg().unwrap_or(0)
    }
}

/// The value of a [`Tok::Real`].
pub(crate) fn real_value(text: &[u8]) -> f64 {
    // `..5` is lexed as a number that starts with no digit, which reads as zero.
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0)
}
