//! The one edit that a rootless image needs: supplementary groups out.
//!
//! A user namespace with a single mapped id may never call `setgroups`, and the
//! next host's account has other groups, so CRIU's restorer would die of
//! `Can't setgroups`. With an empty list it does not call it. Everything else in
//! the image must stay byte for byte, fields of newer CRIUs included, so this
//! walks the wire format instead of decoding messages it does not know whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::wire::without_field;

/// Common magic of CRIU's image files, then the magic of `core-*.img`.
const COMMON_MAGIC: u32 = 0x5456_4319;
const CORE_MAGIC: u32 = 0x5505_3847;

/// core_entry.thread_core, thread_core_entry.creds, creds_entry.groups.
const GROUPS: [u64; 3] = [5, 10, 14];

/// A core image holds registers and credentials: a few kilobytes.
const CORE_LIMIT: u64 = 16 << 20;

/// What could not be edited in an image.
#[derive(Debug, Error)]
pub(crate) enum ImageError {
    /// The directory or one file of it.
    #[error("cannot edit the image {path}")]
    File {
        /// What was read or written.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not what CRIU writes.
    #[error("{path} is not a core image that this version understands: {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        what: &'static str,
    },
}

/// Takes the supplementary groups out of every core image in `dir`.
pub(crate) fn drop_groups(dir: &Path) -> Result<(), ImageError> {
    each_core(dir, |path| {
        let file = |source| ImageError::File {
            path: path.to_owned(),
            source,
        };
        let before = fs::read(path).map_err(file)?;
        let after = core_without_groups(&before).map_err(|what| ImageError::Format {
            path: path.to_owned(),
            what,
        })?;
        if after != before {
            fs::write(path, after).map_err(file)?;
        }
        Ok(())
    })
}

/// Every core image in `dir`: one for each thread.
pub(super) fn each_core(
    dir: &Path,
    mut each: impl FnMut(&Path) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::File { path, source }
    };
    for entry in fs::read_dir(dir).map_err(file(dir))? {
        let path = entry.map_err(file(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("core-") || !name.ends_with(".img") {
            continue;
        }
        if fs::metadata(&path).map_err(file(&path))?.len() > CORE_LIMIT {
            return Err(ImageError::Format {
                what: "too large",
                path,
            });
        }
        each(&path)?;
    }
    Ok(())
}

/// The message in a core image.
pub(super) fn core_message(image: &[u8]) -> Result<&[u8], &'static str> {
    let word = |at: usize| -> Result<u32, &'static str> {
        let bytes = image.get(at..at + 4).ok_or("cut short")?;
        let word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        Ok::<u32, &'static str>(word)
    };
    if word(0)? != COMMON_MAGIC || word(4)? != CORE_MAGIC {
        return Err("wrong magic");
    }
    let end = 12usize
        .checked_add(word(8)? as usize)
        .ok_or("wrong length")?;
    image.get(12..end).ok_or("cut short")
}

fn core_without_groups(image: &[u8]) -> Result<Vec<u8>, &'static str> {
    let message = core_message(image)?;
    let edited = without_field(message, &GROUPS)?;
    let mut out = image[..8].to_vec();
    let length = u32::try_from(edited.len()).map_err(|_| "too large")?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&edited);
    out.extend_from_slice(&image[12 + message.len()..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::wire::push_varint;
    use super::*;

    fn field(number: u64, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_varint(&mut out, number << 3 | 2);
        push_varint(&mut out, body.len() as u64);
        out.extend_from_slice(body);
        out
    }

    fn number(number: u64, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        push_varint(&mut out, number << 3);
        push_varint(&mut out, value);
        out
    }

    fn core(groups: &[u64]) -> Vec<u8> {
        let mut creds = number(1, 1000);
        for &group in groups {
            creds.extend(number(14, group));
        }
        creds.extend(number(18, 1));
        let mut thread = number(1, 7);
        thread.extend(field(10, &creds));
        thread.extend(field(99, b"from a newer criu"));
        let mut message = number(1, 1);
        message.extend(field(3, b"task"));
        message.extend(field(5, &thread));
        let mut image = Vec::new();
        image.extend_from_slice(&COMMON_MAGIC.to_le_bytes());
        image.extend_from_slice(&CORE_MAGIC.to_le_bytes());
        image.extend_from_slice(&(message.len() as u32).to_le_bytes());
        image.extend_from_slice(&message);
        image
    }

    #[test]
    fn groups_go_and_every_other_byte_stays() {
        let edited = core_without_groups(&core(&[4, 2_000, 100_000])).unwrap();
        assert_eq!(edited, core(&[]));
    }

    #[test]
    fn an_image_without_groups_is_unchanged() {
        let image = core(&[]);
        assert_eq!(core_without_groups(&image).unwrap(), image);
    }

    #[test]
    fn a_cut_image_is_refused_at_every_length() {
        let image = core(&[4, 5]);
        for length in 0..image.len() {
            assert!(core_without_groups(&image[..length]).is_err(), "{length}");
        }
    }
}
