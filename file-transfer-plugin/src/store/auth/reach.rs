//! How far a scope of a token goes.

use crate::protocol::Job;

/// What of an owner's images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Reach {
    /// None.
    #[default]
    Nothing,
    /// Those of some jobs, and the chunks.
    Jobs(Vec<String>),
    /// All.
    All,
}

impl Reach {
    /// What a token may do to what lies at `base`, by the scopes that have one of these names: `storage.read:/a/b storage.read:/c`.
    pub(super) fn of(scopes: &str, names: &[&str], base: &str) -> Self {
        let mut reach = Self::Nothing;
        for scope in scopes.split_ascii_whitespace() {
            let (name, path) = scope.split_once(':').unwrap_or((scope, "/"));
            if names.contains(&name) {
                reach = reach.and(Self::of_path(path, base));
            }
        }
        reach
    }

    fn of_path(path: &str, base: &str) -> Self {
        let parts = |path| str::split(path, '/').filter(|part| !part.is_empty());
        // Nobody means well by these.
        if !path.starts_with('/') || parts(path).any(|part| part == "." || part == "..") {
            return Self::Nothing;
        }
        let mut rest = parts(path);
        for part in parts(base) {
            match rest.next() {
                None => return Self::All,
                Some(same) if same == part => {}
                Some(_) => return Self::Nothing,
            }
        }
        match (rest.next(), rest.next()) {
            (None, _) => Self::All,
            (Some(job), None) => Self::Jobs(vec![job.to_owned()]),
            // Deeper than a job there is nothing that one could be given.
            (Some(_), Some(_)) => Self::Nothing,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Nothing, other) => other,
            (some, Self::Nothing) => some,
            (Self::Jobs(mut some), Self::Jobs(more)) => {
                some.extend(more);
                Self::Jobs(some)
            }
        }
    }

    /// Whether it goes as far as a job's images.
    pub(in super::super) fn job(&self, job: &Job) -> bool {
        match self {
            Self::All => true,
            Self::Jobs(jobs) => jobs.iter().any(|allowed| allowed == job.as_str()),
            Self::Nothing => false,
        }
    }

    /// Whether it goes anywhere, and so as far as chunks, which belong to no job.
    pub(in super::super) fn anywhere(&self) -> bool {
        *self != Self::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(scopes: &str) -> Reach {
        Reach::of(scopes, &["storage.read"], "/ospool/ap40/data/alice")
    }

    #[test]
    fn a_scope_above_the_owner_reaches_all_and_one_beside_nothing() {
        for all in [
            "storage.read:/",
            "storage.read",
            "storage.read:/ospool/",
            "storage.read:/ospool/ap40/data/alice",
            "storage.modify:/x storage.read://ospool//ap40/data/alice/",
        ] {
            assert_eq!(reach(all), Reach::All, "{all}");
        }
        for nothing in [
            "",
            "storage.modify:/",
            "storage.read:/ospool/ap40/data/alic",
            "storage.read:/ospool/ap40/data/alice2",
            "storage.read:/ospool/ap40/data/bob",
            "storage.read:ospool/ap40/data/alice",
            "storage.read:/ospool/ap40/data/alice/1.0/x",
            "storage.read:/ospool/ap40/data/bob/../alice",
            "storage.reader:/",
        ] {
            assert_eq!(reach(nothing), Reach::Nothing, "{nothing}");
        }
    }

    #[test]
    fn a_scope_below_the_owner_reaches_one_job() {
        let reach = reach(
            "storage.read:/ospool/ap40/data/alice/1.0 storage.read:/ospool/ap40/data/alice/2.0",
        );
        let job = |name: &str| name.parse::<Job>().unwrap();
        assert!(reach.job(&job("1.0")) && reach.job(&job("2.0")) && !reach.job(&job("3.0")));
        assert!(reach.anywhere());
    }
}
