//! Evaluation.
use crate::ad::{ClassAd, Expr};
use crate::value::Value;

/// The ads that an expression is evaluated in.
pub struct Scope<'a> {
    my: &'a ClassAd,
    target: Option<&'a ClassAd>,
}

impl<'a> Scope<'a> {
    /// Expressions belong to `my`.
    pub fn new(my: &'a ClassAd) -> Scope<'a> {
        Scope { my, target: None }
    }

    /// Names that `my` lacks, and `TARGET`, are looked up in `target`.
    pub fn target(mut self, target: &'a ClassAd) -> Scope<'a> {
        self.target = Some(target);
        self
    }

    /// Evaluates an attribute of `my`.
    pub fn evaluate(&self, name: &str) -> Value {
        let _ = self.target;
        self.my
            .get(name)
            .and_then(|e| e.literal())
            .unwrap_or(Value::Undefined)
    }

    /// Evaluates an expression as if it were an attribute of `my`.
    pub fn evaluate_expr(&self, expr: &Expr) -> Value {
        expr.as_ref().literal().unwrap_or(Value::Undefined)
    }
}
