//! Argument lists and environments of jobs, in HTCondor's two syntaxes, and maps of users.

use std::collections::BTreeMap;

use super::Call;
use crate::eval::{Ev, Val};

/// What may separate variables of the first syntax if the text starts with it.
const ENV_DELIMITERS: &[u8] = b"!#$%&*+,-/:;<>?@^`|~\x1F";

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Splits at blanks; between single quotes all is literal, and two of them are one.
fn split_v2(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let mut item: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte == b'\'' {
            let item = item.get_or_insert_default();
            loop {
                let byte = *text.get(at)?;
                at += 1;
                if byte == b'\'' {
                    if text.get(at) != Some(&b'\'') {
                        break;
                    }
                    at += 1;
                }
                item.push(byte);
            }
        } else if is_blank(byte) {
            all.extend(item.take());
        } else {
            item.get_or_insert_default().push(byte);
        }
    }
    all.extend(item);
    Some(all)
}

/// Appends an item so that [`split_v2`] reads it again.
fn push_v2(out: &mut Vec<u8>, item: &[u8]) {
    if !out.is_empty() {
        out.push(b' ');
    }
    if item.is_empty() {
        out.extend_from_slice(b"''");
    }
    for &byte in item {
        if !is_blank(byte) && byte != b'\'' {
            out.push(byte);
            continue;
        }
        // A quoted piece goes on where the last one ended.
        if out.last() == Some(&b'\'') {
            out.pop();
        } else {
            out.push(b'\'');
        }
        if byte == b'\'' {
            out.push(b'\'');
        }
        out.push(byte);
        out.push(b'\'');
    }
}

/// The version in the second argument; 2 if there is none.
fn version(c: &Call<'_, '_>) -> Result<Option<i64>, crate::eval::Stop> {
    Ok(match c.args.len() {
        1 => Some(2),
        2 => match c.arg(1)? {
            Val::Int(version) if matches!(version as i32, 1 | 2) => Some(i64::from(version as i32)),
            _ => None,
        },
        _ => None,
    })
}

pub(super) fn args_to_list<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let Some(version) = version(c)? else {
        return Ok(Val::Error);
    };
    let Val::Str(text) = c.arg(0)? else {
        return Ok(Val::Error);
    };
    let items = match version {
        1 => text
            .split(|&b| is_blank(b))
            .filter(|item| !item.is_empty())
            .map(<[u8]>::to_vec)
            .collect(),
        _ => match split_v2(text) {
            Some(items) => items,
            None => return Ok(Val::Error),
        },
    };
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        values.push(c.machine.make_str(item)?);
    }
    Ok(Val::Shared(c.machine.make_list(values)?))
}

pub(super) fn list_to_args<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let Some(version) = version(c)? else {
        return Ok(Val::Error);
    };
    let Some(items) = c.machine.items(c.arg(0)?) else {
        return Ok(Val::Error);
    };
    let mut all = Vec::new();
    for index in 0..items.len() {
        match c.machine.item(c.at, items, index, c.depth)? {
            Val::Str(item) => all.push(item),
            _ => return Ok(Val::Error),
        }
    }
    let mut out = Vec::new();
    for item in all {
        if version == 2 {
            push_v2(&mut out, item);
        } else if item.iter().any(|&b| is_blank(b)) {
            return Ok(Val::Error);
        } else {
            if !out.is_empty() {
                out.push(b' ');
            }
            out.extend_from_slice(item);
        }
        c.machine.room(out.len())?;
    }
    c.machine.make_str(out)
}

/// Variables by name. One without a value is a macro that is still to be expanded.
#[derive(Default)]
struct Environment(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Environment {
    /// Adds `NAME=value`; false if it is not that.
    fn set(&mut self, entry: &[u8]) -> bool {
        match entry.iter().position(|&b| b == b'=') {
            Some(0) => false,
            Some(at) => {
                self.0
                    .insert(entry[..at].to_vec(), Some(entry[at + 1..].to_vec()));
                true
            }
            None if entry.windows(2).any(|w| w == b"$$") => {
                self.0.insert(entry.to_vec(), None);
                true
            }
            None => false,
        }
    }

    fn print(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in &self.0 {
            let mut entry = name.clone();
            if let Some(value) = value {
                entry.push(b'=');
                entry.extend_from_slice(value);
            }
            push_v2(&mut out, &entry);
        }
        out
    }
}

pub(super) fn env_v1_to_v2<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let text = match c.only()? {
        Some(Val::Undefined) => return Ok(Val::Undefined),
        Some(Val::Str(text)) => text,
        _ => return Ok(Val::Error),
    };
    let (delimiter, mut rest) = match text.split_first() {
        Some((first, rest)) if ENV_DELIMITERS.contains(first) => (*first, rest),
        _ => (b';', text),
    };
    let mut environment = Environment::default();
    while !rest.is_empty() {
        rest = &rest[rest.iter().take_while(|&&b| is_blank(b)).count()..];
        let end = rest
            .iter()
            .position(|&b| b == b'\n' || b == delimiter)
            .unwrap_or(rest.len());
        if end > 0 && !environment.set(&rest[..end]) {
            return Ok(Val::Error);
        }
        rest = rest.get(end + 1..).unwrap_or(b"");
    }
    c.machine.make_str(environment.print())
}

pub(super) fn merge_environment<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let mut environment = Environment::default();
    for index in 0..c.args.len() {
        let entries = match c.arg(index)? {
            Val::Undefined => continue,
            Val::Str(text) => split_v2(text),
            _ => return Ok(Val::Error),
        };
        let Some(entries) = entries else {
            return Ok(Val::Error);
        };
        if !entries.iter().all(|entry| environment.set(entry)) {
            return Ok(Val::Error);
        }
    }
    c.machine.make_str(environment.print())
}

/// Maps of users are files of a daemon's configuration; here there are none, so the default counts.
pub(super) fn user_map<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if !(2..=4).contains(&c.args.len()) {
        return Ok(Val::Error);
    }
    let mut values = [Val::Undefined; 4];
    for (index, value) in values.iter_mut().enumerate().take(c.args.len()) {
        *value = c.arg(index)?;
    }
    let error = matches!(values[0], Val::Error) || matches!(values[1], Val::Error);
    let strings = matches!(values[0], Val::Str(_)) && matches!(values[1], Val::Str(_));
    Ok(if error && !strings {
        Val::Error
    } else {
        values[3]
    })
}

/// Looking at the users of a machine is switched off by default, so the default counts.
pub(super) fn user_home<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if !matches!(c.args.len(), 1 | 2) {
        return Err(crate::eval::Stop);
    }
    let default = match c.args.len() {
        2 => c
            .arg(1)
            .ok()
            .filter(|v| matches!(v, Val::Str(text) if !text.is_empty())),
        _ => None,
    };
    let user = c.arg(0).unwrap_or(Val::Undefined);
    Ok(match default {
        Some(default) => default,
        None if matches!(user, Val::Str(_) | Val::Undefined) => Val::Undefined,
        None => Val::Error,
    })
}
