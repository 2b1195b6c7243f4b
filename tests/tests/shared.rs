//! Pools that the tests of a module share, one for each HTCondor.

use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::Spec;
use tests::store::Store;

/// Each test on both versions, `v23_9::name` and `v25::name`, by the module's own `on_shared_pool`.
macro_rules! on_both_versions {
    ($($name:ident),+ $(,)?) => {
        mod v23_9 { $(#[test] fn $name() { super::on_shared_pool(tests::roots::HtCondor::V23_9, super::$name); })+ }
        mod v25 { $(#[test] fn $name() { super::on_shared_pool(tests::roots::HtCondor::V25, super::$name); })+ }
    };
}
pub(crate) use on_both_versions;

/// A pool whose access point has a store.
pub(crate) fn with_store(spec: &Spec) -> Result<Pool> {
    let pool = Pool::up(spec)?;
    Store::up(&pool)?;
    Ok(pool)
}

/// Made by the first test that needs it. Nobody drops it: its guard ends it when the test process is gone.
pub(crate) struct Shared<T = Pool> {
    up: fn(HtCondor) -> Result<T>,
    made: [OnceLock<Result<T, String>>; 2],
    turns: [Mutex<()>; 2],
}

impl<T> Shared<T> {
    pub(crate) const fn new(up: fn(HtCondor) -> Result<T>) -> Self {
        Self {
            up,
            made: [const { OnceLock::new() }; 2],
            turns: [const { Mutex::new(()) }; 2],
        }
    }

    /// Beside others.
    pub(crate) fn on(&self, version: HtCondor, test: impl FnOnce(&T) -> Result<()>) {
        require!(root, namespaces, user_namespaces, roots);
        let made = self.made[index(version)]
            .get_or_init(|| (self.up)(version).map_err(|error| format!("{error:#}")));
        match made {
            Ok(pool) => test(pool).unwrap_or_else(|error| panic!("{error:#}")),
            Err(error) => panic!("{error}"),
        }
    }

    /// One at a time: such tests do something to what all share.
    pub(crate) fn alone_on(&self, version: HtCondor, test: impl FnOnce(&T) -> Result<()>) {
        let turn = self.turns[index(version)].lock();
        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
        self.on(version, test);
    }
}

fn index(version: HtCondor) -> usize {
    usize::from(version == HtCondor::V25)
}
