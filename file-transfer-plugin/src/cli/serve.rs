//! `criu-transfer serve`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::store::{self, Config, Quotas};

/// Serves the images of many jobs, on an access point.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The directory where images are kept; made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// The address to listen on; port 0 stands for any
    #[arg(long, default_value = "127.0.0.1:9620")]
    listen: SocketAddr,
    /// Takes everybody who can connect for one user; on a loopback address only
    #[arg(long)]
    anonymous: bool,
    /// How much one user may keep
    #[arg(long, default_value = "100G", value_parser = bytes)]
    quota: u64,
    /// How much all users may keep
    #[arg(long, value_parser = bytes)]
    total: Option<u64>,
    /// How much of the disk stays free
    #[arg(long, default_value = "5G", value_parser = bytes)]
    low_water: u64,
}

pub(super) fn serve(args: &Serve) -> anyhow::Result<()> {
    let config = Config {
        dir: args.dir.clone(),
        listen: args.listen,
        anonymous: args.anonymous,
        quotas: Quotas {
            owner: args.quota,
            all: args.total.unwrap_or(u64::MAX),
            low_water: args.low_water,
        },
    };
    let ready = |address: SocketAddr| {
        tracing::info!(%address, dir = %args.dir.display(), "serving");
        // For whoever started us with port 0. If nobody reads it, it is in the log.
        let _ = writeln!(io::stdout(), "listening on {address}");
    };
    Ok(store::serve(&config, ready)?)
}

/// A number of bytes: `100G`, `1.5T`, `4096`.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (&text[..at], unit),
        _ => (text, 'B'),
    };
    let shift = "BKMGTP".find(unit.to_ascii_uppercase());
    let bytes = shift.and_then(|shift| {
        let number: f64 = number.parse().ok().filter(|number| *number >= 0.0)?;
        Some(number * 1024f64.powi(shift as i32))
    });
    match bytes {
        Some(bytes) if bytes < u64::MAX as f64 => Ok(bytes as u64),
        _ => Err("a number of bytes, such as 4096, 100G or 1.5T".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("1.5k"), Ok(1536));
        assert_eq!(bytes("2T"), Ok(2 << 40));
        for bad in ["", "G", "-1", "1X", "nan", "inf", "1e30", "1 G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
