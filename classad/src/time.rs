//! Times: the calendar, the literals `absTime("…")` and `relTime("…")`, and `strftime`.
//!
//! The library evaluates in the local zone of its process. Here that is UTC, always: a zone would have to be read from
//! files, and what a policy says should not depend on the machine that looks at it.

use crate::name::Name;
use crate::number;
use crate::tree::{Arena, NodeId, tag};
use crate::value::AbsTime;

/// What a call with one string literal means at parse time.
pub(crate) enum Literal {
    Abs(AbsTime),
    Rel(f64),
    Invalid,
}

/// `absTime("…")` and `relTime("…")` are literals; other calls are not.
pub(crate) fn literal(arena: &Arena, name: Name, args: &[NodeId]) -> Option<Literal> {
    let &[arg] = args else { return None };
    let builtin = name.builtin()?;
    let node = arena.node(arg);
    if node.tag() != tag::STR {
        return None;
    }
    match crate::builtins::NAMES[builtin as usize] {
        "absTime" => Some(parse_abs(arena.str(node)).map_or(Literal::Invalid, Literal::Abs)),
        "relTime" => Some(parse_rel(arena.str(node)).map_or(Literal::Invalid, Literal::Rel)),
        _ => None,
    }
}

/// Days since 1970 of a date; month and day may be out of their ranges.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year + (month - 1).div_euclid(12);
    let month = (month - 1).rem_euclid(12) + 1;
    let shifted = year - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year + day
        - 1
        - 719_468
}

/// A broken-down time like C's `struct tm`, but with the month from 1 and the year in full.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tm {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
    pub(crate) weekday: i64,
    pub(crate) yearday: i64,
}

impl Tm {
    /// The time in UTC.
    pub(crate) fn from_secs(secs: i64) -> Tm {
        let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let shifted = days.saturating_add(719_468);
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Tm {
            year,
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: (days + 4).rem_euclid(7),
            yearday: days - days_from_civil(year, 1, 1),
        }
    }

    /// Sets the day of the week and of the year as the library computes them, in 32 bits.
    pub(crate) fn number_days(&mut self) {
        let (year, month, day) = (self.year as i32, self.month as i32, self.day as i32);
        let fixed = fixed_day(year, month, day);
        self.weekday = i64::from(fixed % 7);
        self.yearday = i64::from(fixed.wrapping_sub(fixed_day(year, 1, 1)));
    }
}

fn fixed_day(year: i32, month: i32, day: i32) -> i32 {
    let leap = year % 4 == 0 && !matches!(year % 400, 100 | 200 | 300);
    let adjustment = if month <= 2 {
        0
    } else if leap {
        -1
    } else {
        -2
    };
    let before = year.wrapping_sub(1);
    365i32
        .wrapping_mul(before)
        .wrapping_add(before / 4)
        .wrapping_sub(before / 100)
        .wrapping_add(before / 400)
        .wrapping_add(367i32.wrapping_mul(month).wrapping_sub(362) / 12)
        .wrapping_add(adjustment)
        .wrapping_add(day)
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || (9..=13).contains(&byte)
}

/// C's `atoi` on at most `width` bytes.
fn atoi(text: &[u8], at: usize, width: usize) -> i64 {
    let end = (at + width).min(text.len());
    let text = &text[at.min(end)..end];
    let digits = text.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
}

fn next_digit(text: &[u8], at: usize) -> usize {
    at + text[at.min(text.len())..]
        .iter()
        .take_while(|b| !b.is_ascii_digit())
        .count()
}

/// Takes `+hhmm` or `-hhmm` off the end.
fn take_zone(text: &mut Vec<u8>) -> Option<i64> {
    let at = text.len().checked_sub(5)?;
    let zone = text[at..].to_vec();
    if !matches!(zone[0], b'+' | b'-') || !zone[1..].iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.truncate(at);
    let secs = atoi(&zone, 1, 2) * 3600 + atoi(&zone, 3, 2) * 60;
    Some(if zone[0] == b'+' { secs } else { -secs })
}

/// `dddd[dd[dd[dd[dd[dd]]]]][zone]` with anything but digits between the numbers.
pub(crate) fn parse_abs(text: &[u8]) -> Option<AbsTime> {
    let mut text = text.to_vec();
    let len = text.len();
    let mut zone = None;
    let last = text.iter().rposition(|&b| !is_space(b));
    if let Some(last) = last.filter(|&at| at > 0 && text[at].eq_ignore_ascii_case(&b'z')) {
        text.remove(last);
        zone = Some(0);
    } else if len > 5 && matches!(text[len - 5], b'+' | b'-') {
        zone = take_zone(&mut text);
    } else if len > 6 && matches!(text[len - 6], b'+' | b'-') && text[len - 3] == b':' {
        text.remove(len - 3);
        zone = take_zone(&mut text);
    }
    let len = text.len();
    let mut at = next_digit(&text, 0);
    if at + 4 > len {
        return None;
    }
    let year = atoi(&text, at, 4);
    at += 4;
    let mut fields = [1, 0, 0, 0, 0];
    for field in &mut fields {
        at = next_digit(&text, at);
        if at + 2 <= len {
            *field = atoi(&text, at, 2);
            at += 2;
        }
    }
    at = next_digit(&text, at);
    if at < len {
        return None;
    }
    let [month, day, hour, minute, second] = fields;
    let secs = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let offset = zone.unwrap_or(0);
    // mktime reports failure as -1, and so does the library for an offset of one second.
    if secs == -1 || offset == -1 {
        return None;
    }
    Some(AbsTime {
        secs: secs - offset,
        offset: offset as i32,
    })
}

/// `[-][[[days+]hh:]mm:]ss`, or with the letters d, h, m and s.
pub(crate) fn parse_rel(text: &[u8]) -> Option<f64> {
    // Everything before `end` is still to be read: the library goes from right to left.
    let mut end = text.len();
    let skip = |end: &mut usize| {
        while *end > 0 && is_space(text[*end - 1]) {
            *end -= 1;
        }
    };
    let digits = |end: &mut usize| {
        while *end > 0 && text[*end - 1].is_ascii_digit() {
            *end -= 1;
        }
    };
    let last = |end: usize| end.checked_sub(1).map_or(0, |at| text[at]);
    skip(&mut end);
    let mut secs = 0.0;
    if matches!(last(end), b's' | b'S' | b'0'..=b'9') {
        if matches!(last(end), b's' | b'S') {
            end -= 1;
        }
        skip(&mut end);
        let stop = end;
        digits(&mut end);
        if last(end) == b'.' {
            end -= 1;
            digits(&mut end);
        }
        secs = number::strtod(&text[end..stop]).map_or(0.0, |(value, _)| value);
    }
    let mut parts = [0i32; 3];
    for (part, letters) in parts.iter_mut().zip([b"mM:", b"hH:", b"dD+"]) {
        skip(&mut end);
        if letters.contains(&last(end)) {
            end -= 1;
            skip(&mut end);
            let stop = end;
            digits(&mut end);
            *part = std::str::from_utf8(&text[end..stop])
                .ok()
                .and_then(|t| t.parse().ok())
                .unwrap_or(0);
        }
    }
    skip(&mut end);
    let mut sign = 1.0;
    if last(end) == b'-' {
        sign = -1.0;
        end -= 1;
    }
    skip(&mut end);
    if end > 0 {
        return None;
    }
    let [minutes, hours, days] = parts;
    let whole = days
        .wrapping_mul(86_400)
        .wrapping_add(hours.wrapping_mul(3600))
        .wrapping_add(minutes.wrapping_mul(60));
    Some(sign * (f64::from(whole) + secs))
}

fn push_padded(out: &mut Vec<u8>, value: i64, width: usize, pad: u8) {
    let mut digits = Vec::new();
    number::push_int(&mut digits, value.saturating_abs());
    if value < 0 {
        out.push(b'-');
    }
    let width = width.saturating_sub(usize::from(value < 0));
    out.resize(out.len() + width.saturating_sub(digits.len()), pad);
    out.extend_from_slice(&digits);
}

/// `2020-02-29T12:34:56+05:00`
pub(crate) fn push_abs(out: &mut Vec<u8>, time: AbsTime) {
    let tm = Tm::from_secs(time.secs.saturating_add(i64::from(time.offset)));
    strftime(out, b"%Y-%m-%dT%H:%M:%S", &tm);
    let offset = i64::from(time.offset);
    out.push(if offset > 0 { b'+' } else { b'-' });
    push_padded(out, offset.abs() / 3600, 2, b'0');
    out.push(b':');
    push_padded(out, offset.abs() / 60 % 60, 2, b'0');
}

/// `1+02:03:04.5`
pub(crate) fn push_rel(out: &mut Vec<u8>, mut secs: f64) {
    if secs < 0.0 {
        out.push(b'-');
        secs = -secs;
    }
    let fraction = secs - secs.floor();
    let whole = i64::from(number::to_int32(secs));
    let (days, hours, minutes) = (
        whole / 86_400,
        whole % 86_400 / 3600,
        whole % 86_400 % 3600 / 60,
    );
    let seconds = (whole % 60) as f64 + fraction;
    if days != 0 {
        number::push_int(out, days);
        out.push(b'+');
    }
    if days != 0 || hours != 0 {
        push_padded(out, hours, 2, b'0');
        out.push(b':');
    }
    if days != 0 || hours != 0 || minutes != 0 {
        push_padded(out, minutes, 2, b'0');
        out.push(b':');
    }
    if fraction == 0.0 {
        push_padded(out, number::to_int32(seconds).into(), 2, b'0');
    } else {
        let mut text = Vec::new();
        number::push_general(&mut text, seconds, 6, b'e');
        out.resize(out.len() + 2usize.saturating_sub(text.len()), b'0');
        out.extend_from_slice(&text);
    }
}

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// C's `strftime` in the C locale and UTC.
pub(crate) fn strftime(out: &mut Vec<u8>, format: &[u8], tm: &Tm) {
    let mut rest = format;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        rest = directive(out, after, tm);
    }
}

/// Prints one directive; returns what is after it.
fn directive<'f>(out: &mut Vec<u8>, spec: &'f [u8], tm: &Tm) -> &'f [u8] {
    let mut rest = spec;
    let (mut pad, mut upper, mut width) = (None, false, None);
    while let Some((&flag, after)) = rest.split_first() {
        match flag {
            b'_' => pad = Some(b' '),
            b'-' => pad = Some(b'-'),
            b'0' => pad = Some(b'0'),
            b'^' | b'#' => upper = true,
            _ => break,
        }
        rest = after;
    }
    while let Some((&digit, after)) = rest.split_first().filter(|(d, _)| d.is_ascii_digit()) {
        width = Some((width.unwrap_or(0) * 10 + usize::from(digit - b'0')).min(1024));
        rest = after;
    }
    if let Some((b'E' | b'O', after)) = rest.split_first() {
        rest = after;
    }
    let Some((&letter, after)) = rest.split_first() else {
        out.push(b'%');
        out.extend_from_slice(spec);
        return rest;
    };
    let from = out.len();
    let field = |out: &mut Vec<u8>, value: i64, digits: usize, fill: u8| {
        let fill = pad.unwrap_or(fill);
        let digits = if fill == b'-' {
            1
        } else {
            width.unwrap_or(digits)
        };
        push_padded(out, value, digits, fill);
    };
    let twelve = match tm.hour.rem_euclid(12) {
        0 => 12,
        hour => hour,
    };
    let word = |list: &[&'static str], at: i64| {
        usize::try_from(at)
            .ok()
            .and_then(|at| list.get(at).copied())
    };
    let week = |first: i64| (tm.yearday + 7 - (tm.weekday - first).rem_euclid(7)).div_euclid(7);
    match letter {
        b'a' => out.extend_from_slice(word(&DAYS, tm.weekday).map_or("?", |w| &w[..3]).as_bytes()),
        b'A' => out.extend_from_slice(word(&DAYS, tm.weekday).unwrap_or("?").as_bytes()),
        b'b' | b'h' => out.extend_from_slice(
            word(&MONTHS, tm.month - 1)
                .map_or("?", |w| &w[..3])
                .as_bytes(),
        ),
        b'B' => out.extend_from_slice(word(&MONTHS, tm.month - 1).unwrap_or("?").as_bytes()),
        b'c' => strftime(out, b"%a %b %e %H:%M:%S %Y", tm),
        b'C' => field(out, tm.year.div_euclid(100), 2, b'0'),
        b'd' => field(out, tm.day, 2, b'0'),
        b'D' | b'x' => strftime(out, b"%m/%d/%y", tm),
        b'e' => field(out, tm.day, 2, b' '),
        b'F' => strftime(out, b"%Y-%m-%d", tm),
        b'g' => field(out, iso_week(tm).0.rem_euclid(100), 2, b'0'),
        b'G' => field(out, iso_week(tm).0, 1, b'0'),
        b'H' => field(out, tm.hour, 2, b'0'),
        b'I' => field(out, twelve, 2, b'0'),
        b'j' => field(out, tm.yearday + 1, 3, b'0'),
        b'k' => field(out, tm.hour, 2, b' '),
        b'l' => field(out, twelve, 2, b' '),
        b'm' => field(out, tm.month, 2, b'0'),
        b'M' => field(out, tm.minute, 2, b'0'),
        b'n' => out.push(b'\n'),
        b'p' => out.extend_from_slice(if tm.hour > 11 { b"PM" } else { b"AM" }),
        b'P' => out.extend_from_slice(if tm.hour > 11 { b"pm" } else { b"am" }),
        b'r' => strftime(out, b"%I:%M:%S %p", tm),
        b'R' => strftime(out, b"%H:%M", tm),
        b's' => {
            let days = days_from_civil(tm.year, tm.month, tm.day);
            field(
                out,
                days * 86_400 + tm.hour * 3600 + tm.minute * 60 + tm.second,
                1,
                b'0',
            );
        }
        b'S' => field(out, tm.second, 2, b'0'),
        b't' => out.push(b'\t'),
        b'T' | b'X' => strftime(out, b"%H:%M:%S", tm),
        b'u' => field(out, (tm.weekday - 1).rem_euclid(7) + 1, 1, b'0'),
        b'U' => field(out, week(0), 2, b'0'),
        b'V' => field(out, iso_week(tm).1, 2, b'0'),
        b'w' => field(out, tm.weekday, 1, b'0'),
        b'W' => field(out, week(1), 2, b'0'),
        b'y' => field(out, tm.year.rem_euclid(100), 2, b'0'),
        b'Y' => field(out, tm.year, 1, b'0'),
        b'z' => out.extend_from_slice(b"+0000"),
        b'Z' => out.extend_from_slice(b"GMT"),
        b'%' => out.push(b'%'),
        _ => {
            out.push(b'%');
            out.extend_from_slice(&spec[..spec.len() - after.len()]);
        }
    }
    if upper {
        out[from..].make_ascii_uppercase();
    }
    after
}

/// Year and number of the ISO 8601 week.
fn iso_week(tm: &Tm) -> (i64, i64) {
    let days_in = |year: i64| days_from_civil(year + 1, 1, 1) - days_from_civil(year, 1, 1);
    let weekday = (tm.weekday - 1).rem_euclid(7);
    // Thursday decides which year the week belongs to.
    let thursday = tm.yearday - weekday + 3;
    if thursday < 0 {
        (tm.year - 1, (thursday + days_in(tm.year - 1)) / 7 + 1)
    } else if thursday >= days_in(tm.year) {
        (tm.year + 1, 1)
    } else {
        (tm.year, thursday / 7 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_goes_there_and_back() {
        for secs in [
            0,
            -1,
            951_827_696,
            1_582_961_696,
            -62_135_596_800,
            253_402_300_799,
        ] {
            let tm = Tm::from_secs(secs);
            let days = days_from_civil(tm.year, tm.month, tm.day);
            assert_eq!(
                days * 86_400 + tm.hour * 3600 + tm.minute * 60 + tm.second,
                secs
            );
        }
    }

    #[test]
    fn time_literals_are_read() {
        let time = parse_abs(b"2020-02-29T12:34:56+05:00").expect("valid");
        assert_eq!((time.secs, time.offset), (1_582_961_696, 18_000));
        assert_eq!(parse_rel(b"1+00:02:00"), Some(86_520.0));
        assert_eq!(parse_rel(b"-1:00"), Some(-60.0));
        assert_eq!(parse_rel(b"x"), None);
        assert!(parse_abs(b"x").is_none());
    }
}
