//! HTCondor's configuration for each kind of host.
//!
//! Written whole instead of layered over a distribution's, so that both versions and both kinds of execution point start from the
//! same lines. A caller's own lines come last and win; `$(POOL_LIBEXEC)` in them is where its programs are, on either kind.

use std::fmt::Write;

use crate::host::{DOMAIN, Host, Role};
use crate::spec::Ep;

/// What all hosts of a pool have in common.
///
/// Security is for a pool that nobody else can reach: every host may do everything (`ALLOW_* = *`), and a daemon on another host is
/// who it claims to be. Users of the access point are still told apart, by the file system.
const COMMON: &str = "\
RELEASE_DIR = /usr
BIN = /usr/bin
SBIN = /usr/sbin
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
SHARE = /usr/share/condor
ETC = /etc/condor
LOG = $(LOCAL_DIR)/log
SPOOL = $(LOCAL_DIR)/spool
EXECUTE = $(LOCAL_DIR)/execute
LOCK = $(LOCAL_DIR)/lock
RUN = $(LOCAL_DIR)/run
CRED_STORE_DIR = $(LOCAL_DIR)/cred
REQUIRE_LOCAL_CONFIG_FILE = False

CONDOR_HOST = ap.pool
UID_DOMAIN = pool
TRUST_UID_DOMAIN = True
FILESYSTEM_DOMAIN = $(FULL_HOSTNAME)
ENABLE_IPV6 = False

SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, CLAIMTOBE
SEC_CLIENT_AUTHENTICATION_METHODS = FS, CLAIMTOBE
SEC_DEFAULT_ENCRYPTION = OPTIONAL
SEC_DEFAULT_INTEGRITY = OPTIONAL
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_NEGOTIATOR = *
ALLOW_ADMINISTRATOR = *
ALLOW_CLIENT = *
ALLOW_ADVERTISE_MASTER = *
ALLOW_ADVERTISE_STARTD = *
ALLOW_ADVERTISE_SCHEDD = *

# A test pool forgets everything at its end: no need to wait for a disk.
CONDOR_FSYNC = False
# The machine's control groups are not the pool's.
BASE_CGROUP =
MAIL =
SCHEDD_RESTART_REPORT =
";

/// As quick as each interval goes.
const ACCESS_POINT: &str = "\
DAEMON_LIST = MASTER, COLLECTOR, NEGOTIATOR, SCHEDD
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_MIN_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
SCHEDD_INTERVAL = 1
SCHEDD_MIN_INTERVAL = 1
SHADOW_QUEUE_UPDATE_INTERVAL = 2
PERIODIC_EXPR_INTERVAL = 2
SYSTEM_ON_VACATE_COOL_DOWN = 0
";

/// What both kinds of execution point have.
const EXECUTION_POINT: &str = "\
DAEMON_LIST = MASTER, STARTD
UPDATE_INTERVAL = 2
POLLING_INTERVAL = 1
STARTER_INITIAL_UPDATE_INTERVAL = 1
STARTER_UPDATE_INTERVAL = 2
MachineMaxVacateTime = 600
RUNBENCHMARKS = False
DOCKER =
# Not where HTCondor looks by itself; where it is missing (23.9's root) the slot says so.
SINGULARITY = /usr/bin/apptainer
MEMORY = 1024 * $(NUM_CPUS)
SLOT_TYPE_1 = cpus=1
SLOT_TYPE_1_PARTITIONABLE = False
# Each plugin that is listed is started once per slot ad; the Python ones take a second each.
FILETRANSFER_PLUGINS = $(LIBEXEC)/curl_plugin, $(LIBEXEC)/data_plugin
";

/// A site's own pool: jobs run as their users and leave when they are told to.
const ROOT: &str = "\
START = True
STARTER_ALLOW_RUNAS_OWNER = True
";

/// What glideinWMS writes for a pilot, in the parts that decide about evictions. Its defaults for the graces are kept although they
/// leave a job no time at the pilot's end: that is the world that the project has to cope with.
const GLIDEIN: &str = "\
IS_GLIDEIN = True
GLIDEIN_Site = \"Testbed\"
GLIDEIN_ResourceName = \"Testbed-$(HOSTNAME)\"
GLIDEIN_Entry_Name = \"testbed\"
STARTD_ATTRS = $(STARTD_ATTRS) IS_GLIDEIN GLIDEIN_Site GLIDEIN_ResourceName GLIDEIN_Entry_Name GLIDEIN_ToRetire GLIDEIN_ToDie
START = time() < GLIDEIN_ToRetire
PREEMPT_GRACE_TIME = 10000000
MaxJobRetirementTime = $(PREEMPT_GRACE_TIME)
HOLD_CONDITION = False
PREEMPT_CONDITION = False
PREEMPT = $(HOLD_CONDITION) || $(PREEMPT_CONDITION)
WANT_HOLD = $(HOLD_CONDITION)
WANT_SUSPEND = False
WANT_VACATE = True
SUSPEND = False
CONTINUE = True
KILL = (CurrentTime - EnteredCurrentActivity) > 300
SHUTDOWN_GRACEFUL_TIMEOUT = 120
CLAIM_WORKLIFE = 3600
RANK = 0
STARTD.DAEMON_SHUTDOWN = time() > GLIDEIN_ToDie
MASTER.DAEMON_SHUTDOWN = STARTD_StartTime =?= 0
CREATE_CORE_FILES = False
USE_PID_NAMESPACES = False
TMP_DIR = $(LOCAL_DIR)/tmp
LOCAL_CONFIG_DIR = $(LOCAL_DIR)/condor_config.d
";

/// The access point's configuration.
pub(crate) fn access_point(host: &Host, lines: &[String]) -> String {
    finish(head(host) + ACCESS_POINT, lines)
}

/// An execution point's configuration; `now` is the time of its start.
pub(crate) fn execution_point(host: &Host, ep: &Ep, now: u64) -> String {
    let mut text = head(host);
    text += EXECUTION_POINT;
    let slots = ep.slots;
    let _ = writeln!(
        text,
        "NUM_CPUS = {slots}\nNUM_SLOTS = {slots}\nNUM_SLOTS_TYPE_1 = {slots}"
    );
    if host.role == Role::Glidein {
        text += GLIDEIN;
        let die = now + ep.lifetime.as_secs();
        // glideinWMS retires a pilot GLIDEIN_Job_Max_Time (OSPool: 10 h) before its end, or at once if that is longer ago.
        let retire = die
            .saturating_sub(36_000)
            .max(now + ep.lifetime.as_secs() / 2);
        let _ = writeln!(text, "GLIDEIN_ToDie = {die}\nGLIDEIN_ToRetire = {retire}");
    } else {
        text += ROOT;
    }
    finish(text, &ep.config)
}

fn head(host: &Host) -> String {
    debug_assert!(COMMON.contains(&format!("UID_DOMAIN = {DOMAIN}\n")));
    let (dir, libexec, address) = (host.condor_dir(), host.libexec(), host.address);
    format!("LOCAL_DIR = {dir}\nPOOL_LIBEXEC = {libexec}\nNETWORK_INTERFACE = {address}\n{COMMON}")
}

fn finish(mut text: String, lines: &[String]) -> String {
    for line in lines {
        text += line;
        text.push('\n');
    }
    text
}
