//! Evaluation as the users of the library see it.

use super::{LEFT, Machine};
use crate::ad::{ClassAd, Expr};
use crate::name::Name;
use crate::value::Value;

/// The ads that an expression is evaluated in: `MY`, and in a match `TARGET`.
///
/// ```
/// use classad::{ClassAd, Expr, Scope, Value};
///
/// let slot = ClassAd::parse("[ Memory = 2048; Start = TARGET.RequestMemory <= MY.Memory && Owner != \"bob\" ]")?;
/// let job = ClassAd::parse("[ RequestMemory = 1024; Owner = \"jane\" ]")?;
/// let scope = Scope::new(&slot).target(&job);
/// assert_eq!(scope.evaluate("Start"), Value::Bool(true));
/// assert_eq!(scope.evaluate_expr(&Expr::parse("Memory - RequestMemory")?), Value::Int(1024));
/// # Ok::<(), classad::ParseError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    my: &'a ClassAd,
    target: Option<&'a ClassAd>,
}

impl<'a> Scope<'a> {
    /// Expressions belong to `my`.
    pub fn new(my: &'a ClassAd) -> Scope<'a> {
        Scope { my, target: None }
    }

    /// `TARGET` is this ad, and names that `my` lacks are looked up in it.
    pub fn target(mut self, target: &'a ClassAd) -> Scope<'a> {
        self.target = Some(target);
        self
    }

    fn machine(&self) -> Machine<'a> {
        match self.target {
            Some(target) => Machine::pair(self.my, target),
            None => Machine::single(self.my),
        }
    }

    /// Evaluates an attribute of `my`; a missing one is undefined.
    pub fn evaluate(&self, name: &str) -> Value {
        let Some(expr) = self.my.get(name) else {
            return Value::Undefined;
        };
        if let Some(value) = expr
            .literal()
            .filter(|value| !matches!(value, Value::RelTime(_)))
        {
            return value;
        }
        let machine = self.machine();
        let value = machine.evaluate_name(LEFT, Name::new(name.as_bytes()));
        machine.exported(value)
    }

    /// Evaluates an expression as if it were an attribute of `my`.
    pub fn evaluate_expr(&self, expr: &Expr) -> Value {
        let machine = self.machine();
        let value = machine.evaluate_expr(LEFT, &expr.arena, expr.value);
        machine.exported(value)
    }
}
