//! The functions of the language.
//!
//! A function gets its arguments unevaluated, as some evaluate only one of them or all of them somewhere else. A wrong
//! number of arguments is an error value, as is a call of a function that does not exist.

mod args;
mod context;
mod convert;
mod lists;
mod math;
mod patterns;
mod string_lists;
pub(crate) mod strings;
pub(crate) mod times;
mod types;
mod versions;

use crate::eval::{At, Depth, Ev, Machine, Val};
use crate::tree::{Node, NodeId};

/// A call that is being evaluated.
pub(crate) struct Call<'s, 'a> {
    pub(crate) machine: &'a Machine<'a>,
    pub(crate) at: &'s At<'s, 'a>,
    pub(crate) args: &'a [NodeId],
    pub(crate) depth: Depth,
}

impl<'a> Call<'_, 'a> {
    /// Evaluates an argument.
    #[inline]
    pub(crate) fn arg(&self, index: usize) -> Ev<'a> {
        self.machine.eval(self.at, self.args[index], self.depth)
    }

    /// The only argument.
    pub(crate) fn only(&self) -> Result<Option<Val<'a>>, crate::eval::Stop> {
        if self.args.len() == 1 {
            self.arg(0).map(Some)
        } else {
            Ok(None)
        }
    }
}

type Run = for<'s, 'a> fn(&Call<'s, 'a>) -> Ev<'a>;

/// The functions by name, as the manual spells them. A function's number is its place here.
const TABLE: [(&str, Run); 91] = [
    ("isUndefined", |c| {
        types::test(c, |v| matches!(v, Val::Undefined))
    }),
    ("isError", |c| types::test(c, |v| matches!(v, Val::Error))),
    ("isString", |c| types::test(c, |v| matches!(v, Val::Str(_)))),
    ("isInteger", |c| {
        types::test(c, |v| matches!(v, Val::Int(_)))
    }),
    ("isReal", |c| types::test(c, |v| matches!(v, Val::Real(_)))),
    ("isBoolean", |c| {
        types::test(c, |v| matches!(v, Val::Bool(_)))
    }),
    ("isList", |c| {
        types::test(c, |v| {
            matches!(v, Val::List(..) | Val::Made(_) | Val::Shared(_))
        })
    }),
    ("isClassAd", |c| types::test(c, |v| matches!(v, Val::Ad(_)))),
    ("isAbsTime", |c| {
        types::test(c, |v| matches!(v, Val::Abs(_)))
    }),
    ("isRelTime", |c| {
        types::test(c, |v| matches!(v, Val::Rel(_)))
    }),
    ("ifThenElse", types::if_then_else),
    ("debug", types::debug),
    ("member", |c| lists::member(c, false)),
    ("identicalMember", |c| lists::member(c, true)),
    ("size", lists::size),
    ("sum", |c| lists::sum(c, false)),
    ("avg", |c| lists::sum(c, true)),
    ("min", |c| lists::extreme(c, crate::tree::Op::Lt)),
    ("max", |c| lists::extreme(c, crate::tree::Op::Gt)),
    ("anyCompare", |c| lists::compare(c, false)),
    ("allCompare", |c| lists::compare(c, true)),
    ("strcat", strings::strcat),
    ("join", strings::join),
    ("toUpper", |c| strings::change_case(c, true)),
    ("toLower", |c| strings::change_case(c, false)),
    ("substr", strings::substr),
    ("strcmp", |c| strings::compare(c, false)),
    ("stricmp", |c| strings::compare(c, true)),
    ("split", strings::split),
    ("splitUserName", |c| strings::split_at(c, true)),
    ("splitSlotName", |c| strings::split_at(c, false)),
    ("int", convert::int),
    ("real", convert::real),
    ("string", convert::string),
    ("bool", convert::bool),
    ("interval", convert::interval),
    ("floor", |c| math::round(c, f64::floor)),
    ("ceil", |c| math::round(c, f64::ceil)),
    ("ceiling", |c| math::round(c, f64::ceil)),
    ("round", |c| math::round(c, f64::round_ties_even)),
    ("pow", math::pow),
    ("quantize", math::quantize),
    ("random", math::random),
    ("versioncmp", |c| {
        versions::compare(c, |order| Val::Int(order.into()))
    }),
    ("versionEQ", |c| {
        versions::compare(c, |order| Val::Bool(order == 0))
    }),
    ("versionLT", |c| {
        versions::compare(c, |order| Val::Bool(order < 0))
    }),
    ("versionLE", |c| {
        versions::compare(c, |order| Val::Bool(order <= 0))
    }),
    ("versionGT", |c| {
        versions::compare(c, |order| Val::Bool(order > 0))
    }),
    ("versionGE", |c| {
        versions::compare(c, |order| Val::Bool(order >= 0))
    }),
    ("version_in_range", versions::in_range),
    ("regexp", patterns::regexp),
    ("regexpMember", patterns::regexp_member),
    ("regexps", |c| patterns::substitute(c, b"")),
    ("replace", |c| patterns::substitute(c, b"f")),
    ("replaceAll", |c| patterns::substitute(c, b"fg")),
    ("stringListSize", string_lists::size),
    ("stringListSum", |c| {
        string_lists::summarize(c, string_lists::Summary::Sum)
    }),
    ("stringListAvg", |c| {
        string_lists::summarize(c, string_lists::Summary::Avg)
    }),
    ("stringListMin", |c| {
        string_lists::summarize(c, string_lists::Summary::Min)
    }),
    ("stringListMax", |c| {
        string_lists::summarize(c, string_lists::Summary::Max)
    }),
    ("stringListMember", |c| string_lists::member(c, false)),
    ("stringListIMember", |c| string_lists::member(c, true)),
    ("stringListSubsetMatch", |c| string_lists::subset(c, false)),
    ("stringListISubsetMatch", |c| string_lists::subset(c, true)),
    (
        "stringList_regexpMember",
        patterns::string_list_regexp_member,
    ),
    ("stringListsIntersect", string_lists::intersect),
    ("time", times::time),
    ("timeZoneOffset", times::zone_offset),
    ("dayTime", times::day_time),
    ("getYear", |c| times::field(c, times::Field::Year)),
    ("getMonth", |c| times::field(c, times::Field::Month)),
    ("getDayOfYear", |c| times::field(c, times::Field::DayOfYear)),
    ("getDayOfMonth", |c| {
        times::field(c, times::Field::DayOfMonth)
    }),
    ("getDayOfWeek", |c| times::field(c, times::Field::DayOfWeek)),
    ("getDays", |c| times::field(c, times::Field::Days)),
    ("getHours", |c| times::field(c, times::Field::Hours)),
    ("getMinutes", |c| times::field(c, times::Field::Minutes)),
    ("getSeconds", |c| times::field(c, times::Field::Seconds)),
    ("splitTime", times::split),
    ("formatTime", times::format),
    ("absTime", times::abs_time),
    ("relTime", times::rel_time),
    ("argsToList", args::args_to_list),
    ("listToArgs", args::list_to_args),
    ("envV1ToV2", args::env_v1_to_v2),
    ("mergeEnvironment", args::merge_environment),
    ("userMap", args::user_map),
    ("userHome", args::user_home),
    ("eval", context::eval),
    ("evalInEachContext", |c| context::each(c, true)),
    ("countMatches", |c| context::each(c, false)),
];

/// Two more whose arguments are references, not values; and last the one whose name is also that of an attribute.
const REFERENCES: [(&str, Run); 3] = [
    ("unparse", context::unparse),
    ("unresolved", context::unresolved),
    ("currentTime", times::current_time),
];

/// The names, in the order of the functions' numbers.
pub(crate) const NAMES: [&str; TABLE.len() + REFERENCES.len()] = {
    let mut names = [""; TABLE.len() + REFERENCES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = if i < TABLE.len() {
            TABLE[i].0
        } else {
            REFERENCES[i - TABLE.len()].0
        };
        i += 1;
    }
    names
};

/// The functions, without their names: what a call looks at.
static RUN: [Run; NAMES.len()] = {
    let mut run = [TABLE[0].1; NAMES.len()];
    let mut i = 0;
    while i < run.len() {
        run[i] = if i < TABLE.len() {
            TABLE[i].1
        } else {
            REFERENCES[i - TABLE.len()].1
        };
        i += 1;
    }
    run
};

/// What a function's value depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The values of its arguments.
    Pure,
    /// Which of its arguments are evaluated depends on the first.
    Choice,
    /// The ad around it, or how its arguments are written.
    Context,
    /// The clock or chance.
    Changing,
}

pub(crate) fn kind(node: Node) -> Kind {
    match NAMES.get(node.low() as usize).copied() {
        Some("ifThenElse") => Kind::Choice,
        Some("eval" | "evalInEachContext" | "countMatches" | "unparse" | "unresolved") => {
            Kind::Context
        }
        Some(
            "time" | "currentTime" | "dayTime" | "timeZoneOffset" | "random" | "formatTime"
            | "absTime" | "debug",
        ) => Kind::Changing,
        Some(_) => Kind::Pure,
        None => Kind::Context,
    }
}

/// Evaluates a call.
#[inline]
pub(crate) fn call<'a>(
    machine: &'a Machine<'a>,
    at: &At<'_, 'a>,
    node: Node,
    depth: Depth,
) -> Ev<'a> {
    match RUN.get(node.low() as usize) {
        Some(run) => run(&Call {
            machine,
            at,
            args: at.arena.children(node),
            depth,
        }),
        None => Ok(Val::Error),
    }
}
