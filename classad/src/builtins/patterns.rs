//! Functions that take regular expressions.

use super::Call;
use super::string_lists::tokens;
use crate::eval::{Ev, Machine, Stop, Val};
use crate::regex::{Captures, Options, Regex, TooLong};

/// Runs a search and charges the evaluation for it.
fn find(
    machine: &Machine<'_>,
    regex: &Regex,
    text: &[u8],
    start: usize,
    at_start: bool,
) -> Result<Result<Option<Captures>, TooLong>, Stop> {
    let (result, steps) = regex.find(text, start, at_start);
    machine.charge(1 + (steps + (text.len() - start) / 16) / 8)?;
    Ok(result)
}

/// Evaluates all arguments; `Err` is the value of the call if one of them is an error, or undefined.
fn strict<'a>(c: &Call<'_, 'a>, least: usize) -> Result<Result<Vec<Val<'a>>, Val<'a>>, Stop> {
    if c.args.len() != least && c.args.len() != least + 1 {
        return Ok(Err(Val::Error));
    }
    let mut values = Vec::with_capacity(4);
    for index in 0..c.args.len() {
        values.push(c.arg(index)?);
    }
    if values.iter().any(|v| matches!(v, Val::Error)) {
        return Ok(Err(Val::Error));
    }
    if values.iter().any(|v| matches!(v, Val::Undefined)) {
        return Ok(Err(Val::Undefined));
    }
    Ok(Ok(values))
}

/// The letters in the last argument.
fn letters<'a>(values: &[Val<'a>], least: usize) -> Option<&'a [u8]> {
    match values.get(least) {
        None => Some(b""),
        Some(Val::Str(letters)) => Some(letters),
        Some(_) => None,
    }
}

pub(super) fn regexp<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let values = match strict(c, 2)? {
        Ok(values) => values,
        Err(value) => return Ok(value),
    };
    let (Some(letters), Val::Str(pattern), Val::Str(text)) =
        (letters(&values, 2), values[0], values[1])
    else {
        return Ok(Val::Error);
    };
    let Some(regex) = Regex::cached(pattern, Options::from_letters(letters)) else {
        return Ok(Val::Error);
    };
    Ok(match find(c.machine, &regex, text, 0, false)? {
        Ok(found) => Val::Bool(found.is_some()),
        Err(TooLong) => Val::Error,
    })
}

pub(super) fn regexp_member<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let values = match strict(c, 2)? {
        Ok(values) => values,
        Err(value) => return Ok(value),
    };
    let (Some(letters), Val::Str(pattern), Some(items)) =
        (letters(&values, 2), values[0], c.machine.items(values[1]))
    else {
        return Ok(Val::Error);
    };
    // A malformed pattern matches nothing here.
    let regex = Regex::cached(pattern, Options::from_letters(letters));
    let mut undefined = false;
    for index in 0..items.len() {
        match c.machine.item(c.at, items, index, c.depth) {
            Ok(Val::Str(text)) => {
                if let Some(regex) = &regex
                    && let Ok(Some(_)) = find(c.machine, regex, text, 0, false)?
                {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Undefined) => undefined = true,
            _ => return Ok(Val::Error),
        }
    }
    Ok(if undefined {
        Val::Undefined
    } else {
        Val::Bool(false)
    })
}

/// `regexps`, `replace` and `replaceAll`. With the letter `f` the rest of the text is kept, with `g` all matches count.
pub(super) fn substitute<'a>(c: &Call<'_, 'a>, always: &[u8]) -> Ev<'a> {
    let values = match strict(c, 3)? {
        Ok(values) => values,
        Err(value) => return Ok(value),
    };
    let (Some(letters), Val::Str(pattern), Val::Str(text), Val::Str(replacement)) =
        (letters(&values, 3), values[0], values[1], values[2])
    else {
        return Ok(Val::Error);
    };
    let has = |letter: u8| letters.contains(&letter) || always.contains(&letter);
    let (whole, all) = (has(b'f'), has(b'g'));
    let Some(regex) = Regex::cached(pattern, Options::from_letters(letters)) else {
        return Ok(Val::Error);
    };
    let mut out = Vec::new();
    let mut at = 0;
    let mut after_empty = false;
    loop {
        if at > text.len() {
            // After an empty match at the very end the library looks beyond it and fails.
            return Ok(Val::Error);
        }
        let found = match find(c.machine, &regex, text, at, after_empty)? {
            Ok(found) => found,
            Err(TooLong) => return Ok(Val::Error),
        };
        let Some(captures) = found else {
            if !after_empty {
                break;
            }
            out.push(text.get(at).copied().unwrap_or(0));
            at += 1;
            after_empty = false;
            continue;
        };
        let (from, to) = captures.get(0).unwrap_or((at, at));
        if whole {
            out.extend_from_slice(text.get(at..from).unwrap_or(b""));
        }
        if !expand(&mut out, replacement, text, &captures) {
            return Ok(Val::Error);
        }
        c.machine.room(out.len())?;
        at = to;
        if !all {
            break;
        }
        after_empty = from == to;
    }
    if whole {
        out.extend_from_slice(&text[at..]);
    }
    c.machine.make_str(out)
}

/// Appends the replacement; false if it names a group that did not take part.
fn expand(out: &mut Vec<u8>, replacement: &[u8], text: &[u8], captures: &Captures) -> bool {
    let mut rest = replacement.iter();
    while let Some(&byte) = rest.next() {
        match rest.as_slice().first() {
            Some(digit) if byte == b'\\' && digit.is_ascii_digit() => {
                let group = usize::from(digit - b'0');
                rest.next();
                if group >= captures.count() {
                    return false;
                }
                if let Some((from, to)) = captures.get(group) {
                    out.extend_from_slice(text.get(from..to).unwrap_or(b""));
                }
            }
            _ => out.push(byte),
        }
    }
    true
}

/// Unlike the others it takes its letters in upper case, too.
pub(super) fn string_list_regexp_member<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if !(2..=4).contains(&c.args.len()) {
        return Ok(Val::Error);
    }
    let mut texts: [&[u8]; 4] = [b"", b"", b", ", b""];
    let mut strings = true;
    for (index, text) in texts.iter_mut().enumerate().take(c.args.len()) {
        match c.arg(index)? {
            Val::Str(value) => *text = value,
            _ => strings = false,
        }
    }
    let [pattern, list, delimiters, letters] = texts;
    if !strings {
        return Ok(Val::Error);
    }
    let options = Options::from_letters(&letters.to_ascii_lowercase());
    let Some(regex) = Regex::cached(pattern, options) else {
        return Ok(Val::Error);
    };
    c.machine.charge_bytes(list.len())?;
    let mut result = Val::Undefined;
    for item in tokens(list, delimiters) {
        let found = matches!(find(c.machine, &regex, item, 0, false)?, Ok(Some(_)));
        if found || matches!(result, Val::Undefined) {
            result = Val::Bool(found);
        }
    }
    Ok(result)
}
