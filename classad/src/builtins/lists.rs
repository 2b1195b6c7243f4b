//! Functions on lists. Their elements are evaluated in the place of the call, whoever wrote the list.

use super::Call;
use crate::eval::{Ev, Items, Stop, Val, ops};
use crate::tree::Op;

impl<'a> Call<'_, 'a> {
    fn item(&self, items: Items<'a>, index: usize) -> Ev<'a> {
        self.machine.item(self.at, items, index, self.depth)
    }

    /// The only argument as a list; `Err` is the value of the call.
    fn only_list(&self) -> Result<Result<Items<'a>, Val<'a>>, Stop> {
        Ok(match self.only()? {
            Some(Val::Undefined) => Err(Val::Undefined),
            Some(value) => self.machine.items(value).ok_or(Val::Error),
            None => Err(Val::Error),
        })
    }
}

fn is_number(value: Val<'_>) -> bool {
    ops::truth(value).is_some()
}

pub(super) fn member<'a>(c: &Call<'_, 'a>, identical: bool) -> Ev<'a> {
    if c.args.len() != 2 {
        return Ok(Val::Error);
    }
    let (wanted, list) = (c.arg(0)?, c.arg(1)?);
    if matches!(list, Val::Undefined) || (!identical && matches!(wanted, Val::Undefined)) {
        return Ok(Val::Undefined);
    }
    let Some(items) = c.machine.items(list) else {
        return Ok(Val::Error);
    };
    if matches!(
        wanted,
        Val::List(..) | Val::Made(_) | Val::Shared(_) | Val::Ad(_)
    ) || (!identical && matches!(wanted, Val::Error))
    {
        return Ok(Val::Error);
    }
    let op = if identical { Op::Is } else { Op::Eq };
    for index in 0..items.len() {
        let item = c.item(items, index)?;
        if let (Val::Str(l), Val::Str(r)) = (item, wanted) {
            c.machine.charge_bytes(l.len().min(r.len()))?;
        }
        if let Val::Bool(true) = ops::binary(op, item, wanted) {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}

pub(super) fn size<'a>(c: &Call<'_, 'a>) -> Ev<'a> {
    let Some(value) = c.only()? else {
        return Ok(Val::Error);
    };
    Ok(match value {
        Val::Undefined => Val::Undefined,
        Val::Str(text) => Val::Int(text.len() as i64),
        Val::Ad(place) => Val::Int(c.machine.unit(place.unit).arena.table(place.ad).len() as i64),
        _ => c
            .machine
            .items(value)
            .map_or(Val::Error, |items| Val::Int(items.len() as i64)),
    })
}

pub(super) fn sum<'a>(c: &Call<'_, 'a>, average: bool) -> Ev<'a> {
    let items = match c.only_list()? {
        Ok(items) => items,
        Err(value) => return Ok(value),
    };
    let mut sum = None;
    let mut count = 0;
    for index in 0..items.len() {
        let item = c.item(items, index)?;
        if matches!(item, Val::Undefined) {
            continue;
        }
        if !is_number(item) {
            return Ok(Val::Error);
        }
        count += 1;
        sum = Some(sum.map_or(item, |sum| ops::binary(Op::Add, sum, item)));
    }
    Ok(match sum {
        Some(sum) if average => ops::binary(Op::Div, sum, Val::Real(f64::from(count))),
        Some(sum) => sum,
        None => Val::Int(0),
    })
}

/// `min` and `max`: the first element that no other one is less, or greater, than.
pub(super) fn extreme<'a>(c: &Call<'_, 'a>, op: Op) -> Ev<'a> {
    let items = match c.only_list()? {
        Ok(items) => items,
        Err(value) => return Ok(value),
    };
    let mut best = Val::Undefined;
    for index in 0..items.len() {
        let mut item = c.item(items, index)?;
        if matches!(item, Val::Undefined) {
            continue;
        }
        if !is_number(item) {
            return Ok(Val::Error);
        }
        if !matches!(best, Val::Undefined) {
            // Both numbers keep the type that they were compared in.
            (item, best) = promoted(item, best);
        }
        if matches!(best, Val::Undefined) || matches!(ops::binary(op, item, best), Val::Bool(true))
        {
            best = item;
        }
    }
    Ok(best)
}

/// What a comparison leaves of two numbers: booleans become integers, and beside a real all become real.
fn promoted<'a>(l: Val<'a>, r: Val<'a>) -> (Val<'a>, Val<'a>) {
    let whole = |value| {
        if let Val::Bool(b) = value {
            Val::Int(i64::from(b))
        } else {
            value
        }
    };
    match (whole(l), whole(r)) {
        (Val::Int(l), r @ Val::Real(_)) => (Val::Real(l as f64), r),
        (l @ Val::Real(_), Val::Int(r)) => (l, Val::Real(r as f64)),
        both => both,
    }
}

pub(super) fn compare<'a>(c: &Call<'_, 'a>, all: bool) -> Ev<'a> {
    if c.args.len() != 3 {
        return Ok(Val::Error);
    }
    let op = match c.arg(0)? {
        Val::Undefined => return Ok(Val::Undefined),
        Val::Str(b"<") => Op::Lt,
        Val::Str(b"<=") => Op::Le,
        Val::Str(b"!=") => Op::Ne,
        Val::Str(b"==") => Op::Eq,
        Val::Str(b">") => Op::Gt,
        Val::Str(b">=") => Op::Ge,
        Val::Str(b"is") => Op::Is,
        Val::Str(b"isnt") => Op::Isnt,
        _ => return Ok(Val::Error),
    };
    let list = c.arg(1)?;
    if matches!(list, Val::Undefined) {
        return Ok(Val::Undefined);
    }
    let Some(items) = c.machine.items(list) else {
        return Ok(Val::Error);
    };
    let wanted = c.arg(2)?;
    for index in 0..items.len() {
        let item = c.item(items, index)?;
        if let (Val::Str(l), Val::Str(r)) = (item, wanted) {
            c.machine.charge_bytes(l.len().min(r.len()))?;
        }
        match ops::binary(op, item, wanted) {
            Val::Bool(holds) if holds != all => return Ok(Val::Bool(holds)),
            Val::Bool(_) => {}
            // An undefined comparison ends the search without success.
            Val::Undefined => return Ok(Val::Bool(false)),
            _ => return Ok(Val::Error),
        }
    }
    Ok(Val::Bool(all))
}
