//! A store on an access point: `criu-transfer serve` behind TLS, with a token per user, and an issuer as the access point's
//! credmon is one.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::host::Host;
use crate::pool::Pool;
use crate::users::User;
use crate::{binaries, machine, wait};

/// Where it listens.
const PORT: u16 = 9622;
/// The store itself, for `+CRIUStore`.
pub const PLACE: &str = "criu://ap.pool:9622";
/// The token once more, for jobs: a starter that is root gives each a /tmp of its own.
pub const TOKEN: &str = "/etc/criu-store-token";
/// All that is its own.
const DIR: &str = "/var/lib/criu-store";
/// Who issues tokens, and for whom.
const ISSUER: &str = "https://ap.pool";
const AUDIENCE: &str = "https://ap.pool:9622";
/// Where it keeps the images.
pub const IMAGES: &str = "/var/lib/criu-store/images";
/// Where the access point's credmon puts what users have, and what a daemon must be told for it.
const CREDENTIALS: &str = "/var/lib/criu-store/credentials";
/// For an access point with a credd, in a pool that encrypts: else no starter asks for credentials.
pub const WITH_CREDD: &str = "\
DAEMON_LIST = $(DAEMON_LIST), CREDD
SEC_CREDENTIAL_DIRECTORY_OAUTH = /var/lib/criu-store/credentials
TRUST_CREDENTIAL_DIRECTORY = True
SEC_DEFAULT_ENCRYPTION = PREFERRED";
/// Where Debian's hosts keep whom they believe.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What signs and hashes here.
const TOOLS: &[(&str, &str)] = &[("openssl", "openssl"), ("sha256sum", "coreutils")];

/// A store on the access point of a pool.
#[derive(Debug)]
pub struct Store<'p> {
    pool: &'p Pool,
}

/// A user's token. It is of no worth outside of its pool, and printed nowhere all the same.
fn token(user: User) -> String {
    format!("token-of-{}-{}", user.name(), std::process::id())
}

impl<'p> Store<'p> {
    /// Sets a store up and starts it: every host believes its certificate, alice and bob have a token each.
    pub fn up(pool: &'p Pool) -> Result<Self> {
        machine::need(TOOLS)?;
        let store = Self::on(pool);
        let ap = pool.ap();
        ap.make_dir(DIR, User::Root, 0o755)?;
        store.certify()?;
        let mut tokens = String::new();
        for user in [User::Alice, User::Bob] {
            let hash = output(Command::new("sh").args([
                "-c",
                "printf %s \"$1\" | sha256sum",
                "sh",
                &token(user),
            ]))?;
            let hash = hash.split_whitespace().next().context("no hash")?;
            tokens += &format!("{hash} {}\n", user.name());
        }
        ap.write(format!("{DIR}/tokens"), tokens, User::Root, 0o600)?;
        let program = fs::read(binaries::dir()?.join("criu-transfer"))?;
        ap.write("/usr/bin/criu-transfer", program, User::Root, 0o755)?;
        for host in pool.eps() {
            store.give_token(host, User::Alice)?;
        }
        store.start()?;
        Ok(store)
    }

    /// The store that was set up in a pool.
    pub fn on(pool: &'p Pool) -> Self {
        Self { pool }
    }

    /// An authority of its own for this pool, and a certificate for the access point.
    fn certify(&self) -> Result<()> {
        let ap = self.pool.ap();
        let temp = std::env::temp_dir().join(format!("criu-store-{}", self.pool.name));
        fs::create_dir_all(&temp)?;
        let script = "\
            cd \"$1\" && \
            openssl genrsa -out issuer.key 2048 && openssl rsa -in issuer.key -pubout -out issuer.pem && \
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                -subj /CN=pool -keyout ca.key -out ca.pem && \
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                -subj /CN=ap.pool -keyout key.pem -out ap.csr && \
            printf 'subjectAltName=DNS:ap.pool\\nbasicConstraints=CA:FALSE\\n' >ext && \
            openssl x509 -req -in ap.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile ext -out certificate.pem";
        let made = output(
            Command::new("sh")
                .args(["-c", script, "sh"])
                .arg(&temp)
                .env("PATH", machine::PATH),
        );
        let read = |name: &str| fs::read(temp.join(name)).with_context(|| format!("read {name}"));
        let names = ["certificate.pem", "key.pem", "issuer.key", "issuer.pem"];
        let files = made.and_then(|_| Ok((read("ca.pem")?, names.map(read))));
        fs::remove_dir_all(&temp)?;
        let (ca, files) = files?;
        for (name, file) in names.iter().zip(files) {
            ap.write(format!("{DIR}/{name}"), file?, User::Root, 0o600)?;
        }
        for host in self.pool.hosts() {
            host.write(ROOTS, &ca, User::Root, 0o644)?;
        }
        Ok(())
    }

    /// Puts a user's token where the programs of an execution point's jobs find it.
    pub fn give_token(&self, host: &Host, user: User) -> Result<()> {
        self.give(host, &token(user))
    }

    /// Puts a token there that nobody knows.
    pub fn give_worthless_token(&self, host: &Host) -> Result<()> {
        self.give(host, "worthless")
    }

    /// Puts a token of the issuer's there that is in force for so many seconds, or has not been for as long.
    pub fn give_issued_token(&self, host: &Host, user: User, seconds: i64) -> Result<()> {
        self.give(host, &self.issued(user, seconds)?)
    }

    /// Puts a token of the issuer's where the credmon of an access point that is [`WITH_CREDD`] keeps it for a user's jobs, as
    /// `scitokens`. From there it is HTCondor's.
    pub fn give_credmons_token(&self, user: User, seconds: i64) -> Result<()> {
        let ap = self.pool.ap();
        let dir = format!("{CREDENTIALS}/{}", user.name());
        let token = serde_json::json!({
            "access_token": self.issued(user, seconds)?, "expires_in": seconds,
        });
        ap.make_dir(CREDENTIALS, User::Root, 0o755)?;
        ap.make_dir(&dir, User::Root, 0o755)?;
        for (name, text) in [
            (format!("{dir}/scitokens.top"), String::new()),
            (format!("{dir}/scitokens.use"), token.to_string()),
            (format!("{CREDENTIALS}/CREDMON_COMPLETE"), String::new()),
        ] {
            ap.write(name, text, User::Root, 0o600)?;
        }
        Ok(())
    }

    fn issued(&self, user: User, seconds: i64) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": user.name(), "exp": now + seconds,
            "scope": "storage.read:/ storage.modify:/",
        });
        let script = "\
            base64url() { openssl base64 -A | tr +/ -_ | tr -d =; } && \
            text=$(printf %s \"$1\" | base64url).$(printf %s \"$2\" | base64url) && \
            printf %s \"$text.$(printf %s \"$text\" | openssl dgst -sha256 -sign \"$3\" | base64url)\"";
        let key = self.pool.ap().path(format!("{DIR}/issuer.key"));
        output(
            Command::new("sh")
                .args(["-c", script, "sh", r#"{"alg":"RS256"}"#])
                .arg(claims.to_string())
                .arg(key)
                .env("PATH", machine::PATH),
        )
    }

    fn give(&self, host: &Host, token: &str) -> Result<()> {
        // Jobs run as alice where the daemons are root's, and as the pilot elsewhere.
        let user = match host.daemons() {
            User::Root => User::Alice,
            other => other,
        };
        for path in [format!("/tmp/bt_u{}", user.uid()), TOKEN.to_owned()] {
            // As a credmon does it: nobody reads half of it.
            let new = format!("{path}.new");
            host.write(&new, token, user, 0o600)?;
            fs::rename(host.path(&new), host.path(&path))
                .with_context(|| format!("rename {new}"))?;
        }
        Ok(())
    }

    /// The URL of a job, for a submit file: each job has its own.
    pub fn url(&self) -> String {
        format!("criu://ap.pool:{PORT}/$(ClusterId).$(ProcId)/checkpoint.criu")
    }

    /// Starts the service.
    pub fn start(&self) -> Result<()> {
        let ap = self.pool.ap();
        let script = format!(
            "cd {DIR} && echo $$ >pid && exec setsid criu-transfer serve --dir images \
             --listen {}:{PORT} --tokens tokens --certificate certificate.pem --key key.pem \
             --issuer {ISSUER}=issuer.pem --audience {AUDIENCE} --low-water 1M >listening 2>>log",
            ap.address
        );
        ap.remove(format!("{DIR}/listening"))?;
        let mut child = ap
            .command(User::Root, "/")?
            .args(["sh", "-c", &script])
            .spawn()?;
        // It ends with the service; this thread is there to reap it.
        std::thread::spawn(move || child.wait());
        wait::until("the store", Duration::from_secs(20), || {
            let said = ap.read(format!("{DIR}/listening")).unwrap_or_default();
            Ok(said.starts_with("listening on").then_some(()))
        })
        .with_context(|| ap.read(format!("{DIR}/log")).unwrap_or_default())
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) -> Result<()> {
        let ap = self.pool.ap();
        let pid = ap.read(format!("{DIR}/pid"))?;
        ap.run(User::Root, "/", &["kill", "-9", pid.trim()])
            .map(drop)
    }

    /// What a user sees there: the JSON of `criu-transfer ls`.
    pub fn list(&self, user: User, job: &str) -> Result<Vec<serde_json::Value>> {
        self.list_with(token(user), user, job)
    }

    /// The same for whom the issuer knows by that name, who is somebody else.
    pub fn list_of_issued(&self, user: User, job: &str) -> Result<Vec<serde_json::Value>> {
        self.list_with(self.issued(user, 60)?, user, job)
    }

    fn list_with(&self, token: String, user: User, job: &str) -> Result<Vec<serde_json::Value>> {
        let url = format!("criu://ap.pool:{PORT}/{job}");
        let ap = self.pool.ap();
        ap.write("/tmp/token", token, user, 0o600)?;
        let args = [
            "criu-transfer",
            "ls",
            &url,
            "--json",
            "--token",
            "/tmp/token",
        ];
        let said = ap.run(user, "/", &args)?;
        Ok(serde_json::from_str(&said)?)
    }

    /// How many files it keeps.
    pub fn chunks(&self) -> Result<usize> {
        let images = format!("{DIR}/images");
        let args = ["find", &images, "-type", "f"];
        let files = self.pool.ap().run(User::Root, "/", &args)?;
        Ok(files.lines().count())
    }

    /// What it has written to its log.
    pub fn log(&self) -> Result<String> {
        self.pool.ap().read(format!("{DIR}/log"))
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
