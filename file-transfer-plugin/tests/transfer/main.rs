//! Archives to a store and back: the real programs over real sockets, with a wire between them that can be cut.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod along;
mod archive;
mod server;
mod wire;

mod by_hand;
mod plugin;
mod trouble;
