//! Ads and expressions.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::eval::Scope;
use crate::name::Name;
use crate::parse::{self, ParseError};
use crate::tree::{Arena, Node, Table, tag};
use crate::unparse::{self, Syntax};
use crate::value::Value;

/// Values that are nested deeper than this become `error` when they are made into an expression.
const MAX_VALUE_DEPTH: u32 = 200;

/// A set of attributes, each an expression.
///
/// Attributes are found regardless of case and keep the case in which they were first written.
///
/// ```
/// use classad::{ClassAd, Value};
///
/// let slot = ClassAd::parse_old("Memory = 4096\nStart = TARGET.RequestMemory <= Memory\n")?;
/// assert_eq!(slot.eval_int("memory"), Some(4096));
///
/// let mut job = ClassAd::parse("[ RequestMemory = 512 * 4; Requirements = TARGET.HasFile ]")?;
/// job.insert("Owner", "jane");
/// assert_eq!(job.evaluate("RequestMemory"), Value::Int(2048));
/// assert_eq!(job.evaluate("NoSuchThing"), Value::Undefined);
/// # Ok::<(), classad::ParseError>(())
/// ```
#[derive(Clone, Default)]
pub struct ClassAd {
    pub(crate) arena: Arena,
    parent: Option<Arc<ClassAd>>,
    /// Roughly how many attributes' worth of memory replaced values still hold.
    wasted: usize,
}

impl ClassAd {
    /// An ad without attributes.
    pub fn new() -> ClassAd {
        ClassAd::default()
    }

    /// Parses the new syntax, `[ name = expr; … ]`.
    pub fn parse(text: &str) -> Result<ClassAd, ParseError> {
        ClassAd::parse_bytes(text.as_bytes())
    }

    /// Like [`ClassAd::parse`], for text that need not be UTF-8.
    pub fn parse_bytes(text: &[u8]) -> Result<ClassAd, ParseError> {
        parse::new_ad(text).map(ClassAd::from_arena)
    }

    /// Parses ads of the new syntax that follow one another, as HTCondor and its file-transfer plugins exchange them.
    ///
    /// ```
    /// let ads = classad::ClassAd::parse_all(b"[ Url = \"a://b\" ]\n[ Url = \"a://c\"; ]\n")?;
    /// assert_eq!(ads[1].eval_str("url").as_deref(), Some("a://c"));
    /// # Ok::<(), classad::ParseError>(())
    /// ```
    pub fn parse_all(text: &[u8]) -> Result<Vec<ClassAd>, ParseError> {
        let ads = parse::new_ads(text)?.into_iter();
        Ok(ads.map(ClassAd::from_arena).collect())
    }

    /// Parses the old syntax, one `Name = expr` per line, as `condor_q -l` prints it.
    pub fn parse_old(text: &str) -> Result<ClassAd, ParseError> {
        ClassAd::parse_old_bytes(text.as_bytes())
    }

    /// Like [`ClassAd::parse_old`], for text that need not be UTF-8.
    pub fn parse_old_bytes(text: &[u8]) -> Result<ClassAd, ParseError> {
        parse::old_ad(text).map(ClassAd::from_arena)
    }

    pub(crate) fn from_arena(arena: Arena) -> ClassAd {
        ClassAd {
            arena,
            parent: None,
            wasted: 0,
        }
    }

    /// How many attributes the ad itself has.
    pub fn len(&self) -> usize {
        self.arena.root.len()
    }

    /// Whether the ad itself has no attributes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The expression of an attribute, of this ad or of the one it is chained to.
    pub fn get(&self, name: &str) -> Option<ExprRef<'_>> {
        self.get_key(Name::known(name.as_bytes())?.key())
    }

    pub(crate) fn get_key(&self, key: u32) -> Option<ExprRef<'_>> {
        let mut ad = self;
        loop {
            if let Some(value) = ad.arena.root.get(key) {
                return Some(ExprRef {
                    arena: &ad.arena,
                    value,
                });
            }
            ad = ad.parent.as_deref()?;
        }
    }

    /// Whether the ad, or one it is chained to, has the attribute.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets an attribute, to a value or to an expression.
    pub fn insert(&mut self, name: &str, value: impl Into<Expr>) {
        let Expr { arena, value } = value.into();
        self.insert_from(Name::new(name.as_bytes()), &arena, value);
    }

    pub(crate) fn insert_from(&mut self, name: Name, from: &Arena, value: Node) {
        let value = self.arena.copy_value(from, value, 0);
        if let Some(old) = self.arena.root.insert(name, value) {
            self.waste(old);
        }
    }

    /// Parses an expression of the new syntax and sets an attribute to it.
    pub fn insert_parsed(&mut self, name: &str, text: &str) -> Result<(), ParseError> {
        self.insert(name, Expr::parse(text)?);
        Ok(())
    }

    /// Takes an attribute out; false if the ad itself does not have it.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(name) = Name::known(name.as_bytes()) else {
            return false;
        };
        let Some(old) = self.arena.root.remove(name.key()) else {
            return false;
        };
        self.waste(old);
        true
    }

    /// Sets all attributes of another ad in this one.
    pub fn update(&mut self, other: &ClassAd) {
        let table = &other.arena.root;
        for (&raw, &value) in table.names().iter().zip(&table.values) {
            self.insert_from(Name::from_raw(raw), &other.arena, value);
        }
    }

    /// Replaced values stay in the arena until they are as much as what lives.
    fn waste(&mut self, old: Node) {
        self.wasted += match old.tag() {
            tag::LINK => 4,
            tag::STR => 1 + old.low() as usize / 64,
            _ => 0,
        };
        if self.wasted > 64 + 2 * self.len() {
            let mut fresh = Arena::default();
            let table = &self.arena.root;
            let values: Vec<Node> = table
                .values
                .iter()
                .map(|&value| fresh.copy_value(&self.arena, value, 0))
                .collect();
            fresh.root = table.with_values(0, values);
            self.arena = fresh;
            self.wasted = 0;
        }
    }

    /// Attributes that this ad lacks are looked up in `parent` from now on, as a job's are in its cluster's ad.
    pub fn chain(&mut self, parent: Arc<ClassAd>) {
        self.parent = Some(parent);
    }

    /// Undoes [`ClassAd::chain`].
    pub fn unchain(&mut self) -> Option<Arc<ClassAd>> {
        self.parent.take()
    }

    /// The ad that this one is chained to.
    pub fn chained_parent(&self) -> Option<&ClassAd> {
        self.parent.as_deref()
    }

    /// The attributes of the ad itself, in the order in which they are printed.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'static, str>, ExprRef<'_>)> {
        self.arena.root.in_order().map(|(attribute, value)| {
            let expr = ExprRef {
                arena: &self.arena,
                value,
            };
            (String::from_utf8_lossy(attribute.name), expr)
        })
    }

    /// Evaluates an attribute; a missing one is undefined.
    pub fn evaluate(&self, name: &str) -> Value {
        Scope::new(self).evaluate(name)
    }

    /// Evaluates an expression as if it were an attribute of this ad.
    pub fn evaluate_expr(&self, expr: &Expr) -> Value {
        Scope::new(self).evaluate_expr(expr)
    }

    /// The value of an attribute that evaluates to an integer.
    pub fn eval_int(&self, name: &str) -> Option<i64> {
        self.evaluate(name).as_int()
    }

    /// The value of an attribute that evaluates to a number.
    pub fn eval_real(&self, name: &str) -> Option<f64> {
        self.evaluate(name).as_real()
    }

    /// The value of an attribute that evaluates to a boolean.
    pub fn eval_bool(&self, name: &str) -> Option<bool> {
        self.evaluate(name).as_bool()
    }

    /// The value of an attribute that evaluates to a string; what is not UTF-8 in it is replaced.
    pub fn eval_str(&self, name: &str) -> Option<String> {
        match self.evaluate(name) {
            Value::Str(text) => Some(text.into_string()),
            _ => None,
        }
    }

    /// The ad in the old syntax, one attribute per line.
    pub fn to_old(&self) -> String {
        bytes_to_string(self.to_old_bytes())
    }

    /// The ad in the old syntax as bytes: strings need not be UTF-8.
    pub fn to_old_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        unparse::old_ad(&mut out, &self.arena);
        out
    }

    /// The ad in the new syntax with a line for each attribute.
    pub fn to_pretty(&self) -> String {
        let mut out = Vec::new();
        unparse::ad(&mut out, &self.arena, 0, Syntax::Pretty);
        bytes_to_string(out)
    }
}

pub(crate) fn bytes_to_string(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

impl PartialEq for ClassAd {
    /// Whether both ads have the same attributes with the same expressions. Chained ads are not looked at.
    fn eq(&self, other: &ClassAd) -> bool {
        let (a, b) = (&self.arena.root, &other.arena.root);
        a.same_names(b)
            && a.values
                .iter()
                .zip(&b.values)
                .all(|(&a, &b)| self.arena.same(a, &other.arena, b))
    }
}

impl fmt::Display for ClassAd {
    /// The new syntax on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        unparse::ad(&mut out, &self.arena, 0, Syntax::New);
        f.write_str(&bytes_to_string(out))
    }
}

impl fmt::Debug for ClassAd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K: AsRef<str>, V: Into<Expr>> FromIterator<(K, V)> for ClassAd {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(attributes: I) -> ClassAd {
        let mut ad = ClassAd::new();
        for (name, value) in attributes {
            ad.insert(name.as_ref(), value);
        }
        ad
    }
}

/// An expression by itself.
///
/// ```
/// use classad::{ClassAd, Expr};
///
/// let expr = Expr::parse("Cpus * 2 + 8")?;
/// let ad = ClassAd::parse("[ Cpus = 4 ]")?;
/// assert_eq!(ad.evaluate_expr(&expr), 16.into());
/// assert_eq!(expr.to_string(), "Cpus * 2 + 8");
/// # Ok::<(), classad::ParseError>(())
/// ```
#[derive(Clone)]
pub struct Expr {
    pub(crate) arena: Arena,
    pub(crate) value: Node,
}

impl Expr {
    /// Parses an expression of the new syntax.
    pub fn parse(text: &str) -> Result<Expr, ParseError> {
        Expr::parse_bytes(text.as_bytes())
    }

    /// Like [`Expr::parse`], for text that need not be UTF-8.
    pub fn parse_bytes(text: &[u8]) -> Result<Expr, ParseError> {
        parse::expression(text, false).map(|(arena, value)| Expr { arena, value })
    }

    /// Parses the right-hand side of a line of the old syntax: in strings, only `\"` is an escape.
    pub fn parse_old(text: &str) -> Result<Expr, ParseError> {
        Expr::parse_old_bytes(text.as_bytes())
    }

    /// Like [`Expr::parse_old`], for text that need not be UTF-8.
    pub fn parse_old_bytes(text: &[u8]) -> Result<Expr, ParseError> {
        parse::expression(text, true).map(|(arena, value)| Expr { arena, value })
    }

    /// The same without ownership.
    pub fn as_ref(&self) -> ExprRef<'_> {
        ExprRef {
            arena: &self.arena,
            value: self.value,
        }
    }

    /// The expression in the old syntax, as it would stand in a line `Name = expr`.
    pub fn to_old(&self) -> String {
        self.as_ref().to_old()
    }

    /// Like [`Expr::to_old`], as bytes: strings need not be UTF-8.
    pub fn to_old_bytes(&self) -> Vec<u8> {
        self.as_ref().print_bytes(Syntax::Old)
    }

    /// The expression with a line for each element of lists and ads.
    pub fn to_pretty(&self) -> String {
        self.as_ref().print(Syntax::Pretty)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.arena.same(self.value, &other.arena, other.value)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_ref(), f)
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: Into<Value>> From<T> for Expr {
    fn from(value: T) -> Expr {
        let mut arena = Arena::default();
        let value = literal(&mut arena, &value.into());
        Expr { arena, value }
    }
}

impl From<ExprRef<'_>> for Expr {
    fn from(expr: ExprRef<'_>) -> Expr {
        expr.to_expr()
    }
}

/// The value as that of an attribute.
pub(crate) fn literal(arena: &mut Arena, value: &Value) -> Node {
    let start = arena.nodes.len();
    push_value(arena, value, 0);
    arena.attribute_value(start)
}

pub(crate) fn push_value(arena: &mut Arena, value: &Value, depth: u32) {
    let node = match value {
        Value::Undefined => Node::UNDEFINED,
        Value::Error => Node::ERROR,
        Value::Bool(b) => Node::bool(*b),
        Value::Int(i) => arena.make_int(*i),
        Value::Real(r) => arena.make_real(*r),
        Value::Str(text) => arena.make_str(text.as_bytes()),
        Value::AbsTime(time) => arena.make_abs_time(*time),
        Value::RelTime(secs) => arena.make_rel_time(*secs),
        _ if depth > MAX_VALUE_DEPTH => Node::ERROR,
        Value::List(items) => {
            let mut kids = Vec::with_capacity(items.len());
            for item in items {
                push_value(arena, item, depth + 1);
                kids.push((arena.nodes.len() - 1) as u32);
            }
            arena.make_list(0, &kids)
        }
        Value::Ad(ad) => {
            arena.nested.push(Table::default());
            let id = arena.nested.len() as u32;
            let from = &ad.arena;
            let values = from
                .root
                .values
                .iter()
                .map(|&value| arena.copy_value(from, value, id))
                .collect();
            arena.nested[id as usize - 1] = from.root.with_values(0, values);
            Node::new(tag::AD, 0, id)
        }
    };
    arena.push(node);
}

/// An expression inside an ad.
#[derive(Clone, Copy)]
pub struct ExprRef<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) value: Node,
}

impl ExprRef<'_> {
    /// A copy that stands by itself.
    pub fn to_expr(self) -> Expr {
        let mut arena = Arena::default();
        let value = arena.copy_value(self.arena, self.value, 0);
        Expr { arena, value }
    }

    /// The value, if the expression is a literal that says it all.
    pub fn literal(self) -> Option<Value> {
        let (arena, node) = (self.arena, self.value);
        Some(match node.tag() {
            tag::UNDEFINED => Value::Undefined,
            tag::ERROR => Value::Error,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::SMALL | tag::WIDE => Value::Int(arena.int(node)),
            tag::REAL => Value::Real(arena.real(node)),
            tag::STR => Value::Str(arena.str(node).into()),
            tag::ABSTIME => Value::AbsTime(arena.abs_time(node)),
            tag::RELTIME => Value::RelTime(arena.real(node)),
            _ => return None,
        })
    }

    /// The expression in the old syntax, as it would stand in a line `Name = expr`.
    pub fn to_old(self) -> String {
        self.print(Syntax::Old)
    }

    fn print(self, syntax: Syntax) -> String {
        bytes_to_string(self.print_bytes(syntax))
    }

    pub(crate) fn print_bytes(self, syntax: Syntax) -> Vec<u8> {
        let mut out = Vec::new();
        unparse::value(&mut out, self.arena, self.value, syntax);
        out
    }
}

impl PartialEq for ExprRef<'_> {
    fn eq(&self, other: &ExprRef<'_>) -> bool {
        self.arena.same(self.value, other.arena, other.value)
    }
}

impl fmt::Display for ExprRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.print(Syntax::New))
    }
}

impl fmt::Debug for ExprRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
