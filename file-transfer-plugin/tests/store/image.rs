//! Real images to send: packed by the library, taken apart into what travels.

use std::fs;

use file_transfer_plugin::fingerprint::{Fingerprint, Kernel, Version};
use file_transfer_plugin::manifest::{Digest, Head, Manifest, Resume};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, Tree, pack};
use file_transfer_plugin::protocol::{Chunk, Missing, Problem};

use crate::http::{Answer, Client};

/// The size of a chunk in these images: small, so that there are many.
const CHUNK: u32 = 64 << 10;

/// An image as it travels.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) digest: Digest,
    pub(crate) manifest: Vec<u8>,
    pub(crate) frames: Vec<(Chunk, Vec<u8>)>,
}

/// Bytes that cannot be compressed, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

impl Image {
    /// An image of a job whose memory is made of these pages of noise.
    pub(crate) fn of(generation: u64, seeds: &[u64]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("images");
        fs::create_dir(&dir).unwrap();
        let pages: Vec<u8> = seeds
            .iter()
            .flat_map(|seed| noise(*seed, CHUNK as usize))
            .collect();
        fs::write(dir.join("pages-1.img"), pages).unwrap();
        fs::write(dir.join("core-2.img"), generation.to_string()).unwrap();
        let fingerprint = Fingerprint {
            cpu_vendor: "GenuineIntel".into(),
            cpu_features: Default::default(),
            xcr0: 7,
            xsave_size: 832,
            kernel: Kernel(60118),
            criu: Version::new(4, 2, 1),
            abilities: Default::default(),
        };
        let head = Head {
            generation,
            created: 1_790_000_000 + generation as i64,
            fingerprint,
            resume: Resume::default(),
        };
        let options = Options {
            chunk: CHUNK,
            threads: 1,
            sync: false,
            ..Options::default()
        };
        let tree = Tree {
            prefix: "images",
            dir: &dir,
        };
        let out = temp.path().join("checkpoint.criu");
        pack(&[tree], head, &out, &options, &Silent).unwrap();
        Self::of_archive(&fs::read(out).unwrap())
    }

    /// Takes an archive apart.
    fn of_archive(archive: &[u8]) -> Self {
        let front = zstd::zstd_safe::find_frame_compressed_size(archive).unwrap();
        let tar = zstd::decode_all(&archive[..front]).unwrap();
        let hole = u32::from_le_bytes(archive[front + 4..front + 8].try_into().unwrap()) as usize;
        let size = usize::from_str_radix(std::str::from_utf8(&tar[124..135]).unwrap(), 8).unwrap();
        let json = tar[512..512 + size].to_vec();
        let manifest = Manifest::from_json(&json).unwrap();
        let mut rest = &archive[front + 8 + hole..];
        let frames = manifest.contents.frames.iter().map(|frame| {
            let (bytes, after) = rest.split_at(frame.packed as usize);
            rest = after;
            (Chunk::from(*frame), bytes.to_vec())
        });
        Self {
            frames: frames.collect(),
            digest: Digest::of(&json),
            manifest: json,
        }
    }

    pub(crate) fn names(&self) -> Vec<Chunk> {
        self.frames.iter().map(|(chunk, _)| *chunk).collect()
    }

    /// The path of this image of a job.
    pub(crate) fn path(&self, job: &str) -> String {
        format!("/v1/jobs/{job}/images/{}", self.digest)
    }

    /// Sends the manifest.
    pub(crate) fn commit(&self, client: &mut Client, job: &str) -> Answer {
        client.put(&self.path(job), &self.manifest)
    }

    /// Sends what is missing, then the manifest, as a client does. How many chunks it sent.
    pub(crate) fn push(&self, client: &mut Client, job: &str) -> usize {
        let missing = missing(client, &self.names());
        for (chunk, frame) in &self.frames {
            if missing.contains(chunk) {
                assert_eq!(put(client, *chunk, frame).status, 204);
            }
        }
        let answer = self.commit(client, job);
        assert_eq!(answer.status, 201, "{}", answer.text());
        missing.len()
    }

    /// Fetches the image and compares each byte.
    pub(crate) fn is_whole(&self, client: &mut Client, job: &str) {
        let manifest = client.get(&self.path(job));
        assert_eq!(manifest.status, 200, "{}", manifest.text());
        assert_eq!(manifest.body, self.manifest);
        for (chunk, frame) in &self.frames {
            let got = client.get(&format!("/v1/chunks/{chunk}"));
            assert_eq!(got.status, 200, "{chunk}");
            assert_eq!(&got.body, frame, "{chunk}");
        }
    }
}

/// Sends a chunk.
pub(crate) fn put(client: &mut Client, chunk: Chunk, frame: &[u8]) -> Answer {
    client.put(&format!("/v1/chunks/{chunk}"), frame)
}

/// Those of the chunks that the store lacks.
pub(crate) fn missing(client: &mut Client, chunks: &[Chunk]) -> Vec<Chunk> {
    let chunks = chunks.to_vec();
    let answer = client.post("/v1/missing", &Missing { chunks });
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json::<Missing>().chunks
}

/// The sentence of a refusal.
pub(crate) fn problem(answer: &Answer) -> String {
    answer.json::<Problem>().error
}
