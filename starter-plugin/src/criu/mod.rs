//! CRIU itself: where it is, how it is called, what it leaves behind.

mod alone;
mod capture;
mod command;
mod errors;
mod hook;
mod images;
mod injected;
mod registers;
mod serve;
mod spliced;
mod stats;
mod streamer;
mod wire;

pub(crate) use capture::Capture;
pub(crate) use command::{Criu, DUMP_LOG, ImageDir, PID_FILE, RESTORE_LOG, Then};
pub(crate) use hook::{Held, Hook, called_by_criu};
pub(crate) use images::drop_groups;
pub(crate) use injected::is_clean;
pub(crate) use serve::{Serve, Socket, is_damage, is_served};
