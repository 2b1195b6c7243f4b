//! CRIU itself: where it is, how it is called, what it leaves behind.

mod command;
mod errors;
mod hook;
mod images;
mod stats;
mod wire;

pub(crate) use command::{Criu, DUMP_LOG, ImageDir, PID_FILE, RESTORE_LOG, Then};
pub(crate) use hook::{Held, Hook, called_by_criu};
pub(crate) use images::drop_groups;
