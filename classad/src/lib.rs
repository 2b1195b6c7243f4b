//! HTCondor's ClassAd language, as its daemons speak it: parser, evaluator, matchmaker and printer.
//!
//! ```
//! use classad::{ClassAd, Scope, explain, is_match};
//!
//! let slot = ClassAd::parse_old(
//!     "Memory = 4096\n\
//!      HasCRIU = true\n\
//!      Start = TARGET.RequestMemory <= Memory && Owner != \"bob\"\n\
//!      Requirements = START\n",
//! )?;
//! let mut job = ClassAd::parse("[ RequestMemory = 1024; Owner = \"jane\"; Requirements = TARGET.HasCRIU ]")?;
//! assert!(is_match(&job, &slot));
//!
//! job.insert("RequestMemory", 8192);
//! assert_eq!(
//!     explain(&job, &slot)[0].to_string(),
//!     "Requirements > START: TARGET.RequestMemory <= Memory is false, \
//!      where TARGET.RequestMemory = 8192, Memory = 4096"
//! );
//! assert_eq!(Scope::new(&slot).target(&job).evaluate("Start"), false.into());
//! # Ok::<(), classad::ParseError>(())
//! ```
//!
//! The library is a value in, value out affair: it reads no files and no environment, and its local zone is UTC. Only
//! `time()` and its like look at the clock, and `random()` at nothing worth the name.
//!
//! # How it is built
//!
//! | module | takes -> gives |
//! |---|---|
//! | `name`, `shape` | names -> numbers; which names an ad has, shared by ads of one kind |
//! | `tree`, `value` | expressions as runs of eight-byte nodes in one arena per ad; what they evaluate to |
//! | `lex`, `parse` | text -> arena, or line, column and what was expected |
//! | `ad` | the arena as [`ClassAd`] and [`Expr`] |
//! | `eval`, `builtins`, `regex` | expression, ads around it -> value, within limits |
//! | `matching`, `prepared`, `explain` | two ads, or one and thousands -> match, rank, reasons |
//! | `flatten`, `refs` | expression -> what is left of it, what it refers to |
//! | `unparse`, `json` | arena -> text |
//!
//! # Limits
//!
//! Every input is answered in a thread with 2 MiB of stack: deep nesting is a parse error, and an evaluation that nests
//! too deep, takes too many steps or makes too much is `error`. Dropping, printing, copying and comparing never recurse
//! over what was parsed. The limits are those of libclassad where it has any: 500 units of nesting while parsing, 400
//! levels and ten million nodes while evaluating; and beyond it, 64 MiB of text, of produced strings and lists each.
//!
//! # Where it differs from libclassad 25.14.1
//!
//! Deliberately, each with an input that shows it:
//!
//! | input | libclassad | here | why |
//! |---|---|---|---|
//! | `1 ? 2 : 3 junk` as an expression | parses | parse error | text that means nothing is not an expression |
//! | `[a = self["a"]]`, `a`; `[a = {sum(a)}]`, `sum(a)` | crashes | undefined, error | an ad is no reason to die |
//! | `[a = evalInEachContext(a, {[b = 1]})]`, `a` | crashes | error | the same |
//! | `quantize(-9223372036854775806, -1)` | crashes | the wrapped quotient | the same |
//! | `a0` with `a0 = eval("a1+a1")` and so on | minutes | error | parsing counts as steps |
//! | towers of `strcat` or `replaceAll` | gigabytes | error | what is produced is limited |
//! | flattening doubling attributes | hours | error | flattening counts as steps |
//! | `regexp("^(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaab")` | error or false by PCRE's count | by this engine's count | a limit on a search is arbitrary |
//! | `regexp("\\pL", "a")`, `(?1)`, `(?\|a\|b)`, `(*UTF8)` | matches | error | not used in policies |
//! | `formatTime(-9223372036854775808)` | varies from call to call | a date | the library reads past its tables |
//! | `formatTime(0, F)` with more than 1022 bytes | bytes of the stack | an empty string | the same |
//! | time functions under `TZ` | local zone | UTC | what a policy says must not depend on who looks |
//! | `userMap("map", user)` | consults configured maps | as without maps | it is configuration of a daemon |
//! | references of doubling attributes | exponential | the same sets, quickly | every expression is visited once |
//!
//! `a.'odd name'` is printed as `a.odd name`, and reals are printed with sixteen digits, as libclassad does both.
#![forbid(unsafe_code)]

mod name;
mod shape;
mod tree;
mod value;

mod lex;
mod number;
mod parse;
mod time;

mod ad;

mod builtins;
mod eval;
mod regex;

mod matching;

mod prepared;

mod explain;

mod flatten;
mod refs;

mod json;
mod unparse;

pub use ad::{ClassAd, Expr, ExprRef};
pub use eval::Scope;
pub use explain::{Analysis, Clause, Failure, Side, analyze, explain};
pub use flatten::Flat;
pub use matching::{MatchResult, is_match, matches, rank};
pub use parse::ParseError;
pub use prepared::Prepared;
pub use refs::References;
pub use value::{AbsTime, Text, Value};
