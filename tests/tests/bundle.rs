//! The one file that a node gets.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::cpus::{here, tree};
use tests::scratch::Scratch;
use tests::{binaries, bundle, machine, require};

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
