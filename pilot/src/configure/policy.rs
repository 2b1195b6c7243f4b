//! When jobs that want it are asked to leave, and how long they have for it.

/// Seconds for a freeze, the packing and the way to the access point: a job of
/// 10 GB over a shared link of 100 Mbit/s.
const VACATE: u32 = 1800;

/// Between the end of that and the pilot's: daemons need it to shut down.
const MARGIN: u32 = 300;

/// The same for a site's node and a glidein: what it names is looked at only for
/// jobs that want it, and a pilot's end only where there is one.
pub(crate) fn policy() -> String {
    let lead = VACATE + MARGIN;
    format!(
        "\
# Jobs with WantCRIU = true are asked to leave when there is still time to freeze
# them. Nothing changes for any other job: each setting keeps its own value.

# Seconds that such a job has for its image, from the signal on.
CRIU_VACATE = {VACATE}
# Seconds before GLIDEIN_ToDie at which it is asked.
CRIU_LEAD = {lead}

# Not where the probe failed, whatever the job's requirements say, and not where
# the end is so near that it would be asked to leave at once.
START = ($(START:True)) && (TARGET.WantCRIU =!= True || (MY.HasCRIU =?= True && \\
    (isInteger(MY.GLIDEIN_ToDie) =!= True || time() < MY.GLIDEIN_ToDie - $(CRIU_LEAD))))

# Nor while `criu-pilot supervise` lets the jobs of a pilot out that ends: it writes
# this file, and a slot that is free already is not taken once more.
CRIU_LEAVING = $(LOG)/criu-pilot-leaving
include ifexist : $(CRIU_LEAVING)

# Retirement is time in which nobody asks: glideinWMS's default of 10,000,000 s is
# longer than any pilot, so neither condor_vacate nor its end ever asked a job.
MaxJobRetirementTime = ifThenElse(TARGET.WantCRIU =?= True, 0, $(MaxJobRetirementTime:0))

# Pledged when the job starts; freezing, packing and sending must fit in.
MachineMaxVacateTime = ifThenElse(TARGET.WantCRIU =?= True, $(CRIU_VACATE), $(MachineMaxVacateTime:600))

# A soft signal, not a kill; glideinWMS's KILL would end it after 300 s.
WANT_VACATE = (TARGET.WantCRIU =?= True) || ($(WANT_VACATE:True))
KILL = ifThenElse(TARGET.WantCRIU =?= True, \\
    (time() - EnteredCurrentActivity) > $(CRIU_VACATE), $(KILL:False))

# Ask before the pilot ends. Without a pilot there is no GLIDEIN_ToDie, and the
# clause must be false then, not undefined.
PREEMPT = ($(PREEMPT:False)) || (TARGET.WantCRIU =?= True && isInteger(MY.GLIDEIN_ToDie) && \\
    time() > MY.GLIDEIN_ToDie - $(CRIU_LEAD))

# At the shutdown of the daemons themselves (condor_off, a drained node), and for
# 23.9's starter, which counts this from the signal on.
SHUTDOWN_GRACEFUL_TIMEOUT = {lead}

# A claim that ends by its age would be a slot given away for nothing. It is read
# in the slot's ad alone, so the job's attribute has to be copied there.
# `criu-pilot supervise` looks there for the largest job too.
STARTD_JOB_ATTRS = $(STARTD_JOB_ATTRS) WantCRIU ResidentSetSize
CLAIM_WORKLIFE = ifThenElse(MY.WantCRIU =?= True, 86400, $(CLAIM_WORKLIFE:1200))
"
    )
}
