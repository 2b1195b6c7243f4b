//! Functions on strings that hold lists, such as `"a, b, c"`.

use std::collections::HashSet;

use super::Call;
use crate::eval::{Ev, Val};
use crate::number;
use crate::regex::Set;

const DELIMITERS: &[u8] = b", ";
const MEMBER_DELIMITERS: &[u8] = b", \t\r\n";

type ListAndDelimiters<'a> = (&'a [u8], &'a [u8]);

fn is_space(byte: u8) -> bool {
    byte == b' ' || (9..=13).contains(&byte)
}

/// The items, without blanks around them; empty ones do not count.
pub(super) fn tokens<'t>(text: &'t [u8], delimiters: &[u8]) -> impl Iterator<Item = &'t [u8]> {
    let mut between = Set::default();
    delimiters.iter().for_each(|&b| between.add(b));
    let mut at = 0;
    std::iter::from_fn(move || {
        while text.get(at).is_some_and(|&b| between.has(b) || is_space(b)) {
            at += 1;
        }
        let from = at;
        let mut end = at;
        while let Some(&byte) = text.get(at).filter(|&&b| !between.has(b)) {
            at += 1;
            if !is_space(byte) {
                end = at;
            }
        }
        (at > from).then(|| &text[from..end])
    })
}

impl<'a> Call<'_, 'a> {
    /// A list and its delimiters, for functions that take just these.
    fn list_and_delimiters(&self) -> Result<Option<ListAndDelimiters<'a>>, crate::eval::Stop> {
        if !matches!(self.args.len(), 1 | 2) {
            return Ok(None);
        }
        let list = self.arg(0)?;
        let delimiters = if self.args.len() == 2 {
            self.arg(1)?
        } else {
            Val::Str(DELIMITERS)
        };
        let (Val::Str(list), Val::Str(delimiters)) = (list, delimiters) else {
            return Ok(None);
        };
        self.machine.charge_bytes(list.len())?;
        Ok(Some((list, delimiters)))
    }
}

pub(super) fn size<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(match c.list_and_delimiters()? {
        Some((list, delimiters)) => Val::Int(tokens(list, delimiters).count() as i64),
        None => Val::Error,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Summary {
    Sum,
    Avg,
    Min,
    Max,
}

/// `sscanf("%lf")`, which unlike `strtod` does not step back from the `x` of half a hexadecimal number.
fn scan(item: &[u8]) -> Option<f64> {
    let (value, len) = number::strtod(item)?;
    let zero = matches!(&item[..len], [b'0'] | [b'+' | b'-', b'0']);
    match item[len..] {
        [b'x' | b'X', ..] if zero => None,
        _ => Some(value),
    }
}

pub(super) fn summarize<'a>(c: &Call<'_, 'a>, what: Summary) -> Ev<'a> {
    let Some((list, delimiters)) = c.list_and_delimiters()? else {
        return Ok(Val::Error);
    };
    let mut count = 0;
    let mut real = false;
    let mut result = match what {
        Summary::Sum | Summary::Avg => 0.0,
        Summary::Min => f64::from(f32::MAX),
        // The smallest positive number of 32 bits: what the library starts from.
        Summary::Max => f64::from(f32::MIN_POSITIVE),
    };
    for item in tokens(list, delimiters) {
        let Some(value) = scan(item) else {
            return Ok(Val::Error);
        };
        count += 1;
        real |= !item.iter().all(|b| matches!(b, b'+' | b'-' | b'0'..=b'9'));
        result = match what {
            Summary::Sum | Summary::Avg => value + result,
            Summary::Min if value < result => value,
            Summary::Max if value > result => value,
            _ => result,
        };
    }
    if count == 0 {
        return Ok(if matches!(what, Summary::Sum | Summary::Avg) {
            Val::Real(0.0)
        } else {
            Val::Undefined
        });
    }
    if what == Summary::Avg {
        result /= f64::from(count);
    }
    Ok(if real {
        Val::Real(result)
    } else {
        Val::Int(number::to_int(result))
    })
}

/// Item, list and delimiters; one of the former two may be undefined and is then empty.
fn member_arguments<'a>(
    c: &Call<'_, 'a>,
) -> Result<Result<[&'a [u8]; 3], Val<'a>>, crate::eval::Stop> {
    if !matches!(c.args.len(), 2 | 3) {
        return Ok(Err(Val::Error));
    }
    let mut texts: [&[u8]; 3] = [b"", b"", MEMBER_DELIMITERS];
    let mut undefined = [false; 3];
    let mut wrong = false;
    for (index, text) in texts.iter_mut().enumerate().take(c.args.len()) {
        match c.arg(index)? {
            Val::Str(value) => *text = value,
            Val::Undefined => undefined[index] = true,
            _ => wrong = true,
        }
    }
    if wrong {
        return Ok(Err(Val::Error));
    }
    if undefined[0] && undefined[1] {
        return Ok(Err(Val::Undefined));
    }
    c.machine.charge_bytes(texts[0].len() + texts[1].len())?;
    Ok(Ok(texts))
}

pub(super) fn member<'a>(c: &Call<'_, 'a>, ignore_case: bool) -> Ev<'a> {
    let [item, list, delimiters] = match member_arguments(c)? {
        Ok(texts) => texts,
        Err(value) => return Ok(value),
    };
    let found = if ignore_case {
        tokens(list, delimiters).any(|other| other.eq_ignore_ascii_case(item))
    } else {
        tokens(list, delimiters).any(|other| other == item)
    };
    Ok(Val::Bool(found))
}

pub(super) fn subset<'a>(c: &Call<'_, 'a>, ignore_case: bool) -> Ev<'a> {
    let [items, list, delimiters] = match member_arguments(c)? {
        Ok(texts) => texts,
        Err(value) => return Ok(value),
    };
    if items.is_empty() {
        return Ok(Val::Bool(true));
    }
    let fold = |item: &[u8]| {
        if ignore_case {
            item.to_ascii_lowercase()
        } else {
            item.to_vec()
        }
    };
    let all: HashSet<Vec<u8>> = tokens(list, delimiters).map(fold).collect();
    let mut any = false;
    for item in tokens(items, delimiters) {
        any = true;
        if !all.contains(&fold(item)) {
            return Ok(Val::Bool(false));
        }
    }
    Ok(Val::Bool(any))
}

/// Whether two lists have an item in common. Blanks around items count here.
pub(super) fn intersect<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if !matches!(c.args.len(), 2 | 3) {
        return Ok(Val::Error);
    }
    let mut values = [Val::Str(b""), Val::Str(b""), Val::Str(b"")];
    for (index, value) in values.iter_mut().enumerate().take(c.args.len()) {
        // Even an evaluation that was given up is only an error here.
        *value = match c.arg(index) {
            Ok(value) => value,
            Err(_) => return Ok(Val::Error),
        };
    }
    if values.iter().any(|v| matches!(v, Val::Error)) {
        return Ok(Val::Error);
    }
    if values.iter().any(|v| matches!(v, Val::Undefined)) {
        return Ok(Val::Undefined);
    }
    let [Val::Str(left), Val::Str(right), Val::Str(delimiters)] = values else {
        return Ok(Val::Error);
    };
    c.machine.charge_bytes(left.len() + right.len())?;
    let delimiters = if delimiters.is_empty() {
        b" ,"
    } else {
        delimiters
    };
    let between = Set::of(|b| delimiters.contains(&b));
    let items = |text: &'a [u8]| {
        text.split(move |&b| between.has(b))
            .filter(|item| !item.is_empty())
    };
    let all: HashSet<&[u8]> = items(right).collect();
    Ok(Val::Bool(items(left).any(|item| all.contains(item))))
}
