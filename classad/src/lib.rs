//! HTCondor's ClassAd language.
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
mod explain;
mod flatten;
mod matching;
mod prepared;
mod refs;
mod regex;

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
