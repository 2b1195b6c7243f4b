//! Partial evaluation.

use crate::ad::{ClassAd, Expr};
use crate::value::Value;

/// What is left of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Flat {
    /// Nothing but a value.
    Value(Value),
    /// An expression that needs more than the ad has.
    Expr(Expr),
}

impl ClassAd {
    /// Evaluates as much of an expression as the ad's attributes allow.
    pub fn flatten(&self, expr: &Expr) -> Flat {
        Flat::Expr(expr.clone())
    }
}
