//! Versions of CRIU and of the kernel, as they stand in ads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// CRIU's version. Always printed with three numbers, because `versionGE("4.2", "4.2.0")` is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no version: {0:?}")]
pub struct BadVersion(String);

impl Version {
    /// `major.minor.patch`
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = BadVersion;
    fn try_from(text: String) -> Result<Self, BadVersion> {
        text.parse()
    }
}

impl FromStr for Version {
    type Err = BadVersion;
    /// Reads `4.2`, `4.2.1`, `4.2-rc1`: what follows the numbers does not count.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let [major, minor, patch] =
            numbers(text).ok_or_else(|| BadVersion(text.chars().take(40).collect()))?;
        Ok(Self {
            major,
            minor,
            patch,
        })
    }
}

/// A kernel's version in one number, 60118 for 6.1.18, as OSPool's OSG_HOST_KERNEL_VERSION has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kernel(pub u32);

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}.{}",
            self.0 / 10_000,
            self.0 / 100 % 100,
            self.0 % 100
        )
    }
}

impl FromStr for Kernel {
    type Err = BadVersion;
    /// Reads what `uname -r` prints, `5.14.0-427.el9.x86_64`. The coding has two digits for the last number, so that
    /// 5.10.223 counts as 5.10.99.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        match numbers(text) {
            Some([major @ 0..=9999, minor @ 0..=99, patch]) => {
                Ok(Self(major * 10_000 + minor * 100 + patch.min(99)))
            }
            _ => Err(BadVersion(text.chars().take(40).collect())),
        }
    }
}

/// The leading `a.b[.c]` of a text.
fn numbers(text: &str) -> Option<[u32; 3]> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let mut parts = text[..end].split('.');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let major = next()?.parse().ok()?;
    let minor = next()?.parse().ok()?;
    let patch = next().map_or(Some(0), |patch| patch.parse().ok())?;
    Some([major, minor, patch])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_print_in_full() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("4.10") > version("4.2.1"));
        assert_eq!(version("4.2").to_string(), "4.2.0");
        assert_eq!(version("4.2-rc1"), Version::new(4, 2, 0));
        for bad in ["", "4", "x.y", "4.", "99999999999.1", "-1.2"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn kernels_are_coded_as_ospool_does() {
        let kernel = |text: &str| text.parse::<Kernel>().unwrap();
        assert_eq!(kernel("6.1.18"), Kernel(60118));
        assert_eq!(kernel("5.14.0-427.el9.x86_64"), Kernel(51400));
        assert_eq!(kernel("5.10.223-1"), Kernel(51099));
        assert_eq!(kernel("6.18.44").to_string(), "6.18.44");
        assert!("4294967295.1.1".parse::<Kernel>().is_err());
    }
}
