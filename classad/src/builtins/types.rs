//! Tests of a value's type, and functions that hand values through.

use super::Call;
use crate::eval::truth::Truth;
use crate::eval::{Ev, Stop, Val};

pub(super) fn test<'a>(c: &Call<'_, 'a>, is: fn(&Val<'a>) -> bool) -> Ev<'a> {
    Ok(c.only()?.map_or(Val::Error, |value| Val::Bool(is(&value))))
}

/// Evaluates only the branch that is taken.
pub(super) fn if_then_else<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if c.args.len() != 3 {
        return Ok(Val::Error);
    }
    match c.machine.truth(c.at, c.args[0], c.depth) {
        Truth::True => c.arg(1),
        Truth::False => c.arg(2),
        Truth::Undefined => Ok(Val::Undefined),
        Truth::Error | Truth::Other => Ok(Val::Error),
        Truth::Stop => Err(Stop),
    }
}

pub(super) fn debug<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(c.only()?.unwrap_or(Val::Error))
}
