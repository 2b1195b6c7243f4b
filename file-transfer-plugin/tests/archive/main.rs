//! `checkpoint.criu` from outside: what is packed comes back, what is damaged is refused by name.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod forge;
mod golden;
mod hostile;
mod listing;
mod roundtrip;
mod stream;
mod tree;
