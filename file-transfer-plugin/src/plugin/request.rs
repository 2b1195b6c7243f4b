//! What HTCondor asks for: the ads of the input file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use classad::ClassAd;

/// An ad is some hundred bytes, and a job has few images; PluginData may hold what a user puts there.
const LIMIT: u64 = 16 << 20;

/// One file to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// From where or to where.
    pub url: String,
    /// The file here.
    pub file: PathBuf,
}

/// Why there is nothing to be done.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The input file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is longer than any of HTCondor's.
    #[error("{} is longer than {LIMIT} bytes", path.display())]
    TooLong {
        /// The input file.
        path: PathBuf,
    },
    /// It is no sequence of ads.
    #[error("{} holds no ads", path.display())]
    NoAds {
        /// The input file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: classad::ParseError,
    },
}

/// Reads the input file.
pub(super) fn read(path: &Path) -> Result<Vec<Request>, BadRequest> {
    let unreadable = |source| BadRequest::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > LIMIT {
        let path = path.to_owned();
        return Err(BadRequest::TooLong { path });
    }
    parse(&text).map_err(|source| BadRequest::NoAds {
        path: path.to_owned(),
        source,
    })
}

/// The requests in a text of ads. In version 4 of the protocol there are others between them, for later versions to mean
/// something; what has no URL and no file is one of those.
pub fn parse(text: &[u8]) -> Result<Vec<Request>, classad::ParseError> {
    let ads = ClassAd::parse_all(text)?;
    let request = |ad: &ClassAd| {
        Some(Request {
            url: ad.eval_str("Url")?,
            file: ad.eval_str("LocalFileName")?.into(),
        })
    };
    Ok(ads.iter().filter_map(request).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_as_25_14_writes_it() {
        let text = br#"[ LocalFileName = "/execute/dir_7/scratch/checkpoint.criu"; Url = "criu://ap.pool:9622/12.0/checkpoint.criu" ]
[ LocalFileName = "/execute/dir_7/scratch/other"; SomethingNew = { 1, [ a = 2 ] }; Url = "criu://ap.pool/12.0/other" ]"#;
        let requests = parse(text).unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].url, "criu://ap.pool/12.0/other");
        assert_eq!(
            requests[0].file,
            Path::new("/execute/dir_7/scratch/checkpoint.criu")
        );
    }

    #[test]
    fn ads_of_version_4_that_are_no_files_are_left_out() {
        let text = br#"[ Priority = 3 ][ url = "criu://a/b"; localfilename = "/b" ][ Url = 7 ]"#;
        assert_eq!(parse(text).unwrap().len(), 1);
    }

    #[test]
    fn expressions_are_evaluated() {
        let text = br#"[ Base = "criu://a"; Url = strcat(Base, "/b"); LocalFileName = "/b" ]"#;
        assert_eq!(parse(text).unwrap()[0].url, "criu://a/b");
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_nothing_at_all_is_no_request() {
        assert!(parse(b"[ Url = \"criu://a/b\"; LocalFileName = ").is_err());
        assert_eq!(parse(b" \n").unwrap(), []);
    }
}
