//! Some rows of the eviction table, which the command of that name walks whole.

use tests::roots::HtCondor;
use tests::{evictions, require};

/// With a signal and time, without either, and where the job has to leave nothing.
const ROWS: [&str; 3] = ["condor_vacate", "condor_vacate_job -fast", "condor_rm"];

#[test]
fn some_ways_to_lose_a_slot_cost_what_the_table_says() {
    require!(root, namespaces, user_namespaces, roots);
    let rows = ROWS.map(str::to_owned);
    let walked = evictions::walk(HtCondor::V25, &rows).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(walked > ROWS.len(), "on both kinds of execution points");
}
