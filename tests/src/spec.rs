//! What a pool is to consist of: built by its caller, brought up by [`crate::pool`].

use std::path::PathBuf;
use std::time::Duration;

use crate::host::Role;
use crate::roots::{HtCondor, Root};

/// A file to put on an execution point before its daemons start.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
}

/// An execution point to be.
#[derive(Debug, Clone)]
pub struct Ep {
    pub(crate) role: Role,
    pub(crate) criu: bool,
    pub(crate) slots: u32,
    pub(crate) lifetime: Duration,
    pub(crate) disk: Option<String>,
    pub(crate) config: Vec<String>,
    pub(crate) installs: Vec<Install>,
}

impl Ep {
    /// Daemons run as root, jobs as their users.
    pub fn root() -> Self {
        Self::new(Role::Root)
    }

    /// Daemons and jobs run as one ordinary user without capabilities, configured as glideinWMS does.
    pub fn glidein() -> Self {
        Self::new(Role::Glidein)
    }

    fn new(role: Role) -> Self {
        Self {
            role,
            criu: true,
            slots: 1,
            lifetime: Duration::from_secs(86_400),
            disk: None,
            config: Vec::new(),
            installs: Vec::new(),
        }
    }

    /// The host has no CRIU.
    #[must_use]
    pub fn without_criu(mut self) -> Self {
        self.criu = false;
        self
    }

    /// Static slots, one core each.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// A disk of its own for the jobs' scratch directories, of a size as mount writes it.
    #[must_use]
    pub fn disk(mut self, size: &str) -> Self {
        self.disk = Some(size.to_owned());
        self
    }

    /// A glidein's time from its start to `GLIDEIN_ToDie`.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Lines of HTCondor configuration, after all others. `$(POOL_LIBEXEC)` is where [`Self::install`] puts programs.
    #[must_use]
    pub fn config(mut self, lines: impl Into<String>) -> Self {
        self.config.push(lines.into());
        self
    }

    /// Copies a program of the machine to `to`: absolute, or a name in [`libexec`](crate::host::Host::libexec).
    #[must_use]
    pub fn install(mut self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        self.installs.push(Install {
            from: from.into(),
            to: to.into(),
        });
        self
    }
}

/// A pool to be.
#[derive(Debug, Clone)]
pub struct Spec {
    pub(crate) version: HtCondor,
    pub(crate) root: Root,
    pub(crate) eps: Vec<Ep>,
    pub(crate) config: Vec<String>,
    pub(crate) bare: bool,
}

impl Spec {
    /// A pool of `version` with no execution point yet.
    pub fn new(version: HtCondor) -> Self {
        Self {
            version,
            root: version.into(),
            eps: Vec::new(),
            config: Vec::new(),
            bare: false,
        }
    }

    /// One host with no daemon of HTCondor's, for what is done by hand.
    pub fn bare(version: HtCondor) -> Self {
        Self {
            bare: true,
            ..Self::new(version)
        }
    }

    /// Hosts of another root, which must be bare where it has no HTCondor.
    #[must_use]
    pub fn root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    /// One more execution point; the first is `ep1`.
    #[must_use]
    pub fn ep(mut self, ep: Ep) -> Self {
        self.eps.push(ep);
        self
    }

    /// Lines of HTCondor configuration for the access point, after all others.
    #[must_use]
    pub fn config(mut self, lines: impl Into<String>) -> Self {
        self.config.push(lines.into());
        self
    }
}
