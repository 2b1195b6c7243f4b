//! The prepare hook: a job of whatever kind needs one line, and those that did not ask notice nothing.

use anyhow::{Context, Result, ensure};
use tests::equipped::{equipped, pilot_says};
use tests::events::{Event, Exit};
use tests::job::Job;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;

use crate::shared::{Shared, on_both_versions};

on_both_versions!(
    one_line_in_a_job_is_enough_on_a_sites_own_nodes,
    one_line_in_a_job_is_enough_on_glideins,
    a_program_of_the_node_and_arguments_with_blanks_stay_as_they_are,
    a_job_that_did_not_ask_is_not_touched,
    the_slots_own_hook_is_heard_first,
    a_job_whose_image_could_not_leave_is_told_so_and_runs,
);

/// Apptainer is in the root of the newer version alone.
#[test]
fn a_container_job_survives_on_a_sites_own_nodes() {
    CONTAINERS.on(HtCondor::V25, |pool| container(pool, ["ep1", "ep2"]));
}

#[test]
fn a_container_job_survives_on_glideins() {
    CONTAINERS.on(HtCondor::V25, |pool| container(pool, ["ep3", "ep4"]));
}

const LAST: u32 = 120;

const COUNT: &str = "#!/bin/sh
i=0
while [ $i -lt 120 ]; do
    i=$((i + 1))
    echo \"$i $$\" >>numbers
    echo \"line $i\"
    sleep 0.05
done
exit 7
";

/// Of a slot that has a hook already: it gives the job a variable, and turns one job away.
const OTHER_HOOK: &str = "#!/bin/sh
grep -q 'TurnMeAway = true' && { echo 'HookStatusCode = 310'; exit 0; }
echo 'Environment = \"FROM_HOOK=yes\"'
";

const OTHER_HOOK_PATH: &str = "/opt/other-hook";

/// A root file system for apptainer: a shell, `sleep`, and what they need.
pub(crate) const IMAGE: &str = "set -e
image=/opt/image
mkdir -p $image/bin $image/dev $image/etc $image/proc $image/sys $image/srv $image/tmp $image/var/tmp $image/root
for program in sh sleep cat; do
    cp -L $(command -v $program) $image/bin/
    for library in $(ldd $(command -v $program) | grep -o '/[^ ]*'); do
        mkdir -p $image$(dirname $library)
        cp -L $library $image$library
    done
done
echo root:x:0:0::/root:/bin/sh >$image/etc/passwd
echo root:x:0: >$image/etc/group
mkdir -p $image/.singularity.d/actions
printf '#!/bin/sh\\nexit 0\\n' >$image/.singularity.d/actions/test
chmod +x $image/.singularity.d/actions/test
echo pinned-image >$image/etc/os-release";

/// Two nodes of a site and two glideins, and an access point with our transform.
fn four(version: HtCondor) -> Result<Spec> {
    Ok(Spec::new(version)
        .config(pilot_says(&["configure", "ap"])?)
        .ep(equipped(Ep::root())?)
        .ep(equipped(Ep::root())?)
        .ep(equipped(Ep::glidein())?)
        .ep(equipped(Ep::glidein())?))
}

fn with_hooks(version: HtCondor) -> Result<Pool> {
    let chained = "\
STARTER_JOB_HOOK_KEYWORD = OTHER
OTHER_HOOK_PREPARE_JOB = $(POOL_LIBEXEC)/criu-starter
OTHER_HOOK_PREPARE_JOB_ARGS = prepare --then /opt/other-hook";
    let pool = Pool::up(&four(version)?.ep(equipped(Ep::root())?.config(chained)))?;
    pool.host("ep5")?
        .write(OTHER_HOOK_PATH, OTHER_HOOK, User::Root, 0o755)?;
    Ok(pool)
}

fn with_images(version: HtCondor) -> Result<Pool> {
    let pool = Pool::up(&four(version)?)?;
    for host in pool.eps() {
        host.run(User::Root, "/", &["sh", "-c", IMAGE])?;
    }
    Ok(pool)
}

static POOLS: Shared = Shared::new(with_hooks);
static CONTAINERS: Shared = Shared::new(with_images);

fn on_shared_pool(version: HtCondor, test: fn(&Pool) -> Result<()>) {
    POOLS.on(version, test);
}

/// On another one of these hosts each time.
fn among(submit: Submit, hosts: [&str; 2]) -> Submit {
    let here = hosts.map(|host| format!("TARGET.Machine == \"{host}.pool\""));
    submit.requiring(&format!(
        "({}) && TARGET.Name =!= MY.LastRemoteHost",
        here.join(" || ")
    ))
}

fn one_line_in_a_job_is_enough_on_a_sites_own_nodes(pool: &Pool) -> Result<()> {
    one_line(pool, ["ep1", "ep2"])
}

fn one_line_in_a_job_is_enough_on_glideins(pool: &Pool) -> Result<()> {
    one_line(pool, ["ep3", "ep4"])
}

fn one_line(pool: &Pool, hosts: [&str; 2]) -> Result<()> {
    let submit = Submit::new("count.sh")
        .program("count.sh", COUNT)
        .set("+WantCRIU", "true");
    let job = pool.submit(&among(submit, hosts))?;
    survives(&job)?;
    // Neither the tools nor the program have come home: what is there was there, or is the job's.
    let there = pool.ap().run(User::Root, &job.dir, &["ls", "-A"])?;
    let expected = [
        "count.sh", "job.err", "job.log", "job.out", "job.sub", "numbers",
    ];
    ensure!(
        there.lines().eq(expected),
        "the job's directory has {there}"
    );
    Ok(())
}

/// One eviction in the middle, and every line once, from one process.
fn survives(job: &Job<'_>) -> Result<()> {
    let first = job.wait_start(1)?;
    job.wait_scratch(".criu/srv/numbers", |text| {
        (text.lines().count() as u32 >= LAST / 3).then_some(())
    })?;
    job.vacate()?;
    job.wait_evicted(1)?;
    let generation = job.attribute("ChirpCRIUGeneration")?;
    ensure!(
        generation.as_deref() == Some("1"),
        "generation {generation:?}, reason {:?}",
        job.attribute("ChirpCRIUReason")?
    );
    ensure!(job.wait_start(2)? != first, "it came back to {first}");
    let exit = job.wait_end()?;
    ensure!(
        exit == Exit::Code(7),
        "it ended with {exit:?}: {}",
        job.error()?
    );
    let numbers: String = (1..=LAST).map(|i| format!("{i} 2\n")).collect();
    ensure!(
        job.file("numbers")? == numbers,
        "numbers:\n{}",
        job.file("numbers")?
    );
    let lines: String = (1..=LAST).map(|i| format!("line {i}\n")).collect();
    ensure!(job.output()? == lines, "stdout:\n{}", job.output()?);
    // Apptainer has its own opinion on --underlay, and says it wherever it is.
    let apptainers = |line: &&str| line.contains("--underlay has been deprecated");
    let error = job.error().unwrap_or_default();
    let ours = error.lines().find(|line| !apptainers(line));
    ensure!(ours.is_none(), "stderr:\n{error}");
    Ok(())
}

fn container(pool: &Pool, hosts: [&str; 2]) -> Result<()> {
    for host in hosts {
        pool.wait_slot(pool.host(host)?, "a slot with containers", |ad| {
            ad.contains("HasSingularity = true").then_some(())
        })?;
    }
    let inside = COUNT.replacen("i=0\n", "i=0\ncat /etc/os-release >image\n", 1);
    let submit = Submit::new("count.sh")
        .program("count.sh", inside)
        .set("universe", "container")
        .set("container_image", "/opt/image")
        .set("transfer_container", "false")
        .set("+WantCRIU", "true");
    let job = pool.submit(&among(submit, hosts))?;
    survives(&job)?;
    let image = job.file("image")?;
    ensure!(
        image == "pinned-image\n",
        "it ran outside its image: {image}"
    );
    Ok(())
}

fn a_program_of_the_node_and_arguments_with_blanks_stay_as_they_are(pool: &Pool) -> Result<()> {
    let submit = Submit::new("/bin/sh")
        .arguments(r#""-c 'pwd; for word; do echo $word.; done' sh 'two words' 'it''s' plain""#)
        .set("+WantCRIU", "true");
    // The second execution point of the pair is never needed.
    let job = pool.submit(&among(submit, ["ep1", "ep3"]))?;
    let exit = job.wait_end()?;
    ensure!(exit == Exit::Code(0), "{exit:?}: {}", job.error()?);
    let output = job.output()?;
    ensure!(
        output == "/srv\ntwo words.\nit's.\nplain.\n",
        "it got {output:?}"
    );
    Ok(())
}

/// Not a byte in its ad, not five milliseconds of its time.
fn a_job_that_did_not_ask_is_not_touched(pool: &Pool) -> Result<()> {
    let job = pool.submit(&Submit::script("pwd; ls -A; cat .job.ad").on_host("ep1"))?;
    ensure!(job.wait_end()? == Exit::Code(0), "{}", job.error()?);
    let output = job.output()?;
    ensure!(!output.starts_with("/srv\n"), "it was moved: {output}");
    ensure!(!output.contains(".criu"), "it got our files: {output}");

    let host = pool.host("ep1")?;
    let (_, ad) = output
        .split_once("job.sh\n")
        .context("no ad in its output")?;
    host.write("/tmp/ad", ad, User::Root, 0o644)?;
    // The CPU's time: the machine has other things to do.
    let time = "TIMEFORMAT='%U %S'
        time for i in $(seq 100); do /usr/libexec/condor/criu-starter prepare </tmp/ad; done";
    let printed = host.run(
        User::Alice,
        "/tmp",
        &["bash", "-c", &format!("{{ {time}; }} 2>&1")],
    )?;
    let times: Result<Vec<f64>, _> = printed.split_whitespace().map(str::parse).collect();
    let times = times.with_context(|| format!("it printed more than times: {printed}"))?;
    let milliseconds = times.iter().sum::<f64>() * 1000.0 / 100.0;
    eprintln!("a job that did not ask costs {milliseconds} ms, the shell's fork included");
    ensure!(milliseconds < 5.0, "{milliseconds} ms");
    Ok(())
}

fn the_slots_own_hook_is_heard_first(pool: &Pool) -> Result<()> {
    let submit = |script: &str| Submit::script(script).set("+WantCRIU", "true");
    let job =
        pool.submit(&submit("echo $FROM_HOOK; pwd").requiring("TARGET.Machine == \"ep5.pool\""))?;
    ensure!(job.wait_end()? == Exit::Code(0), "{}", job.error()?);
    let output = job.output()?;
    ensure!(output == "yes\n/srv\n", "it printed {output:?}");

    let away = submit("true")
        .set("+TurnMeAway", "true")
        .requiring("TARGET.Machine == \"ep5.pool\"");
    let job = pool.submit(&away)?;
    job.wait("the other hook's verdict", tests::job::LIMIT, |events| {
        events
            .iter()
            .find(|event| event.to_string().contains("reported status 310"))
            .cloned()
    })?;
    job.remove()
}

fn a_job_whose_image_could_not_leave_is_told_so_and_runs(pool: &Pool) -> Result<()> {
    let submit = Submit::script("echo done; pwd")
        .set("+WantCRIU", "true")
        .set("transfer_output_files", "\"\"")
        .requiring("TARGET.Machine == \"ep2.pool\"");
    let job = pool.submit(&submit)?;
    ensure!(job.wait_end()? == Exit::Code(0), "{}", job.error()?);
    ensure!(job.output()?.starts_with("done\n"), "{}", job.output()?);
    let said = |event: &Event| event.to_string().contains("without protection");
    ensure!(
        job.events()?.iter().any(said),
        "nobody said so: {}",
        job.file("job.log")?
    );
    Ok(())
}
