//! The bearer token, read anew for each connection: a credmon renews it while a transfer runs.
//!
//! | where | who puts it there |
//! |---|---|
//! | `$_CONDOR_CREDS/HANDLE.use` | HTCondor, for a URL with a handle |
//! | `$_CONDOR_CREDS/criu.use`, or the only `.use` there | HTCondor |
//! | `$BEARER_TOKEN`, `$BEARER_TOKEN_FILE`, `$XDG_RUNTIME_DIR/bt_uUID`, `/tmp/bt_uUID` | a person, as WLCG agreed on it |
//!
//! A `.use` file is the token itself or, from HTCondor's own credmon, JSON with an `access_token`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use serde::Deserialize;

use super::{Error, Url};

/// HTTP servers take 8 KB of a header and rarely more.
const LONGEST: u64 = 16 << 10;

/// A token, which shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// What goes into the header.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Where a token may be.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    creds: Option<PathBuf>,
    variable: Option<String>,
    files: Vec<PathBuf>,
}

impl Tokens {
    /// What this process's environment says.
    pub fn from_environment() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let path = |name: &str| env::var_os(name).map(PathBuf::from);
        let name = format!("bt_u{uid}");
        let files = [
            path("BEARER_TOKEN_FILE"),
            path("XDG_RUNTIME_DIR").map(|dir| dir.join(&name)),
            Some(Path::new("/tmp").join(&name)),
        ];
        Self {
            creds: path("_CONDOR_CREDS"),
            variable: env::var("BEARER_TOKEN").ok(),
            files: files.into_iter().flatten().collect(),
        }
    }

    /// A token of this file only.
    pub fn from_file(path: &Path) -> Self {
        Self {
            files: vec![path.to_owned()],
            ..Self::default()
        }
    }

    /// The token for a URL as it is now; none where there is none, which a store of one's own may do without.
    pub fn get(&self, url: &Url) -> Result<Option<Token>, Error> {
        if let Some(handle) = &url.handle {
            let dir = self.creds.as_ref().ok_or_else(|| {
                Error::Parameter(format!(
                    "the token {handle}.use is asked for, and there is no _CONDOR_CREDS"
                ))
            })?;
            return read(&dir.join(format!("{handle}.use"))).map(Some);
        }
        if let Some(dir) = &self.creds
            && let Some(path) = of_htcondor(dir)?
        {
            return read(&path).map(Some);
        }
        if let Some(text) = &self.variable {
            return token(text, Path::new("$BEARER_TOKEN")).map(Some);
        }
        for path in &self.files {
            match fs::metadata(path) {
                Ok(meta) if is_mine(&meta) => return read(path).map(Some),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Anybody may put a file into /tmp: one of another user's would make our images his.
fn is_mine(meta: &fs::Metadata) -> bool {
    let uid = rustix::process::geteuid().as_raw();
    meta.is_file() && [uid, 0].contains(&meta.uid())
}

/// Ours by name, else the only one.
fn of_htcondor(dir: &Path) -> Result<Option<PathBuf>, Error> {
    let ours = dir.join("criu.use");
    if ours.exists() {
        return Ok(Some(ours));
    }
    let failed = || Error::local(format!("list {}", dir.display()));
    let mut found = None;
    for entry in fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.extension().is_some_and(|end| end == "use") && found.replace(path).is_some() {
            return Err(Error::Parameter(format!(
                "{} has several tokens: name one, as in NAME+criu://",
                dir.display()
            )));
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Token, Error> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
        .map_err(Error::local(format!("read the token {}", path.display())))?;
    token(&text, path)
}

fn token(text: &str, path: &Path) -> Result<Token, Error> {
    #[derive(Deserialize)]
    struct Use {
        access_token: String,
    }
    let bad = |why| Error::Parameter(format!("no token is in {}: {why}", path.display()));
    let text = text.trim();
    let token = if text.starts_with('{') {
        // Not serde's own words: they may quote what is there.
        let json: Use =
            serde_json::from_str(text).map_err(|_| bad("no access_token in its JSON"))?;
        json.access_token
    } else {
        text.to_owned()
    };
    if token.len() as u64 > LONGEST {
        return Err(bad("it is too long"));
    }
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("it is not one word"));
    }
    Ok(Token(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn creds(files: &[(&str, &str)]) -> (tempfile::TempDir, Tokens) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let tokens = Tokens {
            creds: Some(dir.path().to_owned()),
            ..Tokens::default()
        };
        (dir, tokens)
    }

    fn secret(tokens: &Tokens, text: &str) -> Option<String> {
        tokens.get(&url(text)).unwrap().map(|token| token.0)
    }

    #[test]
    fn the_credmons_json_and_a_bare_token_are_both_read() {
        let json = r#"{"access_token": "eyJ.a.b", "expires_in": 1200}"#;
        let (_dir, tokens) = creds(&[("scitokens.use", json), ("scitokens.top", "x")]);
        assert_eq!(secret(&tokens, "criu://h/j").as_deref(), Some("eyJ.a.b"));
        let (_dir, tokens) = creds(&[("scitokens.use", "eyJ.c.d\n")]);
        assert_eq!(secret(&tokens, "criu://h/j").as_deref(), Some("eyJ.c.d"));
    }

    #[test]
    fn a_handle_names_the_token_and_our_own_name_is_preferred() {
        let (_dir, tokens) = creds(&[("a.use", "A"), ("criu.use", "C")]);
        assert_eq!(secret(&tokens, "a+criu://h/j").as_deref(), Some("A"));
        assert_eq!(secret(&tokens, "criu://h/j").as_deref(), Some("C"));
        assert!(tokens.get(&url("b+criu://h/j")).is_err());
        let (_dir, tokens) = creds(&[("a.use", "A"), ("b.use", "B")]);
        assert!(tokens.get(&url("criu://h/j")).is_err());
    }

    #[test]
    fn a_renewed_token_is_the_next_one() {
        let (dir, tokens) = creds(&[("criu.use", "old")]);
        assert_eq!(secret(&tokens, "criu://h/j").as_deref(), Some("old"));
        fs::write(dir.path().join("criu.use"), "new").unwrap();
        assert_eq!(secret(&tokens, "criu://h/j").as_deref(), Some("new"));
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        for text in ["", "two words", "{\"token\": \"secret\"}", "sec\u{1}ret"] {
            let error = token(text, Path::new("x.use")).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let shown = format!("{:?}", token("secret", Path::new("x.use")).unwrap());
        assert!(!shown.contains("secret"));
    }
}
