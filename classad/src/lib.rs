//! HTCondor's ClassAd language.
#![forbid(unsafe_code)]

mod name;
mod tree;
mod value;

mod lex;
mod number;
mod parse;
mod time;

mod ad;

mod builtins;
mod eval;
mod matching;

mod unparse;

pub use ad::{ClassAd, Expr, ExprRef};
pub use eval::Scope;
pub use matching::{MatchResult, matches};
pub use parse::ParseError;
pub use value::{AbsTime, Text, Value};
