//! The accounts that exist on every host.

/// An account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// uid 0.
    Root,
    /// Submits jobs.
    Alice,
    /// Submits jobs too, and must not get at alice's.
    Bob,
    /// Runs glideins: no capabilities, none to be had, no new privileges.
    Pilot,
}

impl User {
    /// Its number, of the user and of its group.
    pub const fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Alice => 2000,
            Self::Bob => 2001,
            Self::Pilot => 3000,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Pilot => "pilot",
        }
    }

    /// Its home directory.
    pub fn home(self) -> String {
        match self {
            Self::Root => "/root".to_owned(),
            user => format!("/home/{}", user.name()),
        }
    }
}
