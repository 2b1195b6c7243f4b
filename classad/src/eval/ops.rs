//! The operators on values.

use std::cmp::Ordering;

use super::Val;
use crate::number;
use crate::tree::Op;
use crate::value::AbsTime;

/// What a condition makes of a value: numbers count, anything else is no condition.
#[inline]
pub(crate) fn truth(value: Val<'_>) -> Option<bool> {
    match value {
        Val::Bool(b) => Some(b),
        Val::Int(i) => Some(i != 0),
        Val::Real(r) => Some(r != 0.0),
        _ => None,
    }
}

/// What a match makes of `Requirements`: as a condition does, and a relative time other than zero will do as well.
#[inline]
pub(crate) fn admits(value: Val<'_>) -> bool {
    match value {
        Val::Rel(seconds) => seconds != 0.0,
        other => truth(other) == Some(true),
    }
}

/// `&&` or `||`, after the left side did not decide.
#[inline]
pub(crate) fn logical<'a>(and: bool, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    let side = |value: Val<'a>| match value {
        Val::Undefined | Val::Error => Ok(None),
        other => truth(other).map(Some).ok_or(()),
    };
    let (Ok(l), Ok(r)) = (side(left), side(right)) else {
        return Val::Error;
    };
    // The value that decides alone.
    let deciding = !and;
    match (l, r) {
        (Some(l), _) if l == deciding => Val::Bool(deciding),
        (None, _) if matches!(left, Val::Error) => Val::Error,
        (Some(_), Some(r)) => Val::Bool(r),
        (Some(_), None) => right,
        (None, Some(r)) if r == deciding => Val::Bool(deciding),
        (None, Some(_)) => Val::Undefined,
        (None, None) => right,
    }
}

pub(crate) fn unary(op: Op, value: Val<'_>) -> Val<'_> {
    if matches!(value, Val::Error | Val::Undefined) {
        return value;
    }
    match (op, value) {
        (Op::Parens, _) => value,
        (Op::Plus, Val::Int(_) | Val::Real(_) | Val::Rel(_)) => value,
        (Op::Minus, Val::Int(i)) => Val::Int(i.wrapping_neg()),
        (Op::Minus, Val::Real(r)) => Val::Real(-r),
        (Op::Minus, Val::Rel(secs)) => Val::Rel(-secs),
        (Op::Not, _) => truth(value).map_or(Val::Error, |b| Val::Bool(!b)),
        (Op::BitNot, Val::Int(i)) => Val::Int(!i),
        _ => Val::Error,
    }
}

/// All binary operators that need nothing but their operands' values.
#[inline]
pub(crate) fn binary<'a>(op: Op, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    match op {
        Op::Is => return identical(left, right).map_or(Val::Error, Val::Bool),
        Op::Isnt => return identical(left, right).map_or(Val::Error, |same| Val::Bool(!same)),
        Op::Or => return logical(false, left, right),
        Op::And => return logical(true, left, right),
        Op::Elvis => {
            return if matches!(left, Val::Undefined) {
                right
            } else {
                left
            };
        }
        _ => {}
    }
    if let (Val::Int(l), Val::Int(r)) = (left, right)
        && (op as u8) < Op::Is as u8
    {
        return Val::Bool(ordered(op, l.cmp(&r)));
    }
    match (left, right) {
        (Val::Error, _) | (_, Val::Error) => Val::Error,
        (Val::Undefined, _) | (_, Val::Undefined) => Val::Undefined,
        _ if (op as u8) < Op::Is as u8 => compare(op, left, right),
        _ if (op as u8) <= Op::Mod as u8 => arithmetic(op, left, right),
        (Val::Int(l), Val::Int(r)) => bitwise(op, l, r),
        _ => Val::Error,
    }
}

#[inline]
fn ordered(op: Op, order: Ordering) -> bool {
    match op {
        Op::Lt => order.is_lt(),
        Op::Le => order.is_le(),
        Op::Eq => order.is_eq(),
        Op::Ne => order.is_ne(),
        Op::Ge => order.is_ge(),
        _ => order.is_gt(),
    }
}

fn compare<'a>(op: Op, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    let real = |l: f64, r: f64| match op {
        Op::Ne => l != r,
        _ => l.partial_cmp(&r).is_some_and(|order| ordered(op, order)),
    };
    let result = match (left, right) {
        (Val::Str(l), Val::Str(r)) => ordered(op, compare_ignoring_case(l, r)),
        (Val::Bool(l), Val::Bool(r)) => ordered(op, l.cmp(&r)),
        (Val::Abs(l), Val::Abs(r)) => ordered(op, l.secs.cmp(&r.secs)),
        (Val::Rel(l), Val::Rel(r)) => real(l, r),
        _ => match (number(left), number(right)) {
            (Some(Number::Int(l)), Some(Number::Int(r))) => ordered(op, l.cmp(&r)),
            (Some(l), Some(r)) => real(l.real(), r.real()),
            _ => return Val::Error,
        },
    };
    Val::Bool(result)
}

/// `strcasecmp`
#[inline]
pub(crate) fn compare_ignoring_case(left: &[u8], right: &[u8]) -> Ordering {
    for (l, r) in left.iter().zip(right) {
        if l != r {
            match l.to_ascii_lowercase().cmp(&r.to_ascii_lowercase()) {
                Ordering::Equal => {}
                other => return other,
            }
        }
    }
    left.len().cmp(&right.len())
}

/// `=?=`; `None` for two lists or two ads, which cannot be compared.
#[inline]
fn identical(left: Val<'_>, right: Val<'_>) -> Option<bool> {
    Some(match (left, right) {
        (Val::Undefined, Val::Undefined) | (Val::Error, Val::Error) => true,
        (Val::Bool(l), Val::Bool(r)) => l == r,
        (Val::Int(l), Val::Int(r)) => l == r,
        (Val::Real(l), Val::Real(r)) | (Val::Rel(l), Val::Rel(r)) => l == r,
        (Val::Str(l), Val::Str(r)) => l == r,
        (Val::Abs(l), Val::Abs(r)) => l == r,
        (Val::Ad(_), Val::Ad(_)) => return None,
        _ if is_list(left) && is_list(right) && is_made(left) == is_made(right) => return None,
        _ => false,
    })
}

fn is_list(value: Val<'_>) -> bool {
    matches!(value, Val::List(..) | Val::Made(_) | Val::Shared(_))
}

/// Whether a list is of the library's other type of lists.
fn is_made(list: Val<'_>) -> bool {
    match list {
        Val::List(unit, _) => unit & super::DETACHED != 0,
        other => matches!(other, Val::Shared(_)),
    }
}

#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Real(f64),
}

impl Number {
    fn real(self) -> f64 {
        match self {
            Number::Int(i) => i as f64,
            Number::Real(r) => r,
        }
    }
}

fn number(value: Val<'_>) -> Option<Number> {
    match value {
        Val::Int(i) => Some(Number::Int(i)),
        Val::Bool(b) => Some(Number::Int(i64::from(b))),
        Val::Real(r) => Some(Number::Real(r)),
        _ => None,
    }
}

pub(crate) fn arithmetic<'a>(op: Op, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    match (number(left), number(right)) {
        (Some(Number::Int(l)), Some(Number::Int(r))) => match op {
            Op::Add => Val::Int(l.wrapping_add(r)),
            Op::Sub => Val::Int(l.wrapping_sub(r)),
            Op::Mul => Val::Int(l.wrapping_mul(r)),
            // The library's answers for the one quotient that does not fit.
            Op::Div => l.checked_div(r).map_or(
                if r == 0 {
                    Val::Error
                } else {
                    Val::Int(i64::MAX)
                },
                Val::Int,
            ),
            _ => l
                .checked_rem(r)
                .map_or(if r == 0 { Val::Error } else { Val::Int(0) }, Val::Int),
        },
        (Some(l), Some(r)) => {
            let (l, r) = (l.real(), r.real());
            let result = match op {
                Op::Add => l + r,
                Op::Sub => l - r,
                Op::Mul => l * r,
                Op::Div => l / r,
                _ => return Val::Error,
            };
            // Only positive infinity counts as an overflow.
            if result == f64::INFINITY {
                Val::Error
            } else {
                Val::Real(result)
            }
        }
        _ => times(op, left, right),
    }
}

fn times<'a>(op: Op, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    let shift = |time: AbsTime, secs: f64, sign: i64| {
        let by = i64::from(number::to_int32(secs)) * sign;
        Val::Abs(AbsTime {
            secs: time.secs.wrapping_add(by),
            ..time
        })
    };
    match (op, left, right) {
        (Op::Add, Val::Abs(time), Val::Rel(secs)) | (Op::Add, Val::Rel(secs), Val::Abs(time)) => {
            shift(time, secs, 1)
        }
        (Op::Sub, Val::Abs(time), Val::Rel(secs)) => shift(time, secs, -1),
        (Op::Sub, Val::Abs(l), Val::Abs(r)) => Val::Rel(l.secs.wrapping_sub(r.secs) as f64),
        (Op::Add, Val::Rel(l), Val::Rel(r)) => Val::Rel(l + r),
        (Op::Sub, Val::Rel(l), Val::Rel(r)) => Val::Rel(l - r),
        (Op::Mul, Val::Rel(l), Val::Int(r)) => Val::Rel(l * r as f64),
        (Op::Mul, Val::Int(l), Val::Rel(r)) => Val::Rel(l as f64 * r),
        (Op::Mul, Val::Rel(l), Val::Real(r)) | (Op::Mul, Val::Real(l), Val::Rel(r)) => {
            Val::Rel(l * r)
        }
        (Op::Div, Val::Rel(l), Val::Int(r)) => Val::Rel(l / r as f64),
        (Op::Div, Val::Rel(l), Val::Real(r)) => Val::Rel(l / r),
        _ => Val::Error,
    }
}

/// Shift counts are taken modulo 64, as the processor does it.
fn bitwise<'a>(op: Op, l: i64, r: i64) -> Val<'a> {
    Val::Int(match op {
        Op::BitOr => l | r,
        Op::BitXor => l ^ r,
        Op::BitAnd => l & r,
        Op::Shl => l.wrapping_shl(r as u32),
        Op::Shr if l < 0 => l >> r.clamp(0, 63),
        Op::Ushr if l < 0 => ((l >> 1) & i64::MAX).wrapping_shr(r.wrapping_sub(1) as u32),
        Op::Shr | Op::Ushr => l.wrapping_shr(r as u32),
        _ => return Val::Error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: Val<'_>) -> i64 {
        if let Val::Int(i) = value {
            i
        } else {
            i64::MIN + 7
        }
    }

    #[test]
    fn integers_wrap_and_never_trap() {
        assert_eq!(
            int(binary(Op::Div, Val::Int(i64::MIN), Val::Int(-1))),
            i64::MAX
        );
        assert_eq!(int(binary(Op::Mod, Val::Int(i64::MIN), Val::Int(-1))), 0);
        assert_eq!(
            int(binary(Op::Add, Val::Int(i64::MAX), Val::Int(1))),
            i64::MIN
        );
        assert_eq!(int(unary(Op::Minus, Val::Int(i64::MIN))), i64::MIN);
        for count in [-1, 0, 63, 64, 65, i64::MIN, i64::MAX] {
            for op in [Op::Shl, Op::Shr, Op::Ushr] {
                binary(op, Val::Int(-5), Val::Int(count));
                binary(op, Val::Int(5), Val::Int(count));
            }
        }
        assert_eq!(int(binary(Op::Ushr, Val::Int(-5), Val::Int(0))), 0);
    }
}
