//! `criu-transfer serve`.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::gc::PolicyArgs;
use super::unit::unit;
use crate::remote::PORT;
use crate::store::{self, AuthConfig, Config, IssuerConfig, Place, Quotas, TlsConfig};

/// Serves the images of many jobs, on an access point.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The directory where images are kept; made if it is not there
    #[arg(long, required_unless_present = "objects", conflicts_with = "objects")]
    dir: Option<PathBuf>,
    /// An object store instead, with AWS's environment variables: AWS_ENDPOINT, AWS_ACCESS_KEY_ID and so on.
    /// One process serves one prefix
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    objects: Option<String>,
    /// The address to listen on; port 0 stands for any
    #[arg(long, default_value_t = (Ipv4Addr::LOCALHOST, PORT).into())]
    listen: SocketAddr,
    /// Takes everybody who can connect for one user; on a loopback address only
    #[arg(long)]
    anonymous: bool,
    /// A file of lines `SHA256 OWNER [read|operator]`, each for a token: printf %s "$TOKEN" | sha256sum
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// An issuer whose tokens are taken, and a file with its public keys, a JWK set or PEM; may be given several times
    #[arg(long, value_name = "URL=FILE", requires = "audience")]
    issuer: Vec<String>,
    /// What tokens of issuers are for: this store
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// Where a user's images would be on the issuer's storage, for scopes with a path
    #[arg(long, value_name = "PATH", default_value = "/{sub}")]
    scope_path: String,
    /// The certificate and those above it, in PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// How many upload at a time; the others wait, who has least time goes first
    #[arg(long, default_value_t = 32)]
    uploads: usize,
    /// How much one user may keep
    #[arg(long, default_value = "100G", value_parser = bytes)]
    quota: u64,
    /// How much all users may keep
    #[arg(long, value_parser = bytes)]
    total: Option<u64>,
    /// How much of the disk stays free
    #[arg(long, default_value = "5G", value_parser = bytes)]
    low_water: u64,
    /// No byte for so many seconds, and a client is taken for gone
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Prints a systemd unit and what condor_master takes instead, with the other options of this command, and ends
    #[arg(long)]
    print_unit: bool,
}

pub(super) fn serve(args: &Serve) -> anyhow::Result<()> {
    if args.print_unit {
        return print_unit();
    }
    let dir = args.dir.clone().map(Place::Directory);
    let objects = || args.objects.clone().map(Place::Objects);
    let config = Config {
        place: dir
            .or_else(objects)
            .context("neither --dir nor --objects")?,
        listen: args.listen,
        auth: AuthConfig {
            anonymous: args.anonymous,
            tokens: args.tokens.clone(),
            issuers: issuers(args)?,
        },
        tls: args
            .certificate
            .clone()
            .zip(args.key.clone())
            .map(|(certificate, key)| TlsConfig { certificate, key }),
        uploads: args.uploads,
        quotas: Quotas {
            owner: args.quota,
            all: args.total.unwrap_or(u64::MAX),
            low_water: args.low_water,
        },
        patience: Duration::from_secs(args.patience),
        policy: args.policy.policy(),
    };
    let ready = |address: SocketAddr| {
        tracing::info!(%address, place = ?config.place, "serving");
        // For whoever started us with port 0. If nobody reads it, it is in the log.
        let _ = writeln!(io::stdout(), "listening on {address}");
    };
    Ok(store::serve(&config, ready)?)
}

fn print_unit() -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find out where this program is")?;
    let options = std::env::args().skip_while(|word| word != "serve").skip(1);
    let options: Vec<String> = options.filter(|word| word != "--print-unit").collect();
    write!(io::stdout(), "{}", unit(&program, &options)).context("cannot write the unit")
}

fn issuers(args: &Serve) -> anyhow::Result<Vec<IssuerConfig>> {
    let issuers = args.issuer.iter().map(|issuer| {
        let (issuer, keys) = issuer
            .rsplit_once('=')
            .context("--issuer is URL=FILE: the claim iss and where its keys are")?;
        Ok(IssuerConfig {
            issuer: issuer.into(),
            keys: keys.into(),
            audiences: args.audience.clone(),
            path: args.scope_path.clone(),
        })
    });
    issuers.collect()
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
