//! The probe on nodes where all is well and on nodes where something is wrong: always an answer, and nothing left behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::binaries;
use tests::host::Host;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::{Ep, Spec};
use tests::turns;
use tests::users::User;

use crate::shared::Shared;

/// The promise is 1 s on an idle machine; tests run several at once.
const LIMIT: Duration = Duration::from_secs(3);

/// What a pilot has on a worker node: nothing.
const AS_PILOT: &str = "setpriv --reuid=pilot --regid=pilot --clear-groups --bounding-set=-all \
     --inh-caps=-all --no-new-privs";

/// Where the tests of this module probe; each in a directory of its own.
const PROBES: &str = "/home/pilot/probes";

static POOLS: Shared = Shared::new(up);

fn up(version: HtCondor) -> Result<Pool> {
    let built = binaries::dir()?;
    let mut ep = Ep::glidein();
    for name in ["criu-pilot", "criu-starter"] {
        ep = ep.install(built.join(name), name);
    }
    Pool::up(&Spec::new(version).ep(ep))
}

fn run(test: impl FnOnce(&Host) -> Result<()>) {
    let _turn = turns::take();
    POOLS.on(HtCondor::V25, |pool| test(pool.host("ep1")?));
}

/// A shell's script as root in a mount namespace of its own; `$probe` in it probes as the pilot, in `$dir`.
fn script(host: &Host, name: &str, text: &str) -> Result<String> {
    let dir = format!("{PROBES}/{name}");
    host.make_dir(&dir, User::Pilot, 0o755)?;
    let pilot = format!("{}/criu-pilot", host.libexec());
    let text = format!(
        "dir={dir} as_pilot='{AS_PILOT}' pilot={pilot}\n\
         probe=\"$as_pilot $pilot probe --dir $dir\"\n{text}"
    );
    host.run(
        User::Root,
        "/",
        &["unshare", "--mount", "bash", "-euc", &text],
    )
}

fn refused(printed: &str, words: &[&str]) -> Result<()> {
    ensure!(printed.contains("HasCRIU = false\n"), "{printed}");
    for word in words {
        ensure!(printed.contains(word), "no {word:?} in {printed}");
    }
    Ok(())
}

#[test]
fn a_node_that_can_says_what_it_can_in_time_and_space() {
    run(|host| {
        // Whoever started the probe: no variable of HTCondor's is to mislead it. 20 MB are promised, and there are no more.
        let text = "mount -t tmpfs -o size=20m,mode=777 none $dir
            export _CONDOR_JOB_AD=/nowhere
            $probe
            [ -z \"$(ls -A $dir)\" ]";
        let (mut quickest, mut complete) = (Duration::MAX, 0);
        for _ in 0..3 {
            let begun = Instant::now();
            let printed = script(host, "well", text)?;
            quickest = quickest.min(begun.elapsed());
            ensure!(printed.contains("HasCRIU = true\n"), "{printed}");
            let abilities = "CRIUAbilities = \"fork,ghost,locks,pty,shm,tcp,timens,timer,unix\"\n";
            complete += usize::from(printed.contains(abilities));
        }
        // One time in thirty CRIU loses what a terminal has not been asked for yet, and the probe says so.
        ensure!(complete > 0, "not once all of them");
        eprintln!("a probe takes {quickest:?}");
        ensure!(quickest < LIMIT, "it took {quickest:?}");
        Ok(())
    });
}

#[test]
fn json_is_the_same_ad() {
    run(|host| {
        let printed = script(host, "json", "$probe --json")?;
        let ad: serde_json::Value = serde_json::from_str(&printed)?;
        ensure!(ad["HasCRIU"] == true, "{printed}");
        ensure!(ad["CRIUKernel"].as_i64() > Some(20_000), "{printed}");
        ensure!(ad["CRIUCpuFeatures"].is_string(), "{printed}");
        Ok(())
    });
}

#[test]
fn a_site_can_switch_it_off() {
    run(|host| {
        let file = format!("{}/criu-exceptions.csv", host.libexec());
        host.write(&file, "Site-A,100,its gateway is slow\n", User::Root, 0o644)?;
        let printed = script(host, "site", "$probe --site Site-A")?;
        refused(
            &printed,
            &["switched off for this site: its gateway is slow"],
        )?;
        let printed = script(host, "site", "$probe --site Site-B")?;
        ensure!(printed.contains("HasCRIU = true\n"), "{printed}");
        Ok(())
    });
}

#[test]
fn without_user_namespaces_the_sysctl_is_named() {
    run(|host| {
        let text = "exec $as_pilot unshare --user --map-root-user sh -c '
            echo 0 >/proc/sys/user/max_user_namespaces
            exec \"$@\"' sh $pilot probe --dir $dir";
        let printed = script(host, "userns", text)?;
        refused(&printed, &["the sysctl user.max_user_namespaces is 0"])
    });
}

#[test]
fn behind_a_masked_proc_the_option_is_named() {
    run(|host| {
        let text = "mount -t tmpfs -o ro none /proc/irq && $probe";
        let printed = script(host, "masked", text)?;
        refused(&printed, &["/proc/irq", "systempaths=unconfined"])
    });
}

#[test]
fn a_full_disk_is_an_answer() {
    run(|host| {
        for size in ["64k", "1m"] {
            let text = format!(
                "mount -t tmpfs -o size={size},mode=777 none $dir && $probe && [ -z \"$(ls -A $dir)\" ]"
            );
            let printed = script(host, "full", &text)?;
            refused(&printed, &["MiB free"]).with_context(|| size.to_owned())?;
        }
        Ok(())
    });
}

#[test]
fn where_nothing_may_be_executed_the_mount_option_is_named() {
    run(|host| {
        let text = "mount -t tmpfs -o noexec,mode=777 none $dir && $probe";
        refused(&script(host, "noexec", text)?, &["mounted noexec"])?;
        let text = "mount -t tmpfs -o ro none $dir && $probe";
        refused(&script(host, "noexec", text)?, &["mounted read-only"])
    });
}

#[test]
fn a_broken_criu_is_an_answer() {
    run(|host| {
        for (criu, word) in [
            (
                "[ \"$1\" = --version ] && echo Version: 9.9.9; exit 1",
                "criu",
            ),
            (
                "[ \"$1\" = --version ] && echo Version: 9.9.9 || kill -SEGV $$",
                "criu",
            ),
            ("echo Version: nonsense", "CRIU"),
            ("exit 1", "CRIU"),
        ] {
            let text = format!(
                "printf '#!/bin/sh\\n%s\\n' '{criu}' >/tmp/criu.$$ && chmod 755 /tmp/criu.$$
                 mount --bind /tmp/criu.$$ /usr/sbin/criu && $probe && [ -z \"$(ls -A $dir)\" ]"
            );
            let printed = script(host, "broken", &text).with_context(|| criu.to_owned())?;
            let reason = printed.to_lowercase();
            refused(&printed, &[]).with_context(|| criu.to_owned())?;
            ensure!(reason.contains(&word.to_lowercase()), "{criu}: {printed}");
        }
        Ok(())
    });
}

/// Probes with a CRIU that does `instead` when a part called locks is in the job.
fn without_locks(host: &Host, name: &str, instead: &str) -> Result<String> {
    // The job is pid 2 there, and its arguments name its parts. /tmp is the job's own, so this lies elsewhere.
    let text = format!(
        "cp /usr/sbin/criu /opt/{name}-real && cat >/opt/{name} <<'END'
#!/bin/sh
case \"$1:$(tr '\\0' ' ' </proc/2/cmdline)\" in
    dump:*locks*) {instead};;
esac
exec /opt/{name}-real \"$@\"
END
         chmod 755 /opt/{name} && mount --bind /opt/{name} /usr/sbin/criu && $probe"
    );
    script(host, name, &text)
}

#[test]
fn a_part_that_cannot_be_frozen_costs_only_itself() {
    run(|host| {
        let printed = without_locks(host, "refuses", "exit 1")?;
        // On a busy machine another part may be given up too, but never the whole.
        ensure!(printed.contains("HasCRIU = true\n"), "{printed}");
        ensure!(!printed.contains("locks"), "{printed}");
        ensure!(printed.contains("CRIUAbilities = \"fork"), "{printed}");
        Ok(())
    });
}

#[test]
fn a_part_that_hangs_does_not_decide_the_whole() {
    run(|host| {
        let printed = without_locks(host, "hangs", "exec sleep 100")?;
        ensure!(printed.contains("HasCRIU = true\n"), "{printed}");
        ensure!(!printed.contains("locks"), "{printed}");
        Ok(())
    });
}

#[test]
fn a_criu_that_hangs_is_an_answer_too() {
    run(|host| {
        let text = "printf '#!/bin/sh\\nexec sleep 1234\\n' >/tmp/hang && chmod 755 /tmp/hang
            mount --bind /tmp/hang /usr/sbin/criu && $probe && [ -z \"$(ls -A $dir)\" ]
            ! pgrep -fx 'sleep 1234'";
        refused(&script(host, "hang", text)?, &["more than"])
    });
}

#[test]
fn killed_at_any_moment_the_probe_leaves_nothing_for_long() {
    run(|host| {
        // Each probe removes what the one before it left; the last one is not killed. Those of other tests run meanwhile.
        let text = "for ms in 002 005 010 020 030 045 060 080 100 130 160 200 250 300; do
                $probe >/dev/null 2>&1 & pid=$!
                sleep 0.$ms
                kill -KILL $pid 2>/dev/null || true
                wait $pid || true
                ls -A $dir >>/tmp/left
                for try in $(seq 100); do
                    pgrep -f \"^[^ ]*criu-starter run\" >/tmp/running || break
                    grep -l \"$dir\" $(sed 's|.*|/proc/&/mountinfo|' /tmp/running) 2>/dev/null | grep -q . || break
                    sleep 0.05
                done
                [ $try -lt 100 ] || { echo a job is left after $ms ms; exit 1; }
            done
            $probe
            echo left: $(ls -A $dir)
            [ -s /tmp/left ] && echo some were killed in the middle";
        let printed = script(host, "killed", text)?;
        ensure!(printed.contains("HasCRIU = true\n"), "{printed}");
        ensure!(printed.contains("left:\n"), "{printed}");
        ensure!(printed.contains("some were killed"), "{printed}");
        Ok(())
    });
}

#[test]
fn told_to_stop_the_probe_leaves_nothing_at_all() {
    run(|host| {
        let text = "for ms in 020 060 120 180 300; do
                $probe >/tmp/out 2>&1 & pid=$!
                sleep 0.$ms
                kill -TERM $pid 2>/dev/null || true
                # Where it had not begun to listen, it has not begun at all.
                wait $pid && grep -q HasCRIU /tmp/out || grep 'stopped by SIGTERM' /tmp/out || [ ! -s /tmp/out ]
                [ -z \"$(ls -A $dir)\" ]
            done";
        let printed = script(host, "stopped", text)?;
        ensure!(printed.contains("stopped by SIGTERM"), "{printed}");
        Ok(())
    });
}
