//! What in a job's own ad would defeat a checkpoint.

use classad::ClassAd;
use file_transfer_plugin::attributes;

use super::Finding;

const VANILLA: i64 = 5;

const ARCHIVE: &str = "checkpoint.criu";

/// Bytes of an image that arrive in a second when nothing was measured: a shared link of 100 Mbit/s.
const BYTES_PER_SECOND: f64 = 12.5e6;

/// One sentence for each, with a next step.
pub(super) fn policies(job: &ClassAd) -> Vec<Finding> {
    if job.eval_bool("WantCRIU") != Some(true) {
        return vec![Finding::fatal(
            "the job did not ask: add `+WantCRIU = true` and the other lines of `criu-pilot configure submit` to its submit file",
        )];
    }
    [
        universe,
        supervisor,
        transfer,
        list,
        spool,
        destination,
        requirements,
        signal,
        vacate_time,
    ]
    .into_iter()
    .filter_map(|policy| policy(job))
    .collect()
}

fn universe(job: &ClassAd) -> Option<Finding> {
    let universe = job.eval_int("JobUniverse").unwrap_or(VANILLA);
    (universe != VANILLA).then(|| {
        Finding::fatal(format!(
            "its universe is number {universe}, and only jobs of the vanilla universe (5) have a slot that can be lost and regained: use `universe = vanilla`"
        ))
    })
}

fn supervisor(job: &ClassAd) -> Option<Finding> {
    let program = job.eval_str("Cmd")?;
    let name = program.rsplit('/').next().unwrap_or_default();
    (name != "criu-starter").then(|| {
        Finding::note(format!(
            "its executable is {name}, so it is frozen only on slots whose prepare hook puts criu-starter before it; where there is none, \
             make criu-starter the executable and `run -- ./{name} ...` its arguments"
        ))
    })
}

fn transfer(job: &ClassAd) -> Option<Finding> {
    let when = job.eval_str("WhenToTransferOutput").unwrap_or_default();
    let should = job.eval_str("ShouldTransferFiles").unwrap_or_default();
    if should.eq_ignore_ascii_case("NO") {
        return Some(Finding::fatal(
            "ShouldTransferFiles is NO, so no image leaves the slot: use `should_transfer_files = YES`",
        ));
    }
    (!when.eq_ignore_ascii_case("ON_EXIT_OR_EVICT")).then(|| {
        Finding::fatal(format!(
            "WhenToTransferOutput is {when:?}, so the image is thrown away with the slot: use `when_to_transfer_output = ON_EXIT_OR_EVICT`"
        ))
    })
}

fn list(job: &ClassAd) -> Option<Finding> {
    let list = job
        .eval_str("TransferOutput")
        .filter(|list| !list.is_empty())?;
    let listed = list.split(',').any(|name| name.trim() == ARCHIVE);
    (!listed).then(|| {
        Finding::note(format!(
            "its transfer_output_files are {list:?}, and HTCondor sends exactly these at an eviction: unless criu-starter adds {ARCHIVE} to them \
             on this access point, leave the command out, so that all new files are sent"
        ))
    })
}

fn spool(job: &ClassAd) -> Option<Finding> {
    let remaps = job.eval_str("TransferOutputRemaps").unwrap_or_default();
    let is_stored = remaps.contains(&format!("{ARCHIVE}=criu"));
    (job.eval_bool("SpoolOnEvict") == Some(false) && !is_stored).then(|| {
        Finding::fatal(
            "SpoolOnEvict is false and no store is named, so the image goes to the submit directory and never comes back: leave +SpoolOnEvict out",
        )
    })
}

fn destination(job: &ClassAd) -> Option<Finding> {
    let url = job.eval_str("CheckpointDestination")?;
    Some(Finding::fatal(format!(
        "its checkpoint_destination is {url}, and then HTCondor gives nothing of the spool back to it, our image neither: leave the command out"
    )))
}

fn requirements(job: &ClassAd) -> Option<Finding> {
    let text = job
        .get("Requirements")
        .map(|expr| expr.to_old().to_lowercase())
        .unwrap_or_default();
    (!text.contains(&attributes::HAS_CRIU.to_lowercase())).then(|| {
        Finding::fatal(
            "its Requirements do not ask for HasCRIU, so it may run where it cannot be frozen and land where its image cannot run: \
             add what `criu-pilot configure submit` prints",
        )
    })
}

fn signal(job: &ClassAd) -> Option<Finding> {
    let name = job
        .eval_str("RemoveKillSig")
        .or_else(|| job.eval_str("KillSig"))?;
    let bare = name.trim_start_matches("SIG");
    ["KILL", "9", "STOP", "19"].contains(&bare).then(|| {
        Finding::fatal(format!(
            "the signal by which it is asked to leave is {name}, which nobody can catch: leave kill_sig and remove_kill_sig out"
        ))
    })
}

fn vacate_time(job: &ClassAd) -> Option<Finding> {
    let given = job
        .eval_int("JobMaxVacateTime")
        .or_else(|| job.eval_int("KillSigTimeout"))?;
    let needed = seconds_needed(job)?;
    (given < needed).then(|| {
        Finding::fatal(format!(
            "JobMaxVacateTime gives it {given} s, its last image took about {needed} s to freeze, pack and send: raise job_max_vacate_time, or leave it out"
        ))
    })
}

/// For another image like the last one, with its way over a slow link.
pub(super) fn seconds_needed(job: &ClassAd) -> Option<i64> {
    let real = |name| job.evaluate(name).as_real();
    let sent = real(attributes::JOB_BYTES)? / BYTES_PER_SECOND;
    let taken = real(attributes::JOB_DUMP_SECONDS).unwrap_or(0.0)
        + real(attributes::JOB_PACK_SECONDS).unwrap_or(0.0);
    Some((sent + taken).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "WantCRIU = true\nJobUniverse = 5\nCmd = \"/home/alice/criu-starter\"\nShouldTransferFiles = \"YES\"\n\
                        WhenToTransferOutput = \"ON_EXIT_OR_EVICT\"\nRequirements = TARGET.HasCRIU =?= true\n";

    fn found(more: &str) -> Vec<Finding> {
        policies(&ClassAd::parse_old(&format!("{GOOD}{more}")).unwrap())
    }

    #[test]
    fn what_we_print_for_a_job_has_no_fault() {
        assert_eq!(found(""), []);
        assert_eq!(
            found("SpoolOnEvict = false\nTransferOutputRemaps = \"checkpoint.criu=criu://ap/12\""),
            []
        );
    }

    #[test]
    fn each_policy_that_defeats_it_is_found() {
        for (line, word) in [
            ("WantCRIU = false", "did not ask"),
            ("JobUniverse = 7", "universe is number 7"),
            ("ShouldTransferFiles = \"NO\"", "no image leaves"),
            ("WhenToTransferOutput = \"ON_EXIT\"", "thrown away"),
            ("SpoolOnEvict = false", "never comes back"),
            (
                "CheckpointDestination = \"file:///c\"",
                "nothing of the spool",
            ),
            ("Requirements = true", "HasCRIU"),
            ("KillSig = \"SIGKILL\"", "nobody can catch"),
            (
                "JobMaxVacateTime = 60\nChirpCRIUBytes = 1000000000\nChirpCRIUDumpSeconds = 3.5",
                "took about 84 s",
            ),
        ] {
            let found = found(line);
            assert_eq!(found.len(), 1, "{line}: {found:?}");
            assert!(
                found[0].fatal && found[0].sentence.contains(word),
                "{line}: {found:?}"
            );
        }
    }

    #[test]
    fn what_depends_on_the_slot_or_the_access_point_is_a_hint() {
        for line in ["Cmd = \"simulate\"", "TransferOutput = \"a,b\""] {
            let found = found(line);
            assert!(found.len() == 1 && !found[0].fatal, "{line}: {found:?}");
        }
    }
}
