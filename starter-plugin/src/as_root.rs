//! Jobs that root runs as root, by hand and because it says so.
//!
//! CRIU then has the privileges that it lacks elsewhere: it opens memory that has no name (memfds, deleted mappings),
//! suspends seccomp filters, and dumps System V objects, for which the job gets an ipc namespace that CRIU is not in.
//! There is no user namespace. An image of such a job is one for root alone, which its fingerprint says by an ability
//! that no slot of HTCondor's has.

use std::fs;

use file_transfer_plugin::fingerprint::Fingerprint;
use nix::unistd::geteuid;

/// The ability.
pub(crate) const ABILITY: &str = "root";

/// Whether an image, or a job that begins, is of that kind.
pub(crate) fn asks_for_it(fingerprint: &Fingerprint) -> bool {
    fingerprint.abilities.contains(ABILITY)
}

/// Whether this process may do everything, and not only in a user namespace.
pub(crate) fn may() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}
