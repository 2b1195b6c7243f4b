//! HTCondor configuration, printed with its reasons.

use std::path::Path;

use file_transfer_plugin::fingerprint;

/// A node is probed when the startd starts, and again this often.
const PROBE_PERIOD: &str = "30m";

/// For an execution point: the probe's answer in its slots' ads.
pub(crate) fn execution_point(pilot: &Path) -> String {
    let pilot = pilot.display();
    format!(
        "\
# Jobs with WantCRIU = true match a slot by these attributes: HasCRIU, and what
# the CPU, the kernel and CRIU are. They are there after a job was really frozen
# and thawed on this node; until then nothing matches, which is safe.
STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST) CRIU
STARTD_CRON_CRIU_EXECUTABLE = {pilot}
STARTD_CRON_CRIU_ARGS = probe
STARTD_CRON_CRIU_MODE = Periodic
STARTD_CRON_CRIU_PERIOD = {PROBE_PERIOD}
STARTD_CRON_CRIU_KILL = True
"
    )
}

/// For a job: everything but its own executable and files.
pub(crate) fn submit() -> String {
    format!(
        "\
# A job that survives the loss of its slot. Add to your submit file:
#   executable           = criu-starter
#   arguments            = run -- ./your-program its arguments
#   transfer_input_files = your-program, its files
+WantCRIU = true
# The image travels to the access point's spool when the slot is lost.
should_transfer_files = YES
when_to_transfer_output = ON_EXIT_OR_EVICT
# What was printed before stays; criu-starter adds what comes after.
erase_output_and_error_on_restart = false
# The first start needs a slot that can freeze, later ones a slot that can run
# what the image holds. Join conditions of your own with &&.
requirements = {}
",
        fingerprint::requirements()
    )
}
