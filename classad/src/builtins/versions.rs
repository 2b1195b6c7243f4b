//! Versions, compared as people read them: `9.10` is after `9.9`.

use super::Call;
use super::strings::stringify;
use crate::eval::{Ev, Val};

/// Compares two texts as `strverscmp` does. Only the sign means something; the size is that of the library.
fn natural(left: &[u8], right: &[u8]) -> i32 {
    let l = |at: usize| left.get(at).copied().unwrap_or(0);
    let r = |at: usize| right.get(at).copied().unwrap_or(0);
    let differ = |at: usize| i32::from(l(at) as i8) - i32::from(r(at) as i8);
    let mut at = 0;
    while l(at) != 0 && l(at) == r(at) {
        at += 1;
    }
    if l(at) == r(at) {
        return 0;
    }
    let number = at
        - left[..at]
            .iter()
            .rev()
            .take_while(|b| b.is_ascii_digit())
            .count();
    if number == at && !(l(at).is_ascii_digit() && r(at).is_ascii_digit()) {
        return differ(at);
    }
    let digits = |text: &[u8]| {
        text[number.min(text.len())..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    // A zero that is the whole number does not lead it.
    let zeros = |text: &[u8]| {
        let zeros = text[number.min(text.len())..]
            .iter()
            .take_while(|&&b| b == b'0')
            .count();
        if zeros > 0 && zeros == digits(text) {
            zeros - 1
        } else {
            zeros
        }
    };
    let (left_zeros, right_zeros) = (zeros(left), zeros(right));
    if left_zeros != right_zeros {
        return right_zeros as i32 - left_zeros as i32;
    }
    if left_zeros > 0 {
        return differ(at);
    }
    let (left_digits, right_digits) = (digits(left), digits(right));
    if left_digits != right_digits {
        left_digits as i32 - right_digits as i32
    } else {
        differ(at)
    }
}

pub(super) fn compare<'a>(c: &Call<'_, 'a>, answer: fn(i32) -> Val<'a>) -> Ev<'a> {
    if c.args.len() != 2 {
        return Ok(Val::Error);
    }
    let (left, right) = (c.arg(0)?, c.arg(1)?);
    if matches!(left, Val::Undefined) || matches!(right, Val::Undefined) {
        return Ok(Val::Undefined);
    }
    Ok(
        match (stringify(c.machine, left)?, stringify(c.machine, right)?) {
            (Val::Str(l), Val::Str(r)) => {
                c.machine.charge_bytes(l.len().min(r.len()))?;
                answer(natural(l, r))
            }
            _ => Val::Error,
        },
    )
}

pub(super) fn in_range<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if c.args.len() != 3 {
        return Ok(Val::Error);
    }
    let (version, low, high) = (c.arg(0)?, c.arg(1)?, c.arg(2)?);
    if matches!(low, Val::Undefined) || matches!(high, Val::Undefined) {
        return Ok(Val::Undefined);
    }
    let text = |value| stringify(c.machine, value);
    Ok(match (text(version)?, text(low)?, text(high)?) {
        (Val::Str(version), Val::Str(low), Val::Str(high)) => {
            c.machine
                .charge_bytes(version.len() + low.len() + high.len())?;
            Val::Bool(natural(low, version) <= 0 && natural(version, high) <= 0)
        }
        _ => Val::Error,
    })
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn versions_are_ordered_as_people_read_them() {
        for (left, right) in [
            ("9.9", "9.10"),
            ("1.01", "1.1"),
            ("8.8.7", "8.8.17"),
            ("a", "b"),
            ("1", "1.0"),
            ("10", "a"),
        ] {
            assert!(
                natural(left.as_bytes(), right.as_bytes()) < 0,
                "{left} {right}"
            );
            assert!(
                natural(right.as_bytes(), left.as_bytes()) > 0,
                "{left} {right}"
            );
        }
        assert_eq!(natural(b"1.2", b"1.2"), 0);
    }
}
