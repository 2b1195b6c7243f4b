//! Conversions between types.

use super::Call;
use super::strings::stringify;
use crate::eval::{Ev, Val};
use crate::number;

/// The value as a real, as `real()` makes one.
pub(super) fn to_real(value: Val<'_>) -> Option<f64> {
    match value {
        Val::Str(text) => number::strtod(text).map(|(value, _)| value),
        Val::Bool(b) => Some(f64::from(u8::from(b))),
        Val::Int(i) => Some(i as f64),
        Val::Real(r) => Some(r),
        Val::Abs(time) => Some(time.secs as f64),
        Val::Rel(secs) => Some(number::to_int(secs) as f64),
        _ => None,
    }
}

fn to_int(value: Val<'_>) -> Option<i64> {
    match value {
        Val::Str(text) => number::strtod(text).map(|(value, _)| number::to_int(value)),
        Val::Bool(b) => Some(i64::from(b)),
        Val::Int(i) => Some(i),
        Val::Real(r) => Some(number::to_int(r)),
        Val::Abs(time) => Some(time.secs),
        Val::Rel(secs) => Some(number::to_int(secs)),
        _ => None,
    }
}

pub(super) fn int<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(match c.only()? {
        Some(Val::Undefined) => Val::Undefined,
        Some(value) => to_int(value).map_or(Val::Error, Val::Int),
        None => Val::Error,
    })
}

pub(super) fn real<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(match c.only()? {
        Some(Val::Undefined) => Val::Undefined,
        Some(value) => to_real(value).map_or(Val::Error, Val::Real),
        None => Val::Error,
    })
}

pub(super) fn string<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    match c.only()? {
        Some(value) => stringify(c.machine, value),
        None => Ok(Val::Error),
    }
}

pub(super) fn bool<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(match c.only()? {
        Some(Val::Undefined) => Val::Undefined,
        Some(Val::Str(text)) if text.eq_ignore_ascii_case(b"true") => Val::Bool(true),
        Some(Val::Str(text)) if text.eq_ignore_ascii_case(b"false") => Val::Bool(false),
        Some(Val::Str(_)) => Val::Undefined,
        Some(Val::Rel(secs)) => Val::Bool(number::to_int(secs) != 0),
        Some(value) => crate::eval::ops::truth(value).map_or(Val::Error, Val::Bool),
        None => Val::Error,
    })
}

/// Seconds as `days+hh:mm:ss`, without the parts in front that are zero.
pub(super) fn interval<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let Some(secs) = c.only()?.and_then(to_int) else {
        return Ok(Val::Error);
    };
    let secs = secs as i32;
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (hours, minutes, seconds) = (rest / 3600, rest % 3600 / 60, rest % 60);
    let text = if days != 0 {
        format!(
            "{days}+{:02}:{:02}:{:02}",
            hours.abs(),
            minutes.abs(),
            seconds.abs()
        )
    } else if hours != 0 {
        format!("{hours}:{:02}:{:02}", minutes.abs(), seconds.abs())
    } else if minutes != 0 {
        format!("{minutes}:{:02}", seconds.abs())
    } else {
        seconds.to_string()
    };
    c.machine.make_str(text.into_bytes())
}
