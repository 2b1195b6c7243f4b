//! What a node says of itself in its slots' ads: through STARTD_CRON, and as a custom script of a glidein.

use anyhow::{Context, Result, ensure};
use tests::binaries;
use tests::equipped::{equipped, pilot_says};
use tests::events::Exit;
use tests::host::Host;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::submit::Submit;
use tests::users::User;

use crate::shared::{Shared, on_both_versions};

on_both_versions!(
    a_slots_ad_follows_what_its_node_can,
    a_glidein_publishes_through_its_custom_script,
    one_line_in_a_job_is_enough_where_the_access_point_does_the_rest,
);

const SITE: &str = "/usr/libexec/condor";

/// `ep1` and `ep3` say it by STARTD_CRON, `ep2` is a glidein as glideinWMS makes it.
fn spec(version: HtCondor) -> Result<Spec> {
    let built = binaries::dir()?;
    let glidein = ["criu-pilot", "criu-starter"]
        .into_iter()
        .fold(Ep::glidein(), |ep, name| {
            ep.install(built.join(name), format!("/home/pilot/glide/client/{name}"))
        });
    Ok(Spec::new(version)
        .config(pilot_says(&["configure", "ap"])?)
        .ep(equipped(Ep::root())?)
        .ep(glidein)
        .ep(equipped(Ep::root())?))
}

static POOLS: Shared = Shared::new(|version| Pool::up(&spec(version)?));

fn on_shared_pool(version: HtCondor, test: fn(&Pool) -> Result<()>) {
    POOLS.on(version, test);
}

fn value(ad: &str, name: &str) -> Option<String> {
    let line = ad
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    line.map(str::to_owned)
}

fn a_slots_ad_follows_what_its_node_can(pool: &Pool) -> Result<()> {
    let host = pool.host("ep1")?;
    let when = |has: &str, after: i64| {
        pool.wait_slot(host, &format!("HasCRIU = {has}"), |ad| {
            let time: i64 = value(ad, "CRIUProbeTime")?.parse().ok()?;
            (value(ad, "HasCRIU")? == has && time >= after).then(|| (time, ad.to_owned()))
        })
    };
    let (mut first, mut ad) = when("true", 0)?;
    let has_abilities =
        |ad: &str| value(ad, "CRIUAbilities").is_some_and(|list| list.contains("fork,ghost"));
    // While pools start beside each other a probe's time may not be enough for them; a later one's is.
    for _ in 0..4 {
        if has_abilities(&ad) {
            break;
        }
        host.reconfigure("")?;
        (first, ad) = when("true", first + 1)?;
    }
    for name in [
        "CRIUVersion",
        "CRIUCpuFeatures",
        "CRIUKernel",
        "CRIUXcr0",
        "CRIUPilotVersion",
    ] {
        ensure!(value(&ad, name).is_some(), "no {name} in {ad}");
    }
    ensure!(has_abilities(&ad), "{ad}");
    // CRIU goes, and comes back; an admin who changes something says so with condor_reconfig.
    let criu = std::fs::read(host.path("/usr/sbin/criu"))?;
    host.remove("/usr/sbin/criu")?;
    host.reconfigure("")?;
    let (second, ad) = when("false", first)?;
    let reason = value(&ad, "CRIUReason").context("no reason")?;
    ensure!(
        reason.to_lowercase().contains("criu"),
        "the reason is {reason}"
    );
    host.write("/usr/sbin/criu", criu, User::Root, 0o755)?;
    host.reconfigure("")?;
    when("true", second)?;
    let left = host.run(
        User::Root,
        host.condor_dir(),
        &["find", "execute", "-name", "criu-probe*"],
    )?;
    ensure!(left.is_empty(), "left behind: {left}");
    let checked = host.run(
        User::Root,
        "/",
        &[&format!("{SITE}/criu-pilot"), "configure", "--check"],
    )?;
    ensure!(checked.contains("nothing of it"), "{checked}");
    Ok(())
}

/// The parts of glidein_startup.sh, script_wrapper.sh and condor_startup.sh that a custom script meets.
const STAND_IN: &str = r#"
set -eu
work=/home/pilot/glide
cd $work
startup() {
    # A relative name, from the glidein's directory, nothing to read.
    ./client/criu-pilot glidein_config client </dev/null >startup.out 2>startup.err
    test -s otrb_output.xml
}
periodic() {
    dir=$(mktemp -d -p $work)
    (cd $dir && GLIDEIN_PERIODIC_SCRIPT=true $work/client/criu-pilot $work/glidein_config client && test -s otrb_output.xml) </dev/null
    rm -r $dir
    echo GLIDEIN_PS_OK = True
    echo -
}
# condor_startup.sh's set_var, without what asks for required values.
set_var() {
    val=$(tac glidein_config | grep -m1 "^$1 " | cut -d ' ' -f 2-)
    [ -n "$val" ] || return 0
    [ "$4" = + ] && condor=$1 || condor=$4
    [ "$2" = S ] && str="\"$val\"" || str=$val
    echo "$condor=$str"
    [ "$6" = Y ] && echo "STARTD_ATTRS = \$(STARTD_ATTRS) $condor"
    eval "$1='$val'"
}
condor_startup() {
    grep -v '^#' condor_vars.lst | while read -r line; do [ -z "$line" ] || set_var $line; done
}
"#;

fn stand_in(host: &Host, what: &str) -> Result<String> {
    host.run(
        User::Pilot,
        "/",
        &["bash", "-c", &format!("{STAND_IN}\n{what}")],
    )
}

fn a_glidein_publishes_through_its_custom_script(pool: &Pool) -> Result<()> {
    let host = pool.host("ep2")?;
    // Everything in a glidein's directory is its user's.
    host.make_dir("/home/pilot/glide/client", User::Pilot, 0o755)?;
    stand_in(
        host,
        r#"mkdir -p condor_config.d client main
        printf '%s\n' "GLIDEIN_WORK_DIR $work/main" "GLIDECLIENT_WORK_DIR $work/client" "GLIDEIN_WORKSPACE_ORIG $work" \
            "CONDOR_VARS_FILE $work/condor_vars.lst" "GLIDEIN_Site Testbed" "FILETRANSFER_PLUGINS theirs" >glidein_config
        printf '# VarName Type Default CondorName Req. ExportCondor UserJobEnvName\nFILETRANSFER_PLUGINS C - + N N -\n' >condor_vars.lst
        startup; startup; cp -r . ../before"#,
    )?;
    let read = |name: &str| host.read(format!("/home/pilot/glide/{name}"));
    let config = read("glidein_config")?;
    for line in [
        "HAS_CRIU True",
        "HasCRIU True",
        "FILETRANSFER_PLUGINS theirs",
    ] {
        let count = config.lines().filter(|found| *found == line).count();
        ensure!(count == 1, "{count} lines {line:?} in\n{config}");
    }
    let vars = read("condor_vars.lst")?;
    for line in [
        "HAS_CRIU C - + N Y -",
        "CRIUVersion S - + N Y -",
        "CRIUKernel I - + N Y -",
    ] {
        let count = vars.lines().filter(|found| *found == line).count();
        ensure!(count == 1, "{count} lines {line:?} in\n{vars}");
    }
    let xml = read("otrb_output.xml")?;
    ensure!(
        xml.starts_with("<?xml version=\"1.0\"?>\n<OSGTestResult id=\"")
            && xml.contains("<status>OK</status>"),
        "{xml}"
    );
    let policy = read("condor_config.d/60-criu-pilot.conf")?;
    ensure!(policy.contains("START = ($(START:True))"), "{policy}");

    // The startd gets what condor_startup.sh makes of it, and asks again by itself.
    let attributes = stand_in(host, "condor_startup")?;
    host.reconfigure(&attributes)?;
    pool.wait_slot(host, "HAS_CRIU = true", |ad| {
        (value(ad, "HAS_CRIU")?.eq_ignore_ascii_case("true")
            && value(ad, "CRIUCpuVendor").is_some())
        .then_some(())
    })?;
    let of_the_startd = |name: &str| -> Result<String> {
        host.run(
            User::Pilot,
            "/",
            &["condor_config_val", "-subsystem", "STARTD", name],
        )
    };
    ensure!(of_the_startd("CRIU_VACATE")?.trim() == "1800");
    let start = of_the_startd("START")?;
    ensure!(
        start.contains("GLIDEIN_ToRetire") && start.contains("HasCRIU"),
        "{start}"
    );

    // Once the configuration is saved nothing is written; then the site is switched off.
    let unchanged =
        "for file in glidein_config condor_vars.lst; do cmp $file ../before/$file; done";
    let printed = stand_in(
        host,
        &format!("touch glidein_config.saved; startup; periodic; {unchanged}"),
    )?;
    ensure!(
        printed.contains("HAS_CRIU = True\n") && printed.ends_with("-\n"),
        "{printed}"
    );
    let printed = stand_in(
        host,
        &format!(
            "printf 'site,block_percent,reason\\nTestbed,100,\"it is <slow> & full\"\\n' >client/criu-exceptions.csv; periodic; {unchanged}"
        ),
    )?;
    ensure!(printed.contains("HasCRIU = False\n"), "{printed}");
    ensure!(
        printed.contains("switched off for this site: it is <slow> & full"),
        "{printed}"
    );
    // Never a failed validation, whatever is missing.
    stand_in(
        host,
        "rm client/criu-exceptions.csv client/criu-starter; mkdir -p ../empty; startup; cd ../empty; ../glide/client/criu-pilot glidein_config client",
    )?;
    let xml = read("otrb_output.xml")?;
    ensure!(
        xml.contains("there is no criu-starter") && xml.contains("<status>OK"),
        "{xml}"
    );
    Ok(())
}

fn one_line_in_a_job_is_enough_where_the_access_point_does_the_rest(pool: &Pool) -> Result<()> {
    let count = "#!/bin/sh\ni=0\nwhile [ $i -lt 400 ]; do i=$((i + 1)); echo $i $$; sleep 0.05; done\nexit 7\n";
    let job = pool.submit(
        &Submit::new("criu-starter")
            .program(
                "criu-starter",
                std::fs::read(binaries::dir()?.join("criu-starter"))?,
            )
            .program("count.sh", count)
            .arguments("run -- ./count.sh")
            .set("transfer_input_files", "count.sh")
            .set("should_transfer_files", "IF_NEEDED")
            .set("requirements", "TARGET.Machine == \"ep3.pool\"")
            .set("+WantCRIU", "true"),
    )?;
    for (name, wanted) in [
        ("WhenToTransferOutput", "\"ON_EXIT_OR_EVICT\""),
        ("ShouldTransferFiles", "\"YES\""),
        ("EraseOutputAndErrorOnRestart", "false"),
        ("MaxJobRetirementTime", "0"),
    ] {
        let value = job.attribute(name)?;
        ensure!(value.as_deref() == Some(wanted), "{name} is {value:?}");
    }
    let requirements = job.attribute("Requirements")?.context("none")?;
    ensure!(
        requirements.contains("ep3.pool") && requirements.contains("TARGET.HasCRIU"),
        "{requirements}"
    );
    job.wait_start(1)?;
    job.wait_scratch(".criu/srv/.criu/stdout", |text| {
        (text.lines().count() > 20).then_some(())
    })?;
    job.vacate()?;
    job.wait_evicted(1)?;
    let generation = job.attribute("ChirpCRIUGeneration")?;
    ensure!(
        generation.as_deref() == Some("1"),
        "generation {generation:?}"
    );
    let pilot = std::fs::read(binaries::dir()?.join("criu-pilot"))?;
    pool.ap()
        .write("/usr/local/bin/criu-pilot", pilot, User::Root, 0o755)?;
    let said = pool
        .ap()
        .run(User::Alice, "/", &["criu-pilot", "where", &job.id])?;
    ensure!(
        said.contains("of 3 slots are such that the job can go on from its image"),
        "{said}"
    );
    ensure!(!said.starts_with("0 of"), "{said}");
    what_people_ask(pool, &job)?;
    ensure!(job.wait_end()? == Exit::Code(7), "it ended otherwise");
    let expected: String = (1..=400).map(|i| format!("{i} 2\n")).collect();
    ensure!(job.output()? == expected, "{}", job.output()?);

    // A job that did not ask is not touched. It would end before it is looked at.
    let other = Submit::script("true").set("should_transfer_files", "IF_NEEDED");
    let other = pool.submit(&other.set("requirements", "False"))?;
    let when = other.attribute("WhenToTransferOutput")?;
    ensure!(when.as_deref() != Some("\"ON_EXIT_OR_EVICT\""), "{when:?}");
    other.remove()
}

/// The other tools for people, on an access point with a job that was evicted once.
fn what_people_ask(pool: &Pool, job: &tests::job::Job<'_>) -> Result<()> {
    let ask = |args: &[&str]| {
        pool.ap()
            .run(User::Alice, "/", &[&["criu-pilot"], args].concat())
    };
    let wanted = [
        "\"ImageGeneration\": 1",
        "\"EvictionsSurvived\": 1",
        "\"ImagePlace\": \"spool\"",
    ];
    // That the job goes on elsewhere the queue hears a moment after it does.
    tests::wait::until("the job's status", tests::job::LIMIT, || {
        let said = ask(&["status", &job.id, "--json"])?;
        Ok(wanted.iter().all(|part| said.contains(part)).then_some(()))
    })?;
    let said = ask(&["status"])?;
    ensure!(
        said.contains(&job.id) && said.contains("evictions survived"),
        "{said}"
    );
    let said = ask(&["explain", &job.id])?;
    ensure!(
        said.contains("this job was frozen before, and nothing is known"),
        "{said}"
    );
    Ok(())
}
