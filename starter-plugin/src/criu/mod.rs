//! CRIU itself: where it is, how it is called, what it leaves behind.

mod command;
mod errors;
mod images;

pub(crate) use command::{Criu, DUMP_LOG, ImageDir, PID_FILE, RESTORE_LOG};
pub(crate) use images::drop_groups;
