//! Rounding and the like.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Call;
use super::convert::to_real;
use crate::eval::{Ev, Val};
use crate::number;

pub(super) fn round<'a>(c: &Call<'_, 'a>, how: fn(f64) -> f64) -> Ev<'a> {
    Ok(match c.only()? {
        Some(Val::Int(i)) => Val::Int(i),
        Some(value) => to_real(value).map_or(Val::Error, |r| Val::Int(number::to_int(how(r)))),
        None => Val::Error,
    })
}

pub(super) fn pow<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if c.args.len() != 2 {
        return Ok(Val::Error);
    }
    let (base, exponent) = (c.arg(0)?, c.arg(1)?);
    if let (Val::Int(base), Val::Int(exponent @ 0..)) = (base, exponent) {
        // The library adds a half and cuts off, whatever the sign.
        return Ok(Val::Int(number::to_int(
            (base as f64).powf(exponent as f64) + 0.5,
        )));
    }
    Ok(match (to_real(base), to_real(exponent)) {
        (Some(base), Some(exponent)) => Val::Real(base.powf(exponent)),
        _ => Val::Error,
    })
}

/// The next multiple of a base, or the first element of a list that is not less.
pub(super) fn quantize<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if c.args.len() != 2 {
        return Ok(Val::Error);
    }
    let (value, mut base) = (c.arg(0)?, c.arg(1)?);
    let Some(real) = to_real(value) else {
        return Ok(Val::Error);
    };
    if let Some(items) = c.machine.items(base) {
        base = Val::Real(0.0);
        for index in 0..items.len() {
            base = c.machine.item(c.at, items, index, c.depth)?;
            match to_real(base) {
                Some(step) if step >= real => return Ok(base),
                Some(_) => {}
                None => return Ok(Val::Error),
            }
        }
    }
    let Some(step) = to_real(base) else {
        return Ok(Val::Error);
    };
    Ok(match (base, value) {
        (Val::Int(0), _) => value,
        (Val::Int(base), Val::Int(value)) => {
            let up = value.wrapping_add(base).wrapping_sub(1);
            Val::Int(up.wrapping_div(base).wrapping_mul(base))
        }
        (Val::Int(_), _) => Val::Real((real / step).ceil() * step),
        _ if (-1e-8..=1e-8).contains(&step) => value,
        _ => Val::Real((real / step).ceil() * step),
    })
}

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// A number from a generator that is good enough to spread jobs, and no better.
fn next_random() -> u64 {
    STATE.with(|state| {
        let mut x = state.get();
        if x == 0 {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |d| d.as_nanos() as u64);
            x = since ^ (state as *const Cell<u64> as u64) | 1;
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

pub(super) fn random<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let most = match c.args.len() {
        0 => Val::Real(1.0),
        1 => c.arg(0)?,
        _ => return Ok(Val::Error),
    };
    Ok(match most {
        Val::Int(most) if most as i32 > 0 => {
            Val::Int((next_random() >> 33) as i64 % i64::from(most as i32))
        }
        Val::Real(most) if most > 0.0 => {
            Val::Real(most * ((next_random() >> 11) as f64 / (1u64 << 53) as f64))
        }
        Val::Int(_) | Val::Real(_) => return Err(crate::eval::Stop),
        _ => Val::Error,
    })
}
