//! The tokens of a private pool: a file of lines `SHA256 OWNER [read|operator]`.
//!
//! The hash is that of the token, as `printf %s "$TOKEN" | sha256sum` prints it, so the file is no secret worth stealing.
//! Tokens are long and random, or they are guessed: `openssl rand -hex 32`.

use std::collections::HashMap;

use super::{Caller, Reach};

/// Who each token belongs to, by its hash.
pub(super) struct List(HashMap<[u8; 32], Caller>);

impl List {
    pub(super) fn caller(&self, token: &str) -> Option<Caller> {
        // Looked up by its hash, so the time that takes tells nothing about the tokens of others.
        let hash = ::ring::digest::digest(&::ring::digest::SHA256, token.as_bytes());
        self.0.get(hash.as_ref()).cloned()
    }
}

pub(super) fn parse(files: &[Vec<u8>]) -> Result<List, String> {
    let text = str::from_utf8(&files[0]).map_err(|_| "it is no text")?;
    let mut list = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let bad = |why: &str| format!("line {}: {why}", number + 1);
        let (hash, owner, right) = match words[..] {
            [] => continue,
            [hash, owner] => (hash, owner, ""),
            [hash, owner, right] => (hash, owner, right),
            _ => return Err(bad("it is not SHA256 OWNER [read|operator]")),
        };
        let hash = blake3::Hash::from_hex(hash)
            .map_err(|_| bad("it does not begin with a SHA-256 hash in hex"))?;
        let owner = owner.parse().map_err(|error| bad(&format!("{error}")))?;
        let modify = match right {
            "" | "operator" => Reach::All,
            "read" => Reach::Nothing,
            _ => return Err(bad("the third word is not read or operator")),
        };
        let caller = Caller {
            owner,
            read: Reach::All,
            modify,
            operator: right == "operator",
        };
        list.insert(*hash.as_bytes(), caller);
    }
    Ok(List(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That of `secret`.
    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn a_token_is_found_by_its_hash() {
        let text = format!("# ours\n\n{HASH} alice read # hers\n");
        let list = parse(&[text.into_bytes()]).unwrap();
        let caller = list.caller("secret").unwrap();
        assert_eq!(caller.owner.as_str(), "alice");
        assert_eq!((caller.read, caller.modify), (Reach::All, Reach::Nothing));
        assert_eq!(list.caller("Secret"), None);
        assert_eq!(list.caller(HASH), None);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named_and_not_repeated() {
        for bad in [
            "secret alice".to_owned(),
            HASH.to_owned(),
            format!("{HASH} alice write"),
            format!("{HASH} älice"),
            format!("{HASH} alice read x"),
        ] {
            let error = parse(&[format!("#\n{bad}\n").into_bytes()]).err().unwrap();
            assert!(
                error.starts_with("line 2: ") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
