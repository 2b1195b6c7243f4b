//! Matching two ads, as the negotiator and the daemons do it.

use crate::ad::ClassAd;
use crate::eval::{Depth, LEFT, Machine, RIGHT, Val, ops};
use crate::name::{self, Name};
use crate::value::Value;

/// What two ads say of each other.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchResult {
    /// Both `Requirements` are true, or numbers or relative times other than zero.
    pub symmetric: bool,
    /// What the left ad's `Requirements` say of the right ad.
    pub left_requirements: Value,
    /// What the right ad's `Requirements` say of the left ad.
    pub right_requirements: Value,
    /// The left ad's `Rank` of the right ad.
    pub left_rank: Value,
    /// The right ad's `Rank` of the left ad.
    pub right_rank: Value,
}

/// Evaluates `Requirements` and `Rank` of both ads.
///
/// ```
/// use classad::{ClassAd, matches};
///
/// let job = ClassAd::parse("[ Requirements = TARGET.Memory >= 512; Rank = TARGET.Memory; Owner = \"jane\" ]")?;
/// let slot = ClassAd::parse("[ Requirements = TARGET.Owner != \"bob\"; Memory = 1024 ]")?;
/// let result = matches(&job, &slot);
/// assert!(result.symmetric);
/// assert_eq!(result.left_rank, 1024.into());
/// # Ok::<(), classad::ParseError>(())
/// ```
pub fn matches(left: &ClassAd, right: &ClassAd) -> MatchResult {
    let evaluate = |place, key| {
        let machine = Machine::pair(left, right);
        let ad = if place == LEFT { left } else { right };
        // A name that the ad lacks must not be looked up in the other one.
        if ad.get_key(key).is_none() {
            return Value::Undefined;
        }
        let value = machine.evaluate_name(place, Name::from_key(key));
        machine.exported(value)
    };
    let left_requirements = evaluate(LEFT, name::REQUIREMENTS);
    let right_requirements = evaluate(RIGHT, name::REQUIREMENTS);
    let admits = |value: &Value| match value {
        Value::RelTime(seconds) => *seconds != 0.0,
        other => other.truth() == Some(true),
    };
    MatchResult {
        symmetric: admits(&left_requirements) && admits(&right_requirements),
        left_requirements,
        right_requirements,
        left_rank: evaluate(LEFT, name::RANK),
        right_rank: evaluate(RIGHT, name::RANK),
    }
}

/// Whether the `Requirements` of both ads are true of each other: what [`matches()`] says, at the least cost.
pub fn is_match(left: &ClassAd, right: &ClassAd) -> bool {
    let machine = Machine::pair(left, right);
    // As in the library's match ad, these are two levels deep, and the right ad is asked first.
    let depth = Depth::full().deeper();
    let holds = |place| ops::admits(machine.evaluate_own(place, name::REQUIREMENTS, depth));
    holds(RIGHT) && holds(LEFT)
}

/// The `Rank` that the left ad gives the right one; whatever is not a number counts as zero.
pub fn rank(left: &ClassAd, right: &ClassAd) -> f64 {
    let machine = Machine::pair(left, right);
    match machine.evaluate_own(LEFT, name::RANK, Depth::full()) {
        Val::Int(i) => i as f64,
        Val::Real(r) => r,
        Val::Bool(b) => f64::from(u8::from(b)),
        _ => 0.0,
    }
}
