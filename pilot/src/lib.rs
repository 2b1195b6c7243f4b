//! One worker node: what it can do, and saying so.
#![forbid(unsafe_code)]
