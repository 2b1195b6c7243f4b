//! The store as its clients see it: the real program, spoken to over its socket.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod http;
mod image;
mod server;

mod collect;
mod hostile;
mod images;
mod kill;
mod objects;
mod page;
mod room;
mod tls;
mod tokens;
