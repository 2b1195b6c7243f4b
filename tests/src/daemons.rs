//! HTCondor's daemons on a host: their directories, their configuration file, their start.

use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::host::{Host, Role};
use crate::roots::HtCondor;
use crate::users::User;

impl Host {
    /// The directory that holds HTCondor's local state on this host.
    pub fn condor_dir(&self) -> &'static str {
        match self.role {
            Role::Glidein => "/home/pilot/glide",
            Role::AccessPoint | Role::Root => "/var/lib/condor/pool",
        }
    }

    /// The directory for programs of ours that HTCondor calls: `libexec`, or the glidein's own.
    pub fn libexec(&self) -> &'static str {
        match self.role {
            Role::Glidein => "/home/pilot/glide/main",
            Role::AccessPoint | Role::Root => "/usr/libexec/condor",
        }
    }

    /// Whose processes the daemons are.
    pub fn daemons(&self) -> User {
        if self.role == Role::Glidein {
            User::Pilot
        } else {
            User::Root
        }
    }

    /// Makes HTCondor's directories, and starts its master with `config`.
    pub(crate) fn start_condor(&self, version: HtCondor, config: &str) -> Result<()> {
        let dir = self.condor_dir();
        let user = self.daemons();
        let (condor_uid, condor_gid) = match user {
            User::Root => self.condor_ids()?,
            other => (other.uid(), other.uid()),
        };
        for name in [
            "", "log", "spool", "execute", "lock", "run", "cred", "main", "tmp",
        ] {
            let path = Path::new(dir).join(name);
            self.make_dir(&path, user, 0o755)?;
            chown(self.path(&path), Some(condor_uid), Some(condor_gid))?;
        }
        self.write(self.config_file(), config, user, 0o644)?;
        // A glidein's startup script keeps the master in the foreground below itself; here its parent is the host's init.
        let mut command = self.command(user, dir)?;
        let status = command
            .args([
                "sh",
                "-c",
                "setsid condor_master -f >log/master.out 2>&1 </dev/null &",
            ])
            .status()
            .context("run nsenter")?;
        if !status.success() {
            bail!(
                "HTCondor {version} on {} could not be started: {status}",
                self.name
            );
        }
        Ok(())
    }

    /// Adds lines to HTCondor's configuration and makes the running daemons read it.
    pub fn reconfigure(&self, lines: &str) -> Result<()> {
        let config = self.read(self.config_file())? + lines + "\n";
        self.write(self.config_file(), config, self.daemons(), 0o644)?;
        self.run(self.daemons(), self.condor_dir(), &["condor_reconfig"])
            .map(drop)
    }

    pub(crate) fn config_file(&self) -> &'static str {
        match self.role {
            Role::Glidein => "/home/pilot/glide/condor_config",
            Role::AccessPoint | Role::Root => "/etc/condor/condor_config",
        }
    }

    fn condor_ids(&self) -> Result<(u32, u32)> {
        let passwd = self.read("/etc/passwd")?;
        let ids = passwd.lines().find_map(|line| {
            let mut fields = line.strip_prefix("condor:")?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        ids.with_context(|| format!("no user condor on {}", self.name))
    }
}
