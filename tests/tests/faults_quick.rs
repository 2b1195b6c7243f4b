//! Some cells of the fault table: those whose promise is most easily broken, on the newer HTCondor.

use std::sync::Mutex;

use tests::faults::{self, cell};
use tests::require;
use tests::roots::HtCondor;

/// One of each kind of fault.
const CELLS: [&str; 7] = [
    "dumping/kill-criu/spool/root",
    "packing/full-scratch/spool/glidein",
    "shipping/kill-shadow/spool/root",
    "committed/bit-flipped/spool/glidein",
    "fetching/network-cut/store/root",
    "restoring/kill-starter/spool/glidein",
    "unpacking/kill-supervisor/spool/root",
];

#[test]
#[ignore = "builds the programs once more, with pause points, for many minutes: cargo test -p tests faults_quick -- --ignored"]
fn faults_quick() {
    require!(root, namespaces, user_namespaces, roots);
    let wanted = |cell: &cell::Cell| CELLS.contains(&cell.to_string().as_str());
    let cells: Vec<_> = cell::product().into_iter().filter(wanted).collect();
    assert_eq!(cells.len(), CELLS.len(), "a name is no longer right");
    let broken = Mutex::new(Vec::new());
    let made = |row: faults::verdict::Row| {
        if !row.broken.is_empty() {
            let text = format!("{}: {}", row.cell, row.broken.join("; "));
            broken.lock().expect("no thread panics").push(text);
        }
        Ok(())
    };
    let walked = faults::walk(HtCondor::V25, cells, 1, 1, &made);
    walked.unwrap_or_else(|error| panic!("{error:#}"));
    let broken = broken.into_inner().expect("no thread panics");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
