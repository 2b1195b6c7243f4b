//! Matching two ads.
use crate::ad::ClassAd;
use crate::eval::Scope;
use crate::value::Value;

/// What two ads say of each other.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchResult {
    /// Both `Requirements` are true, or numbers other than zero.
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
pub fn matches(left: &ClassAd, right: &ClassAd) -> MatchResult {
    let l = Scope::new(left).target(right);
    let r = Scope::new(right).target(left);
    let (left_requirements, right_requirements) =
        (l.evaluate("Requirements"), r.evaluate("Requirements"));
    MatchResult {
        symmetric: left_requirements.truth() == Some(true)
            && right_requirements.truth() == Some(true),
        left_requirements,
        right_requirements,
        left_rank: l.evaluate("Rank"),
        right_rank: r.evaluate("Rank"),
    }
}
