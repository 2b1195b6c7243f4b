//! What a test needs of the machine, checked before it starts.
//!
//! A test that cannot run here says so past the test runner's capture and passes; with `REQUIRE=all` in the environment it fails.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cpus::kernel;
use crate::machine;
use crate::roots::{self, HtCondor};

/// Ends the test here, visibly, unless the machine has all that is named: `require!(root, namespaces, roots)`.
#[macro_export]
macro_rules! require {
    ($($need:ident),+ $(,)?) => {
        $(
            if let Err(reason) = $crate::require::$need() {
                $crate::require::skip(module_path!(), &reason);
                return;
            }
        )+
    };
}

/// Why something cannot run here, for a person to read.
pub type Need = Result<(), String>;

/// Says that a test is skipped; panics where skipping is not allowed.
pub fn skip(test: &str, reason: &str) {
    let name = std::thread::current().name().unwrap_or(test).to_owned();
    assert!(
        std::env::var("REQUIRE").as_deref() != Ok("all"),
        "{name} cannot run here, and REQUIRE=all forbids to skip it: {reason}"
    );
    // Not eprintln!, which the test runner captures and shows for failures only.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}

/// The effective uid is 0.
pub fn root() -> Need {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("it needs root, for mounts and network namespaces".to_owned())
    }
}

/// Mount, network and pid namespaces can be made.
pub fn namespaces() -> Need {
    let made = Command::new("unshare")
        .args([
            "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true",
        ])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("unshare cannot be run: {error}"))?;
    if made.status.success() {
        Ok(())
    } else {
        Err(format!(
            "no namespaces: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        ))
    }
}

/// An ordinary user can make a user namespace and the others in it: what every job that is to be frozen does.
pub fn user_namespaces() -> Need {
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let all = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "true",
    ];
    let made = Command::new("setpriv")
        .args(nobody)
        .args(all)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("setpriv cannot be run: {error}"))?;
    if made.status.success() {
        Ok(())
    } else {
        Err(format!(
            "no user namespaces for ordinary users: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        ))
    }
}

/// Both distribution roots are cached, or can be made now.
pub fn roots() -> Need {
    for version in HtCondor::ALL {
        roots::get(version)
            .map_err(|error| format!("no root for HTCondor {version}: {error:#}"))?;
    }
    Ok(())
}

/// Programs can be compiled from C, for this libc and for musl's.
pub fn compilers() -> Need {
    machine::need(&[("musl-gcc", "musl-tools"), ("gcc", "gcc")])
        .map_err(|error| format!("{error:#}"))
}

/// Other CPUs can be emulated, with a kernel of Debian's.
pub fn emulator() -> Need {
    compilers()?;
    machine::need(&[("qemu-system-x86_64", "qemu-system-x86")])
        .and_then(|()| kernel::get().map(drop))
        .map_err(|error| format!("no other CPUs: {error:#}"))
}
