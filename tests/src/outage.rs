//! What breaks: power, networks and daemons of a host, and how they come back.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::roots::HtCondor;
use crate::users::User;
use crate::wait;

impl Host {
    /// Cable out, then all processes at once: nobody is told, not even by a closed connection.
    pub fn lose_power(&self) -> Result<()> {
        self.cut()?;
        self.kill_all()
    }

    /// All processes but the host's init, at once; their connections are closed by the kernel.
    pub fn kill_all(&self) -> Result<()> {
        // It ends what started it too, so how that ended says nothing.
        let _ = self.run(User::Root, "/", &["sh", "-c", "kill -KILL -1"]);
        wait::until(
            "the host's processes to end",
            Duration::from_secs(10),
            || Ok((self.pids_of("condor_.*")?.is_empty()).then_some(())),
        )
    }

    /// A disk of its own at `dir`, which a test can fill; who owned the directory owns it still.
    pub fn mount_disk(&self, dir: &str, size: &str) -> Result<()> {
        let mount = format!(
            "mkdir -p {dir} && owner=$(stat -c %u:%g {dir}) && mode=$(stat -c %a {dir}) && \
             mount -t tmpfs -o size={size} tmpfs {dir} && chown $owner {dir} && chmod $mode {dir}"
        );
        self.run(User::Root, "/", &["sh", "-c", &mount]).map(drop)
    }

    /// Takes the host's cable out.
    pub fn cut(&self) -> Result<()> {
        self.link("down")
    }

    /// Puts it back.
    pub fn heal(&self) -> Result<()> {
        self.link("up")
    }

    fn link(&self, state: &str) -> Result<()> {
        let set = ["ip", "link", "set", "eth0", state];
        self.run(User::Root, "/", &set).map(drop)
    }

    /// What leaves the host leaves it at this rate, in tc's notation; none is as fast as it can.
    pub fn throttle(&self, rate: Option<&str>) -> Result<()> {
        let tc = match rate {
            Some(rate) => {
                format!("tc qdisc replace dev eth0 root tbf rate {rate} burst 64k latency 500ms")
            }
            None => "tc qdisc del dev eth0 root".to_owned(),
        };
        self.run(User::Root, "/", &["sh", "-c", &tc]).map(drop)
    }

    /// The same for what comes to it: its cable's other end is in the keeper's network.
    pub fn throttle_arrivals(&self, rate: Option<&str>) -> Result<()> {
        let words = match rate {
            Some(rate) => format!(
                "tc qdisc replace dev {} root tbf rate {rate} burst 64k latency 500ms",
                self.name
            ),
            None => format!("tc qdisc del dev {} root", self.name),
        };
        let words: Vec<&str> = words.split(' ').collect();
        self.run_on_the_switch(&words)
    }

    /// Sends a signal, by name, to every process of that program on the host; an error if there is none.
    pub fn signal(&self, program: &str, signal: &str) -> Result<()> {
        let pids = self.pids_of(program)?;
        let first = pids
            .first()
            .with_context(|| format!("no {program} on {}", self.name))?;
        let kill = format!("kill -{signal} {first} {}", pids[1..].join(" "));
        self.run(User::Root, "/", &["sh", "-c", &kill]).map(drop)
    }

    fn pids_of(&self, program: &str) -> Result<Vec<String>> {
        let look = format!("pgrep -x '{program}' || true");
        let found = self.run(User::Root, "/", &["sh", "-c", &look])?;
        Ok(found.lines().map(str::to_owned).collect())
    }

    /// HTCondor's configuration as it is now.
    pub fn configuration(&self) -> Result<String> {
        self.read(self.config_file())
    }

    /// Ends whatever runs, and starts the daemons with that configuration: the host after a power cycle.
    pub fn power_cycle(&self, version: HtCondor, configuration: &str) -> Result<()> {
        self.kill_all()?;
        self.heal()?;
        self.start_condor(version, configuration)
    }
}
