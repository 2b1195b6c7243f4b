//! `criu-pilot report` on the event log of a schedd whose jobs have lost slots with and without a signal.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::equipped::{equipped, pilot_says, survivor};
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::users::User;

const COUNT: &str = "#!/bin/sh
i=0
while [ $i -lt 170 ]; do i=$((i + 1)); echo $i >>numbers; sleep 0.05; done
";

fn report(version: HtCondor) -> Result<()> {
    let pool = Pool::up(
        &Spec::new(version)
            .config(pilot_says(&["configure", "ap"])?)
            .ep(equipped(Ep::root())?)
            .ep(equipped(Ep::glidein())?),
    )?;
    let job = pool.submit(&survivor("count.sh", COUNT, "")?)?;
    for (start, enough) in [(1, 40), (2, 110)] {
        job.wait_start(start)?;
        job.wait_scratch(".criu/srv/numbers", |text| {
            (text.lines().count() >= enough).then_some(())
        })?;
        if start == 1 {
            job.vacate()?;
        } else {
            let fast = ["condor_vacate_job", "-fast", &job.id];
            pool.ap().run(User::Root, "/", &fast)?;
        }
        job.wait_evicted(start)?;
    }
    job.wait_end()?;

    let log = pool
        .ap()
        .run(User::Root, "/", &["condor_config_val", "EVENT_LOG"])?;
    let log = pool.ap().path(log.trim());
    let log = log.to_str().context("a path of ours")?;
    let told: Value = serde_json::from_str(&pilot_says(&["report", "--json", log])?)?;
    let spans = told["jobs"][0]["spans"].as_array().context("spans")?;
    let seconds = |doing: &str| -> f64 {
        spans
            .iter()
            .filter(|span| span["doing"] == doing)
            .map(|span| span["to"].as_f64().unwrap_or(0.0) - span["from"].as_f64().unwrap_or(0.0))
            .sum()
    };
    // The log's times are whole seconds. Forty steps take two at least, and what the second slot added takes one.
    ensure!(seconds("saved") >= 1.0, "saved: {told:#}");
    ensure!(seconds("lost") >= 1.0, "lost: {told:#}");
    ensure!(seconds("finished") >= 2.0, "finished: {told:#}");
    ensure!(seconds("unknown") == 0.0, "unknown: {told:#}");
    let totals = &told["totals"];
    ensure!(
        totals["by_user"]["alice"]["evictions"] == 2 && totals["by_user"]["alice"]["images"] == 1,
        "{totals:#}"
    );
    // A glidein names its site, a site's own node has none and is called by its host.
    let sites = totals["by_site"].as_object().context("sites")?;
    let names: Vec<_> = sites.keys().map(String::as_str).collect();
    ensure!(names == ["Testbed", "ep1"], "{names:?}");
    Ok(())
}

#[test]
fn a_report_counts_each_second_once_v23_9() {
    require!(root, namespaces, roots);
    report(HtCondor::V23_9).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_report_counts_each_second_once_v25() {
    require!(root, namespaces, roots);
    report(HtCondor::V25).unwrap_or_else(|error| panic!("{error:#}"));
}
