//! Which register state was in use in a dumped tree.
//!
//! A CPU notes in XSTATE_BV which components of its state have been written since the process began. AVX-512's stay noted
//! until the process ends, so this tells what code really did, whatever it was told of its CPU.

use std::fs;
use std::path::Path;

use super::images::{ImageError, core_message};
use super::wire::{Value, field};

/// core_entry.thread_info, .fpregs, .xsave, .xstate_bv.
const XSTATE_BV: [u64; 4] = [2, 3, 13, 1];

/// XSTATE_BV of all threads together.
pub(super) fn in_use(dir: &Path) -> Result<u64, ImageError> {
    let mut used = None;
    super::images::each_core(dir, |path| {
        let image = fs::read(path).map_err(|source| ImageError::File {
            path: path.to_owned(),
            source,
        })?;
        let state = core_message(&image).and_then(state);
        let state = state.map_err(|what| ImageError::Format {
            path: path.to_owned(),
            what,
        })?;
        used = Some(used.unwrap_or(0) | state);
        Ok(())
    })?;
    used.ok_or(ImageError::Format {
        path: dir.to_owned(),
        what: "no thread in it",
    })
}

/// A machine without xsave has none.
fn state(mut message: &[u8]) -> Result<u64, &'static str> {
    for step in XSTATE_BV {
        match field(message, step)? {
            None => return Ok(0),
            Some(Value::Bytes(inner)) => message = inner,
            Some(Value::Number(number)) => return Ok(number),
        }
    }
    Err("a number is expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_thread_is_found() {
        // xsave { xstate_bv = 0xe7 }, in fpregs, in thread_info.
        let xsave = [0x08, 0xe7, 0x01];
        let fpregs = [&[0x6a, 3][..], &xsave].concat();
        let info = [&[0x1a, 5][..], &fpregs].concat();
        let core = [&[0x08, 1, 0x12, 7][..], &info].concat();
        assert_eq!(state(&core), Ok(0xe7));
        assert_eq!(state(&[0x08, 1]), Ok(0));
        assert!(state(&core[..core.len() - 1]).is_err());
    }
}
