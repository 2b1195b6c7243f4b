//! Whose an image is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name of an owner; escaped it must fit a file's name.
const OWNER_MAX: usize = 80;

/// A user of the store: what a token says that its bearer is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner(Arc<str>);

/// A text that is no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no name of an owner: 1 to 80 printable ASCII characters")]
pub(crate) struct BadOwner;

impl Owner {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Owner {
    type Err = BadOwner;
    fn from_str(text: &str) -> Result<Self, BadOwner> {
        let good = (1..=OWNER_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(BadOwner)
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
