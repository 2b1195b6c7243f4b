//! Functions on times. The local zone is UTC; see [`crate::time`].

use std::time::{SystemTime, UNIX_EPOCH};

use super::Call;
use crate::ad::ClassAd;
use crate::eval::{Ev, NOWHERE, Place, Stop, Unit, Val};
use crate::name::Name;
use crate::number;
use crate::time::{self, Tm};
use crate::value::AbsTime;

/// `strftime` is given this much room by the library; what is longer is lost.
const MAX_FORMATTED: usize = 1022;

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}

pub(super) fn time<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(if c.args.is_empty() {
        Val::Int(now())
    } else {
        Val::Error
    })
}

pub(super) fn current_time<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(if c.args.is_empty() {
        Val::Abs(AbsTime {
            secs: now(),
            offset: 0,
        })
    } else {
        Val::Error
    })
}

pub(super) fn zone_offset<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(if c.args.is_empty() {
        Val::Rel(0.0)
    } else {
        Val::Error
    })
}

pub(super) fn day_time<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(if c.args.is_empty() {
        Val::Rel(now().rem_euclid(86_400) as f64)
    } else {
        Val::Error
    })
}

#[derive(Clone, Copy)]
pub(super) enum Field {
    Year,
    Month,
    DayOfYear,
    DayOfMonth,
    DayOfWeek,
    Days,
    Hours,
    Minutes,
    Seconds,
}

pub(super) fn field<'a>(c: &Call<'_, 'a>, field: Field) -> Ev<'a> {
    Ok(match c.only()? {
        Some(Val::Abs(time)) => {
            let tm = Tm::from_secs(time.secs);
            Val::Int(match field {
                Field::Year => tm.year,
                Field::Month => tm.month,
                Field::DayOfYear => tm.yearday,
                Field::DayOfMonth => tm.day,
                Field::DayOfWeek => tm.weekday,
                Field::Hours => tm.hour,
                Field::Minutes => tm.minute,
                Field::Seconds => tm.second,
                Field::Days => return Ok(Val::Error),
            })
        }
        Some(Val::Rel(secs)) => {
            let secs = number::to_int(secs);
            Val::Int(match field {
                Field::Days => secs / 86_400,
                Field::Hours => secs % 86_400 / 3600,
                Field::Minutes => secs % 3600 / 60,
                Field::Seconds => secs % 60,
                _ => return Ok(Val::Error),
            })
        }
        _ => Val::Error,
    })
}

/// An ad that is made during evaluation.
fn make_ad<'a>(c: &Call<'_, 'a>, ad: ClassAd) -> Ev<'a> {
    let arena = c.machine.keep_arena(ad.arena)?;
    let unit = c.machine.add_unit(Unit {
        arena,
        top: 0,
        owner: NOWHERE,
        chain: None,
        bare: false,
    });
    Ok(Val::Ad(Place { unit, ad: 0 }))
}

fn abs_ad(time: AbsTime) -> ClassAd {
    let tm = Tm::from_secs(time.secs.wrapping_add(i64::from(time.offset)));
    let mut ad = ClassAd::new();
    ad.insert("Type", "AbsoluteTime");
    ad.insert("Year", i64::from(tm.year as i32));
    ad.insert("Month", tm.month);
    ad.insert("Day", tm.day);
    ad.insert("Hours", tm.hour);
    ad.insert("Minutes", tm.minute);
    ad.insert("Seconds", tm.second);
    ad.insert("Offset", i64::from(time.offset));
    ad
}

fn rel_ad(secs: f64) -> ClassAd {
    let size = secs.abs();
    let whole = i64::from(number::to_int32(size));
    let (mut days, mut hours, mut minutes) =
        (whole / 86_400, whole % 86_400 / 3600, whole % 3600 / 60);
    let mut seconds = (whole % 60) as f64 + (size - size.floor());
    if secs < 0.0 {
        // The sign is that of the largest part.
        if days > 0 {
            days = -days;
        } else if hours > 0 {
            hours = -hours;
        } else if minutes > 0 {
            minutes = -minutes;
        } else {
            seconds = -seconds;
        }
    }
    let mut ad = ClassAd::new();
    ad.insert("Type", "RelativeTime");
    ad.insert("Days", days);
    ad.insert("Hours", hours);
    ad.insert("Minutes", minutes);
    ad.insert("Seconds", seconds);
    ad
}

/// A number or an absolute time as a point in time.
fn point(value: Val<'_>) -> Option<AbsTime> {
    match value {
        Val::Int(secs) => Some(AbsTime { secs, offset: 0 }),
        Val::Real(secs) => Some(AbsTime {
            secs: i64::from(number::to_int32(secs)),
            offset: 0,
        }),
        Val::Abs(time) => Some(time),
        _ => None,
    }
}

pub(super) fn split<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    match c.only()? {
        Some(Val::Undefined) => Ok(Val::Undefined),
        Some(Val::Rel(secs)) => make_ad(c, rel_ad(secs)),
        Some(value) => match point(value) {
            Some(time) => make_ad(c, abs_ad(time)),
            None => Ok(Val::Error),
        },
        None => Ok(Val::Error),
    }
}

pub(super) fn format<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let mut tm = match c.args.len() {
        0 => Tm::from_secs(now()),
        1 | 2 => match c.arg(0)? {
            Val::Ad(place) => from_ad(c, place),
            value => match point(value) {
                Some(time) => {
                    let secs = time.secs.wrapping_add(i64::from(time.offset));
                    let tm = Tm::from_secs(secs);
                    Tm {
                        year: i64::from(tm.year as i32),
                        ..tm
                    }
                }
                None => return Ok(Val::Error),
            },
        },
        _ => return Ok(Val::Error),
    };
    if !c.args.is_empty() {
        tm.number_days();
    }
    let format: &[u8] = match c.args.len() {
        2 => match c.arg(1)? {
            Val::Str(format) => format,
            _ => return Ok(Val::Error),
        },
        _ => b"%c",
    };
    let mut out = Vec::new();
    c.machine.charge_bytes(format.len())?;
    time::strftime(
        &mut out,
        &format[..format.len().min(4 * MAX_FORMATTED)],
        &tm,
    );
    if out.len() > MAX_FORMATTED {
        out.clear();
    }
    c.machine.make_str(out)
}

/// A time from an ad as `splitTime` makes it. What it lacks is zero.
fn from_ad(c: &Call<'_, '_>, place: Place) -> Tm {
    let get = |name: &str| match c.machine.evaluate_name(place, Name::new(name.as_bytes())) {
        Val::Int(value) => Some(i64::from(value as i32)),
        _ => None,
    };
    Tm {
        year: get("Year").unwrap_or(1900),
        month: get("Month").unwrap_or(1),
        day: get("Day").unwrap_or(0),
        hour: get("Hours").unwrap_or(0),
        minute: get("Minutes").unwrap_or(0),
        second: get("Seconds").unwrap_or(0),
        weekday: 0,
        yearday: 0,
    }
}

pub(super) fn abs_time<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if c.args.is_empty() {
        return current_time(c);
    }
    if c.args.len() > 2 {
        return Ok(Val::Error);
    }
    let value = c.arg(0)?;
    let offset = match c.args.len() {
        2 => match c.arg(1)? {
            Val::Int(offset) => offset as i32,
            Val::Real(offset) => number::to_int32(offset),
            Val::Rel(offset) => number::to_int(offset) as i32,
            _ => return Ok(Val::Error),
        },
        _ => 0,
    };
    Ok(match value {
        Val::Undefined | Val::Str(_) | Val::Abs(_) => value,
        Val::Int(_) if offset == -1 => return Err(Stop),
        Val::Int(secs) => Val::Abs(AbsTime {
            secs: i64::from(secs as i32),
            offset,
        }),
        Val::Real(secs) => Val::Abs(AbsTime {
            secs: i64::from(number::to_int32(secs)),
            offset,
        }),
        Val::Rel(secs) => Val::Abs(AbsTime {
            secs: number::to_int(secs),
            offset,
        }),
        _ => Val::Error,
    })
}

pub(super) fn rel_time<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if !matches!(c.args.len(), 1 | 2) {
        return Ok(Val::Error);
    }
    let value = c.arg(0)?;
    if c.args.len() == 2 {
        c.arg(1)?;
        return Ok(Val::Error);
    }
    Ok(match value {
        Val::Undefined | Val::Rel(_) => value,
        Val::Int(secs) => Val::Rel(f64::from(secs as i32)),
        Val::Real(secs) => Val::Rel(secs),
        Val::Abs(time) => Val::Rel(time.secs as f64),
        // Only a literal is read as a time.
        Val::Str(_) => Val::Rel(0.0),
        _ => Val::Error,
    })
}
