//! Tests of a value's type, and functions that hand values through.

use super::Call;
use crate::eval::{Ev, Val};

pub(super) fn test<'a>(c: &Call<'_, 'a>, is: fn(&Val<'a>) -> bool) -> Ev<'a> {
    Ok(c.only()?.map_or(Val::Error, |value| Val::Bool(is(&value))))
}

/// Evaluates only the branch that is taken.
pub(super) fn if_then_else<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    if c.args.len() != 3 {
        return Ok(Val::Error);
    }
    let test = c.arg(0)?;
    match crate::eval::ops::truth(test) {
        Some(true) => c.arg(1),
        Some(false) => c.arg(2),
        None if matches!(test, Val::Undefined) => Ok(Val::Undefined),
        None => Ok(Val::Error),
    }
}

pub(super) fn debug<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    Ok(c.only()?.unwrap_or(Val::Error))
}
