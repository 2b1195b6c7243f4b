//! The functions of the language.

/// Names of the functions, as the manual spells them; a function's number is its place here.
pub(crate) const NAMES: [&str; 2] = ["absTime", "relTime"];
