//! For OSPool's container execution point: an image made from theirs.

use super::policy;

/// Where the bundle lies in it.
const DIR: &str = "/opt/criu-pilot";

/// Seconds from the stop of the container to its end, for which its runtime has to be told too.
const GRACE: u32 = 300;

/// A Dockerfile, whole.
pub(crate) fn container() -> String {
    format!(
        r#"# syntax=docker/dockerfile:1
# The container execution point of OSPool, for jobs that survive the loss of their slot.
#   docker build -t ospool-ep-criu .        beside criu-pilot-x86_64.tar.gz, unpacked as criu-pilot/
# Run it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined and
# --stop-timeout {stop} (Kubernetes: terminationGracePeriodSeconds): a job has no more time
# for its image than the container has for its end.
FROM hub.osg-htc.org/osg-htc/ospool-ep:25-release

# criu-exceptions.csv (site,block_percent,reason) among these files switches CRIU off for sites.
COPY criu-pilot/ {DIR}/

# Sourced after 10-setup-htcondor.sh, which makes LOCAL_DIR; parsed after the main
# configuration, so each $(NAME) is the value before. LOCAL_DIR is also where jobs run.
COPY <<"END" /etc/osg/image-init.d/30-criu-pilot.sh
cat >"$LOCAL_DIR/condor_config.d/60-criu-pilot.conf" <<"CONF"
STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST) CRIU
STARTD_CRON_CRIU_EXECUTABLE = {DIR}/criu-pilot
STARTD_CRON_CRIU_ARGS = "probe --dir $(EXECUTE) --site '$ENV(GLIDEIN_Site:unknown)'"
STARTD_CRON_CRIU_MODE = Periodic
STARTD_CRON_CRIU_PERIOD = 30m
STARTD_CRON_CRIU_KILL = True
STARTD_CRON_CRIU_RECONFIG_RERUN = True
# OSPool's form of the name.
HAS_CRIU = (HasCRIU =?= True)
STARTD_ATTRS = $(STARTD_ATTRS) HAS_CRIU

{policy}CONF
END

# Their wrapper execs condor_master; in front of it stands who lets the jobs out first.
COPY --chmod=755 <<"END" /usr/local/sbin/condor_master_wrapper
#!/bin/sh
exec {DIR}/criu-pilot supervise --grace {GRACE} -- /usr/sbin/condor_master -f
END

# supervisord kills after 10 s if nobody says otherwise.
RUN sed -i '/^\[program:condor_master\]/a stopwaitsecs={stop}' /etc/supervisord.d/10-htcondor.conf
"#,
        policy = policy(),
        stop = GRACE + 20,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_configuration_ends_the_script_that_writes_it() {
        let text = container();
        for end in ["END", "CONF"] {
            let ends = text.lines().filter(|line| *line == end).count();
            assert_eq!(ends, if end == "END" { 2 } else { 1 });
        }
        assert!(!policy().contains("CONF\n"));
    }
}
