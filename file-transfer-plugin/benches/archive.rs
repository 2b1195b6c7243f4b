//! How fast memory is packed, verified, unpacked and hashed: `cargo bench -p file-transfer-plugin`.
//!
//! Files are not forced to disk, so that these are the costs of our own work.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use file_transfer_plugin::fingerprint::{Fingerprint, Kernel, Version};
use file_transfer_plugin::manifest::{Digest, Head, Limits, Resume};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, Tree, pack};
use file_transfer_plugin::unpack::Archive;

/// Larger than any cache of a CPU's.
const BYTES: usize = 256 << 20;
const PAGE: usize = 4096;

/// What fills memory.
type Fill = fn(&mut [u8]);

/// What a job's memory may be made of.
const KINDS: [(&str, Fill); 4] = [
    ("noise", noise),
    ("half zero", half_zero),
    ("sines", sines),
    ("text", text),
];

fn noise(memory: &mut [u8]) {
    blake3::Hasher::new().finalize_xof().fill(memory);
}

fn half_zero(memory: &mut [u8]) {
    noise(memory);
    for pages in memory.chunks_exact_mut(2 * PAGE) {
        pages[PAGE..].fill(0);
    }
}

/// An array of doubles, as a simulation has them.
fn sines(memory: &mut [u8]) {
    for (number, word) in memory.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(number as f64 * 1e-3).sin().to_le_bytes());
    }
}

fn text(memory: &mut [u8]) {
    for (number, line) in memory.chunks_exact_mut(32).enumerate() {
        line.copy_from_slice(format!("{number:>15} of many lines.\n").as_bytes());
    }
}

fn head() -> Head {
    Head {
        generation: 1,
        created: 0,
        fingerprint: Fingerprint {
            cpu_vendor: String::new(),
            cpu_features: Default::default(),
            xcr0: 0,
            xsave_size: 0,
            kernel: Kernel(0),
            criu: Version::new(0, 0, 0),
            abilities: Default::default(),
        },
        resume: Resume::default(),
    }
}

fn archives(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let (tree, out, back) = (
        dir.path().join("tree"),
        dir.path().join("archive"),
        dir.path().join("back"),
    );
    fs::create_dir(&tree).expect("it is new");
    let mut memory = vec![0; BYTES];
    let mut group = criterion.benchmark_group("archive");
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.sample_size(10);
    for (kind, fill) in KINDS {
        fill(&mut memory);
        fs::write(tree.join("pages"), &memory).expect("room for one tree");
        let options = Options {
            sync: false,
            ..Options::default()
        };
        group.bench_function(BenchmarkId::new("pack", kind), |bench| {
            bench.iter(|| packed(&tree, &out, &options));
        });
        let archive = Archive::open(&out, &Limits::default()).expect("just packed");
        group.bench_function(BenchmarkId::new("verify", kind), |bench| {
            bench.iter(|| archive.verify(&Silent).expect("just packed"));
        });
        group.bench_function(BenchmarkId::new("unpack", kind), |bench| {
            bench.iter_batched(
                || {
                    let _ = fs::remove_dir_all(&back);
                    fs::create_dir(&back).expect("it was removed");
                },
                |()| archive.unpack(&[("images", &back)], &Silent),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("hash", |bench| {
        bench.iter(|| Digest::of(black_box(&memory)));
    });
    group.finish();
}

fn packed(tree: &Path, out: &Path, options: &Options) {
    let tree = Tree {
        prefix: "images",
        dir: tree,
    };
    pack(&[tree], head(), out, options, &Silent).expect("room for one archive");
}

criterion_group!(benches, archives);
criterion_main!(benches);
