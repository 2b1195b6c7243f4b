//! HTCondor configuration, printed with its reasons.

mod check;
mod container;
mod policy;

use std::path::Path;

use file_transfer_plugin::{attributes, fingerprint};

pub(crate) use check::{check, read_configuration};
pub(crate) use container::container;
pub(crate) use policy::policy;

/// At this exit code, before any soft kill, a starter takes the listed files home and starts the job again in place. A
/// job whose own code it is would be started for ever, so it is one that hardly any program ends with (sysexits.h,
/// shells and signals have others, and 85 is what HTCondor's manual gives to jobs with images of their own); and
/// criu-starter reports such an end as 88.
const CHECKPOINT_CODE: u8 = 213;

/// A node is probed when the startd starts, and again this often.
const PROBE_PERIOD: &str = "30m";

/// What `criu-pilot report` reads of a job behind each of its events.
const REPORTED: &str = "Owner, ChirpCRIUTime, ChirpCRIUBytes, ChirpCRIUDumpSeconds, ChirpCRIUPackSeconds, MachineAttrGLIDEIN_Site0";

/// A job that HTCondor holds because a transfer failed (12 is one home, 13 one to the slot): SPOOL was full, say, or a plugin
/// was killed. Subcode 2 is a file that is not there.
const RELEASED: &str = "(HoldReasonCode == 12 || HoldReasonCode == 13) && HoldReasonSubCode =!= 2 && \
NumHolds <= 10 && time() - EnteredCurrentStatus > 60";

/// For a site's own execution point.
pub(crate) fn execution_point(pilot: &Path) -> String {
    format!("{}\n{}\n{}", cron(pilot), hook(pilot), policy())
}

/// For a glidein whose configuration somebody writes by hand.
pub(crate) fn glidein(pilot: &Path) -> String {
    format!(
        "\
# For a glidein in whose condor_config.d you can put a file. Where glideinWMS's
# frontend can be changed, list criu-pilot as a custom script instead, with
# after_entry, period=\"1800\" and prefix=\"NOPREFIX\": `criu-pilot glidein` then
# publishes the attributes and writes the policy below by itself.
{}\n{}\n{}",
        cron(pilot),
        hook(pilot),
        policy()
    )
}

/// The probe's answer in the slots' ads.
fn cron(pilot: &Path) -> String {
    let pilot = pilot.display();
    format!(
        "\
# Jobs with WantCRIU = true match a slot by these attributes: HasCRIU, and what
# the CPU, the kernel and CRIU are. They are there after a job was really frozen
# and thawed on this node; until then nothing matches, which is safe. It is tried
# where jobs run, takes less than a second and 20 MB, and leaves nothing.
STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST) CRIU
STARTD_CRON_CRIU_EXECUTABLE = {pilot}
STARTD_CRON_CRIU_ARGS = probe --dir $(EXECUTE)
STARTD_CRON_CRIU_MODE = Periodic
STARTD_CRON_CRIU_PERIOD = {PROBE_PERIOD}
STARTD_CRON_CRIU_KILL = True
# condor_reconfig probes at once, for an admin who has just changed something.
STARTD_CRON_CRIU_RECONFIG_RERUN = True
"
    )
}

/// What puts criu-starter, which lies beside this program, before a job's own.
fn hook(pilot: &Path) -> String {
    let path = pilot.with_file_name("criu-starter");
    let starter = path.display();
    // A hook that does not exist would keep every job from starting.
    let lines = if pilot.exists() && !path.exists() {
        format!("# Not here: put criu-starter into {starter} and print this again.\n")
    } else {
        format!(
            "\
CRIU_HOOK_PREPARE_JOB = {starter}
CRIU_HOOK_PREPARE_JOB_ARGS = prepare
if ! defined STARTER_DEFAULT_JOB_HOOK_KEYWORD
STARTER_DEFAULT_JOB_HOOK_KEYWORD = CRIU
endif
"
        )
    };
    format!(
        "\
# Puts criu-starter before the program of a job with WantCRIU = true, in a
# container or not, and does nothing to any other job. Its directory must not be
# writable for everybody. Where the slot has a prepare hook already, keep its
# keyword and chain it, here with OSPool's:
#   OSPOOL_HOOK_PREPARE_JOB = {starter}
#   OSPOOL_HOOK_PREPARE_JOB_ARGS = prepare --then /path/of/the/hook/before
{lines}
# In a container whose root is an overlay, CRIU cannot tell which files a job has
# mapped: the kernel gives them other device numbers than their names have. Add
# --underlay to arguments of your own.
if ! defined SINGULARITY_EXTRA_ARGUMENTS
SINGULARITY_EXTRA_ARGUMENTS = ifThenElse(TARGET.WantCRIU =?= True, \"--underlay\", \"\")
endif
"
    )
}

/// For an access point: one line in a job is then enough.
pub(crate) fn access_point(store: Option<&str>) -> String {
    let store = store.map_or_else(String::new, |url| {
        format!(
            "   # Images go to this store, where the slot's criu-starter has criu-transfer beside it,
   # and otherwise, or when the store is away, to SPOOL.
   DEFAULT {} \"{url}\"\n",
            attributes::STORE
        )
    });
    format!(
        "\
# A job with WantCRIU = true in the vanilla or container universe gets all the
# rest here, once, when it is submitted. Slots with the prepare hook that
# `criu-pilot configure ep` prints put criu-starter before its program; for slots
# without, its executable has to be criu-starter, as `criu-pilot configure submit`
# says.
JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES) CRIU
JOB_TRANSFORM_CRIU @=end
   REQUIREMENTS WantCRIU =?= true && JobUniverse == 5
   # The image travels to this machine's SPOOL when the slot is lost. A hook on the
   # slot would be too late for this: the starter reads it before.
   SET     ShouldTransferFiles \"YES\"
   SET     WhenToTransferOutput \"ON_EXIT_OR_EVICT\"
   # What was printed before stays; criu-starter adds what comes after.
   SET     EraseOutputAndErrorOnRestart false
   # Images on the way, for a slot that dies without a signal: criu-starter ends with
   # this code, its image is sent, and it goes on in the same place. A job with
   # such images of its own keeps them, and has ours at the soft kill alone.
   EVALSET TransferCheckpoint ifThenElse(isUndefined(SuccessCheckpointExitCode), \"checkpoint.criu\", TransferCheckpoint)
   DEFAULT SuccessCheckpointExitCode {CHECKPOINT_CODE}
   SET     WantFTOnCheckpoint true
{store}   # condor_vacate, draining and a pilot's end ask the job at once instead of
   # waiting for a retirement that may be longer than the slot's life.
   DEFAULT MaxJobRetirementTime 0
   # The first start needs a slot that can freeze, later ones a slot that can run
   # what the image holds.
   SET     Requirements ($(MY.Requirements)) && {}
@end

# HTCondor holds a job when a transfer fails, because SPOOL was full, say, or a plugin
# was killed. Its image of before is good, and after a minute it goes on from that:
# ten times, and not where a file is missing, which is the job's own mistake.
SYSTEM_PERIODIC_RELEASE_NAMES = $(SYSTEM_PERIODIC_RELEASE_NAMES) CRIU
SYSTEM_PERIODIC_RELEASE_CRIU = WantCRIU =?= true && {RELEASED}

# `criu-pilot report` tells from this log what slots that were lost cost, and what
# images saved: by user, and by site where the slot has GLIDEIN_Site.
EVENT_LOG = $(LOG)/EventLog
EVENT_LOG_FORMAT_OPTIONS = ISO_DATE SUB_SECOND
EVENT_LOG_JOB_AD_INFORMATION_ATTRS = {REPORTED}
SYSTEM_JOB_MACHINE_ATTRS = $(SYSTEM_JOB_MACHINE_ATTRS) GLIDEIN_Site
",
        fingerprint::requirements()
    )
}

/// For a job: everything but its own executable and files.
pub(crate) fn submit(store: Option<&str>) -> String {
    let program = if store.is_some() {
        ", criu-transfer"
    } else {
        ""
    };
    let store = store.map_or_else(String::new, |url| {
        format!(
            "# Images go to this store by the criu-transfer beside criu-starter: at the soft
# kill, and while the job runs on. When the store is away they go to the spool.
+{} = \"{url}\"\n",
            attributes::STORE
        )
    });
    format!(
        "\
# A job that survives the loss of its slot. Add to your submit file:
#   executable           = criu-starter
#   arguments            = run -- ./your-program its arguments
#   transfer_input_files = your-program, its files{program}
+WantCRIU = true
{store}# The image travels to the access point's spool when the slot is lost.
should_transfer_files = YES
when_to_transfer_output = ON_EXIT_OR_EVICT
# What was printed before stays; criu-starter adds what comes after.
erase_output_and_error_on_restart = false
# Images on the way, for a slot that dies without a signal: criu-starter ends with
# this code, its image is sent, and it goes on in the same place. How often follows
# from what an image costs; +CRIUInterval = \"10m\" says it, and 0 switches it off.
# A program that itself ends with this code is reported as ending with 88.
checkpoint_exit_code = {CHECKPOINT_CODE}
transfer_checkpoint_files = checkpoint.criu
# Ask the job to leave at once when the slot is wanted back; glideins would wait
# longer than they live.
max_job_retirement_time = 0
# HTCondor holds a job when a transfer fails, because the spool was full, say. Its
# image of before is good, and after a minute it goes on from that: ten times, and
# not where a file is missing.
periodic_release = {RELEASED}
# The first start needs a slot that can freeze, later ones a slot that can run
# what the image holds. Join conditions of your own with &&.
requirements = {}
# For `criu-pilot report job.log`, behind each event in the job's log:
# job_ad_information_attrs = {REPORTED}
# job_machine_attrs = GLIDEIN_Site
",
        fingerprint::requirements()
    )
}
