//! Real archives, whose bytes are known.

use std::fs;
use std::path::Path;

use file_transfer_plugin::fingerprint::{Fingerprint, Kernel, Version};
use file_transfer_plugin::manifest::{Codec, Digest, Head, Limits, Resume};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, Tree, pack};
use file_transfer_plugin::unpack::Archive;

/// Small, so that there are many chunks.
pub(crate) const CHUNK: usize = 64 << 10;

/// Bytes that cannot be compressed, the same for the same seed.
pub(crate) fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; CHUNK];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Packs an image of a job whose memory is these chunks of noise.
pub(crate) fn make(out: &Path, generation: u64, seeds: impl Iterator<Item = u64>) -> Digest {
    make_in(Codec::Zstd, out, generation, seeds)
}

pub(crate) fn make_in(
    codec: Codec,
    out: &Path,
    generation: u64,
    seeds: impl Iterator<Item = u64>,
) -> Digest {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("images");
    fs::create_dir(&dir).unwrap();
    let pages: Vec<u8> = seeds.flat_map(noise).collect();
    fs::write(dir.join("pages-1.img"), pages).unwrap();
    fs::write(dir.join("core-2.img"), generation.to_string()).unwrap();
    let options = Options {
        codec,
        chunk: CHUNK as u32,
        threads: 1,
        sync: false,
        ..Options::default()
    };
    let tree = Tree {
        prefix: "images",
        dir: &dir,
    };
    pack(&[tree], head(generation), out, &options, &Silent)
        .unwrap()
        .digest
}

/// What the image of that number says of itself.
pub(crate) fn head(generation: u64) -> Head {
    let fingerprint = Fingerprint {
        cpu_vendor: "GenuineIntel".into(),
        cpu_features: Default::default(),
        xcr0: 7,
        xsave_size: 832,
        kernel: Kernel(60118),
        criu: Version::new(4, 2, 1),
        abilities: Default::default(),
    };
    Head {
        generation,
        created: 1_790_000_000 + generation as i64,
        fingerprint,
        resume: Resume::default(),
    }
}

/// The archive is whole, and this one.
pub(crate) fn is_whole(path: &Path, digest: Digest) {
    let archive = Archive::open(path, &Limits::default()).unwrap();
    let archive = archive.expect(digest).unwrap();
    archive.verify(&Silent).unwrap();
}
