//! Why ads do not match.
//!
//! `Requirements` are a conjunction, mostly; its clauses are looked at one by one, also those that are only named there
//! (`START`, `WithinResourceLimits`). For one pair of ads that tells which clauses failed and what they saw; for a set of
//! slots, how many each clause costs. What `condor_q -better-analyze` estimates from the text is evaluated here.

use std::fmt;

use crate::ad::{ClassAd, Expr, bytes_to_string};
use crate::eval::{Depth, LEFT, Machine, ops};
use crate::matching::is_match;
use crate::name::{self, Name};
use crate::tree::{Arena, Node, NodeId, Op, tag};
use crate::unparse::{self, Syntax};
use crate::value::Value;

/// Names that are followed from clause to clause.
const MAX_FOLLOWED: usize = 8;
/// Values that are told per clause.
const MAX_SEEN: usize = 16;

/// Which of the two ads a clause belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first ad.
    Left,
    /// The second ad.
    Right,
}

/// A clause of `Requirements` that is not true.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Whose `Requirements` it is a part of.
    pub side: Side,
    /// The attributes that lead to the clause, from `Requirements` on.
    pub path: Vec<String>,
    /// The clause as it is written.
    pub clause: String,
    /// What it evaluated to.
    pub value: Value,
    /// The names in the clause and what they stood for.
    pub seen: Vec<(String, Value)>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is {}",
            self.path.join(" > "),
            self.clause,
            self.value
        )?;
        for (i, (name, value)) in self.seen.iter().enumerate() {
            write!(
                f,
                "{} {name} = {value}",
                if i == 0 { ", where" } else { "," }
            )?;
        }
        Ok(())
    }
}

/// A clause of an ad's `Requirements` and what it costs among a set of other ads.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// The attributes that lead to the clause, from `Requirements` on.
    pub path: Vec<String>,
    /// The clause as it is written.
    pub clause: String,
    /// How many of the other ads it is true for.
    pub passes: usize,
    /// How many of the other ads fail because of this clause alone.
    pub only: usize,
    /// How many are left when all clauses up to this one are applied in turn.
    pub left: usize,
}

/// What stands between an ad and a set of others.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// How many ads were looked at.
    pub total: usize,
    /// How many of them match.
    pub matching: usize,
    /// How many the ad's own `Requirements` accept.
    pub accepted: usize,
    /// How many of those that are accepted refuse the ad.
    pub refused: usize,
    /// The ad's own clauses, in the order in which they are evaluated.
    pub clauses: Vec<Clause>,
}

/// A clause: the expression of `arena` that ends at `node`, or a literal.
struct Part<'a> {
    path: Vec<String>,
    arena: &'a Arena,
    value: Node,
}

/// The clauses of an attribute. Conjunctions are taken apart, parentheses are looked into, and names of attributes of the
/// ad that are expressions themselves are followed.
fn parts(ad: &ClassAd, key: u32) -> Vec<Part<'_>> {
    let mut all = Vec::new();
    let Some(expr) = ad.get_key(key) else {
        return all;
    };
    let path = vec![bytes_to_string(Name::from_key(key).text().to_vec())];
    let mut todo = vec![(path, expr.arena, expr.value)];
    while let Some((path, arena, value)) = todo.pop() {
        let node = if value.tag() == tag::LINK {
            arena.node(value.high())
        } else {
            value
        };
        let link = |id: NodeId| Node::new(tag::LINK, 0, id);
        match node.tag() {
            tag::BINARY if node.op() == Op::And => {
                todo.push((path.clone(), arena, link(value.high() - 1)));
                todo.push((path, arena, link(node.high())));
                continue;
            }
            tag::UNARY if node.op() == Op::Parens => {
                todo.push((path, arena, link(value.high() - 1)));
                continue;
            }
            tag::ATTR if path.len() < MAX_FOLLOWED => {
                let inner = ad
                    .get_key(node.name().key())
                    .filter(|inner| inner.value.tag() == tag::LINK);
                let name = bytes_to_string(node.name().text().to_vec());
                if let Some(inner) =
                    inner.filter(|_| !path.iter().any(|p| p.eq_ignore_ascii_case(&name)))
                {
                    let path = path.into_iter().chain([name]).collect();
                    todo.push((path, inner.arena, inner.value));
                    continue;
                }
            }
            _ => {}
        }
        all.push(Part { path, arena, value });
    }
    all
}

impl Part<'_> {
    fn text(&self) -> String {
        let mut out = Vec::new();
        unparse::value(&mut out, self.arena, self.value, Syntax::Old);
        bytes_to_string(out)
    }

    fn evaluate(&self, ad: &ClassAd, other: &ClassAd) -> Value {
        let machine = Machine::pair(ad, other);
        machine.exported(machine.evaluate_prepared(LEFT, self.arena, self.value))
    }

    fn holds(&self, ad: &ClassAd, other: &ClassAd) -> bool {
        let machine = Machine::pair(ad, other);
        ops::truth(machine.evaluate_prepared(LEFT, self.arena, self.value)) == Some(true)
    }

    /// The names in the clause, with what they stand for.
    fn seen(&self, ad: &ClassAd, other: &ClassAd) -> Vec<(String, Value)> {
        let mut seen: Vec<(String, Value)> = Vec::new();
        if self.value.tag() != tag::LINK {
            return seen;
        }
        let mut expr = Expr {
            arena: Arena::default(),
            value: Node::UNDEFINED,
        };
        expr.arena.copy_run(self.arena, self.value.high(), 0);
        for id in 0..expr.arena.nodes.len() as u32 {
            let node = expr.arena.node(id);
            let selected = expr
                .arena
                .nodes
                .get(id as usize + 1)
                .is_some_and(|next| next.tag() == tag::SELECT);
            if !matches!(node.tag(), tag::ATTR | tag::SELECT) || selected || seen.len() >= MAX_SEEN
            {
                continue;
            }
            let link = Node::new(tag::LINK, 0, id);
            let mut text = Vec::new();
            unparse::value(&mut text, &expr.arena, link, Syntax::Old);
            let text = bytes_to_string(text);
            if seen
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case(&text))
            {
                continue;
            }
            let machine = Machine::pair(ad, other);
            let value = machine.exported(machine.evaluate_expr(LEFT, &expr.arena, link));
            seen.push((text, value));
        }
        seen
    }
}

/// Why two ads do not match: the clauses that are not true, of the left ad first. None if they match.
///
/// ```
/// use classad::{ClassAd, explain};
///
/// let job = ClassAd::parse("[ RequestMemory = 4096; Requirements = TARGET.HasFile && TARGET.Memory >= RequestMemory ]")?;
/// let slot = ClassAd::parse("[ HasFile = true; Memory = 1024; Requirements = true ]")?;
/// let failures = explain(&job, &slot);
/// assert_eq!(
///     failures[0].to_string(),
///     "Requirements: TARGET.Memory >= RequestMemory is false, where TARGET.Memory = 1024, RequestMemory = 4096"
/// );
/// # Ok::<(), classad::ParseError>(())
/// ```
pub fn explain(left: &ClassAd, right: &ClassAd) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (side, ad, other) in [(Side::Left, left, right), (Side::Right, right, left)] {
        if accepts(ad, other) {
            continue;
        }
        let parts = parts(ad, name::REQUIREMENTS);
        let before = failures.len();
        for part in &parts {
            let value = part.evaluate(ad, other);
            if value.truth() != Some(true) {
                let (path, clause, seen) = (part.path.clone(), part.text(), part.seen(ad, other));
                failures.push(Failure {
                    side,
                    path,
                    clause,
                    value,
                    seen,
                });
            }
        }
        if failures.len() == before {
            // There are no Requirements, or they are true only piece by piece.
            let machine = Machine::pair(ad, other);
            let value =
                machine.exported(machine.evaluate_own(LEFT, name::REQUIREMENTS, Depth::full()));
            let name = "Requirements".to_owned();
            failures.push(Failure {
                side,
                path: vec![name.clone()],
                clause: name,
                value,
                seen: Vec::new(),
            });
        }
    }
    failures
}

/// Whether an ad's own `Requirements` are true of another ad.
fn accepts(ad: &ClassAd, other: &ClassAd) -> bool {
    let machine = Machine::pair(ad, other);
    ops::admits(machine.evaluate_own(LEFT, name::REQUIREMENTS, Depth::full().deeper()))
}

/// How many of a set of ads each clause of an ad's `Requirements` costs.
///
/// ```
/// use classad::{ClassAd, analyze};
///
/// let job = ClassAd::parse("[ Requirements = TARGET.Memory >= 1000 && TARGET.HasFile ]")?;
/// let slots: Vec<ClassAd> = ["[ Memory = 512; HasFile = true ]", "[ Memory = 2048 ]", "[ Memory = 4096 ]"]
///     .iter()
///     .map(|text| ClassAd::parse(text))
///     .collect::<Result<_, _>>()?;
/// let analysis = analyze(&job, &slots);
/// assert_eq!(analysis.accepted, 0);
/// assert_eq!(analysis.clauses[0].passes, 2);
/// assert_eq!(analysis.clauses[1].only, 2);
/// # Ok::<(), classad::ParseError>(())
/// ```
pub fn analyze<'s>(ad: &ClassAd, others: impl IntoIterator<Item = &'s ClassAd>) -> Analysis {
    let parts = parts(ad, name::REQUIREMENTS);
    let mut analysis = Analysis {
        total: 0,
        matching: 0,
        accepted: 0,
        refused: 0,
        clauses: parts
            .iter()
            .map(|part| Clause {
                path: part.path.clone(),
                clause: part.text(),
                passes: 0,
                only: 0,
                left: 0,
            })
            .collect(),
    };
    let mut failed = Vec::with_capacity(parts.len());
    for other in others {
        analysis.total += 1;
        failed.clear();
        for (index, part) in parts.iter().enumerate() {
            let clause = &mut analysis.clauses[index];
            if part.holds(ad, other) {
                clause.passes += 1;
                clause.left += usize::from(failed.is_empty());
            } else {
                failed.push(index);
            }
        }
        if let [only] = failed.as_slice() {
            analysis.clauses[*only].only += 1;
        }
        if accepts(ad, other) {
            analysis.accepted += 1;
            if is_match(ad, other) {
                analysis.matching += 1;
            } else {
                analysis.refused += 1;
            }
        }
    }
    analysis
}
