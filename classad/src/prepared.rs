//! Ads that are matched many times.
//!
//! The negotiator matches each job with thousands of slots, and each slot with thousands of jobs. What an ad's
//! `Requirements` need of the ad itself is always the same, so it is evaluated once: a slot's two hundred nodes in six
//! attributes become a dozen comparisons with attributes of the job.

use crate::ad::{ClassAd, Expr};
use crate::eval::{Depth, LEFT, Machine, Place, RIGHT, Val, ops};
use crate::name;

/// An ad that is matched against many others, with its `Requirements` and `Rank` evaluated as far as they can be.
///
/// ```
/// use classad::{ClassAd, Prepared, is_match};
///
/// let job = ClassAd::parse("[ RequestMemory = 512 * 2; Requirements = TARGET.Memory >= RequestMemory ]")?;
/// let slot = ClassAd::parse("[ Memory = 2048; Start = true; Requirements = START && TARGET.RequestMemory > 0 ]")?;
/// let (job, slot) = (Prepared::new(&job), Prepared::new(&slot));
/// assert!(job.is_match(&slot));
/// assert_eq!(job.is_match(&slot), is_match(job.ad(), slot.ad()));
/// # Ok::<(), classad::ParseError>(())
/// ```
pub struct Prepared<'a> {
    ad: &'a ClassAd,
    requirements: Option<Expr>,
    rank: Option<Expr>,
}

impl<'a> Prepared<'a> {
    /// Evaluates what does not depend on the other ad.
    pub fn new(ad: &'a ClassAd) -> Prepared<'a> {
        Prepared {
            ad,
            requirements: ad.prepare(name::REQUIREMENTS),
            rank: ad.prepare(name::RANK),
        }
    }

    /// The ad.
    pub fn ad(&self) -> &'a ClassAd {
        self.ad
    }

    /// What is left of `Requirements`, if that could be prepared.
    pub fn requirements(&self) -> Option<&Expr> {
        self.requirements.as_ref()
    }

    /// Whether the `Requirements` of both ads are true of each other, as [`is_match`](crate::is_match) tells.
    pub fn is_match(&self, other: &Prepared<'_>) -> bool {
        let machine = Machine::pair(self.ad, other.ad);
        let (left, right) = (self.requirements.as_ref(), other.requirements.as_ref());
        let right = evaluate(&machine, RIGHT, name::REQUIREMENTS, right);
        ops::admits(right) && ops::admits(evaluate(&machine, LEFT, name::REQUIREMENTS, left))
    }

    /// The `Rank` that this ad gives the other one, as [`rank`](crate::rank) tells.
    pub fn rank(&self, other: &Prepared<'_>) -> f64 {
        let machine = Machine::pair(self.ad, other.ad);
        match evaluate(&machine, LEFT, name::RANK, self.rank.as_ref()) {
            Val::Int(i) => i as f64,
            Val::Real(r) => r,
            Val::Bool(b) => f64::from(u8::from(b)),
            _ => 0.0,
        }
    }
}

fn evaluate<'m>(
    machine: &'m Machine<'m>,
    place: Place,
    key: u32,
    prepared: Option<&'m Expr>,
) -> Val<'m> {
    match prepared {
        Some(expr) => machine.evaluate_prepared(place, &expr.arena, expr.value),
        None => machine.evaluate_own(place, key, Depth::full().deeper()),
    }
}
