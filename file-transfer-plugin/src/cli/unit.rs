//! `criu-transfer serve --print-unit`: how the service is started by others.

use std::path::Path;

/// A unit for systemd, and what condor_master takes instead.
pub(super) fn unit(program: &Path, options: &[String]) -> String {
    let program = program.display();
    let quoted: Vec<String> = options.iter().map(|option| quote(option)).collect();
    let options = quoted.join(" ");
    format!(
        "\
# systemd: criu-transfer serve ... --print-unit > /etc/systemd/system/criu-store.service
#          systemctl enable --now criu-store
[Unit]
Description=Checkpoint images of HTCondor jobs
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={program} serve {options}
# An ordinary user: it needs its directory, its tokens and its certificate, and a port above 1023.
User=condor
Restart=on-failure
RestartSec=5
# Each connection and each file that is read is one.
LimitNOFILE=16384
MemoryMax=1G
NoNewPrivileges=yes
ProtectSystem=full
PrivateTmp=yes
UMask=0077

[Install]
WantedBy=multi-user.target

# condor_master instead: into /etc/condor/config.d/61-criu-store.conf. It is not in DC_DAEMON_LIST, for it does not speak
# DaemonCore: condor_master starts it, restarts it when it ends, and ends it with SIGTERM.
# CRIU_STORE = {program}
# CRIU_STORE_ARGS = serve {options}
# DAEMON_LIST = $(DAEMON_LIST) CRIU_STORE
"
    )
}

/// A word that systemd and HTCondor read as one.
fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./:@,{}".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
