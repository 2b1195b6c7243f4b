//! The pools: for each worker a pair of execution points, with small disks that can be filled.

use std::sync::RwLock;

use anyhow::{Context, Result};
use file_transfer_plugin::rig;

use crate::binaries;
use crate::equipped::equipped;
use crate::host::Host;
use crate::pool::Pool;
use crate::roots::HtCondor;
use crate::spec::{Ep, Spec};
use crate::store::{self, Store};
use crate::users::User;

/// Daemons come back at once, and a peer that is gone is missed in half a minute instead of two hours.
const QUICK: &str = "\
MASTER_BACKOFF_CONSTANT = 1
MASTER_BACKOFF_CEILING = 2
ALIVE_INTERVAL = 5
TCP_KEEPALIVE_INTERVAL = 5
JOB_DEFAULT_LEASE_DURATION = 40";

/// The kernel's own limit for data on its way to a peer that is gone is a quarter of an hour.
const GIVE_UP_SOON: &str = "echo 7 >/proc/sys/net/ipv4/tcp_retries2";

/// Kinds of execution points, which workers have in turn.
pub(super) const POINTS: [&str; 2] = ["root", "glidein"];

/// A pool on which cells are tried.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) pool: Pool,
    /// Cells whose fault is felt by others run alone.
    pub(super) everybody: RwLock<()>,
}

impl Ground {
    pub(super) fn up(version: HtCondor, workers: usize) -> Result<Ground> {
        let plugin = binaries::paused()?.join("criu-transfer");
        let mut spec = Spec::new(version).config(QUICK);
        for worker in 0..workers {
            for _ in 0..2 {
                let kind = if worker % 2 == 0 {
                    Ep::root()
                } else {
                    Ep::glidein()
                };
                // Two slots, so that one that a killed starter has left in a bad state is not in the job's way.
                let ep = equipped(kind)?
                    .slots(2)
                    .disk("192m")
                    .install(&plugin, "criu-transfer");
                spec = spec.ep(ep
                    .config(QUICK)
                    .config("STARTD_ENVIRONMENT = \"CRIU_TRANSFER_PATIENCE=20\"")
                    .config(
                        "FILETRANSFER_PLUGINS = $(FILETRANSFER_PLUGINS), $(POOL_LIBEXEC)/criu-transfer",
                    ));
            }
        }
        let pool = Pool::up(&spec)?;
        for host in pool.hosts() {
            host.run(User::Root, "/", &["sh", "-c", GIVE_UP_SOON])?;
        }
        for host in pool.eps() {
            host.make_dir(rig::DIR, User::Root, 0o777)?;
            pool.wait_slot(host, "that it can freeze", |ad| {
                ad.contains("HasCRIU = true").then_some(())
            })?;
        }
        let ap = pool.ap();
        ap.mount_disk(store::IMAGES, "1g")?;
        Store::up(&pool)?;
        Ok(Ground {
            pool,
            everybody: RwLock::new(()),
        })
    }

    /// The hosts of a worker.
    pub(super) fn pair(&self, worker: usize) -> Result<(&Host, &Host)> {
        let hosts = self.pool.eps().get(2 * worker..2 * worker + 2);
        let hosts = hosts.context("there is no such worker")?;
        Ok((&hosts[0], &hosts[1]))
    }
}
