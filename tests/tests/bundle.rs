//! The one file that a node gets.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::cpus::{here, tree};
use tests::host::Host;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::users::User;
use tests::{binaries, bundle, machine, require};

use crate::place::{Place, each_line_once};
use crate::prepare::IMAGE;

#[test]
fn unpacked_where_there_is_nothing_else_it_freezes_and_thaws() {
    require!(root, namespaces, user_namespaces, roots);
    let probe = || -> Result<()> {
        let root = Scratch::new("bare")?;
        tree::bare(root.path())?;
        bundle::unpack(&bundle::tarball()?, &root.path().join("mnt"))?;
        let pilot = format!("/mnt/{}/criu-pilot", bundle::NAME);
        let printed = here::run_in(root.path(), &[&pilot, "probe", "--dir", "/tmp"])?;
        ensure!(printed.contains("HasCRIU = true\n"), "{printed}");
        ensure!(printed.contains("CRIUVersion = \"4."), "{printed}");
        Ok(())
    };
    probe().unwrap_or_else(|error| panic!("{error:#}"));
}

/// A shell counts until `go` is there: the image has little more than that.
const COUNT: &str = r#"#!/bin/sh
i=0
until [ -e go ]; do
    i=$((i + 1))
    echo "line $i"
    sleep 0.02
done
echo "$i lines" >result
exit 7
"#;

/// Where a container has the bundle.
const BUNDLE: &str = "/opt/bundle";

#[test]
fn inside_a_container_that_has_nothing_it_freezes_and_thaws() {
    require!(root, namespaces, user_namespaces, roots);
    let test = || -> Result<()> {
        // Apptainer is in the root of the newer version alone.
        let pool = Pool::up(&Spec::bare(HtCondor::V25))?;
        let host = pool.ap();
        host.run(User::Root, "/", &["sh", "-c", IMAGE])?;
        host.make_dir(format!("/opt/image{BUNDLE}"), User::Root, 0o755)?;
        // By the host itself, as its admin would: seen from here its directories are no places for a library to unpack to.
        let tarball = fs::read(bundle::tarball()?)?;
        host.write("/opt/bundle.tar.gz", tarball, User::Root, 0o644)?;
        let unpack = ["tar", "-xzf", "/opt/bundle.tar.gz", "-C", "/opt"];
        host.run(User::Root, "/", &unpack)?;
        freeze_and_thaw_in_a_container(host)
    };
    test().unwrap_or_else(|error| panic!("{error:#}"));
}

/// As a user without any privilege, each life in a container of its own.
fn freeze_and_thaw_in_a_container(host: &Host) -> Result<()> {
    let run = |place: &mut Place<'_>| {
        let bundled = format!("/opt/{}:{BUNDLE}", bundle::NAME);
        let srv = format!("{}:/srv", place.dir);
        let starter = format!("{BUNDLE}/criu-starter");
        let container = [
            "apptainer",
            "exec",
            "--userns",
            "--containall",
            "--underlay",
            "--pwd",
            "/srv",
            "--bind",
            &srv,
            "--bind",
            &bundled,
            "/opt/image",
        ];
        place.start(&[&container[..], &[&starter, "run", "--", "./job"]].concat())
    };
    let mut here = Place::with(host, "contained", COUNT)?;
    run(&mut here)?;
    here.wait_for("line 20")?;
    here.freeze()?;
    let mut there = here.moved("contained-too")?;
    run(&mut there)?;
    there.wait_for(&format!("line {}", here.read("out").lines().count() + 20))?;
    there.finish()?;
    each_line_once(&(here.read("out") + &there.read("out")))
}

#[test]
fn it_is_small_and_the_same_each_time_and_offers_every_source() {
    require!(root, namespaces, roots);
    let look = || -> Result<()> {
        let first = fs::read(bundle::tarball()?)?;
        let second = bundle::pack(binaries::dir()?, machine::workspace())?;
        ensure!(first == second, "two packings of the same differ");
        ensure!(first.len() as u64 <= bundle::LIMIT);
        let dir = Scratch::new("unpacked")?;
        bundle::unpack(&bundle::tarball()?, dir.path())?;
        let licences = dir.path().join(bundle::NAME).join("licences");
        let readme = fs::read_to_string(licences.join("README"))?;
        ensure!(readme.contains("https://snapshot.debian.org/package/criu/"));
        for package in ["criu", "libc6", "musl"] {
            let terms = licences.join(package).join("copyright");
            let length = fs::metadata(&terms).with_context(|| package)?.len();
            ensure!(length > 1000, "{package}");
        }
        Ok(())
    };
    look().unwrap_or_else(|error| panic!("{error:#}"));
}
