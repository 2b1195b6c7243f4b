//! How much a store takes at once: `flood STORE DIR [CLIENTS [MB]]`.
//!
//! Starts STORE (`criu-transfer`) on the empty directory DIR, with as many owners as CLIENTS (200), and lets each send an image
//! of MB (100) at the same moment. Before, it measures what bounds the store: how fast the disk takes the same files, and how
//! fast one core unpacks and hashes them. Prints both, the rate of the store, its CPU time and its largest memory.
//!
//! All clients send the same frames: the owners share nothing, so the store does all of the work for each, and the clients,
//! which run on the same cores, do next to none.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use file_transfer_plugin::fingerprint::{Fingerprint, Kernel, Version};
use file_transfer_plugin::manifest::{Digest, Head, Manifest, Resume};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::pack::{Options, Tree, pack};
use file_transfer_plugin::protocol::{Admission, Chunk, Missing, TICKET, Ticket};

const MIB: usize = 1 << 20;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let usage = "usage: flood STORE DIR [CLIENTS [MB]]";
    let (store, dir) = args.get(1).zip(args.get(2)).context(usage)?;
    let number = |index: usize, default| args.get(index).map_or(Ok(default), |text| text.parse());
    let (clients, mb) = (number(3, 200)?, number(4, 100)?);
    let dir = Path::new(dir);
    fs::create_dir_all(dir)?;
    ensure!(
        fs::read_dir(dir)?.next().is_none(),
        "{} is not empty",
        dir.display()
    );

    let image = image(dir, mb)?;
    let packed: usize = image.frames.iter().map(|(_, _, frame)| frame.len()).sum();
    let total = (packed * clients) as f64 / 1e6;
    println!(
        "{clients} clients, {mb} MiB each, {:.0} MB packed; {total:.0} MB in all",
        packed as f64 / 1e6
    );
    let disk = disk(dir, &image, clients)?;
    println!("disk alone:                 {disk:7.0} MB/s of frames");
    let core = core(&image)?;
    println!("one core, zstd and blake3:  {core:7.0} MB/s of frames");

    let tokens = dir.join("tokens");
    let lines: Vec<String> = (0..clients)
        .map(|client| {
            let hash = ring::digest::digest(&ring::digest::SHA256, token(client).as_bytes());
            let hash: String = hash
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{hash} owner-{client}\n")
        })
        .collect();
    fs::write(&tokens, lines.concat())?;
    let mut server = Command::new(store)
        .arg("serve")
        .arg("--dir")
        .arg(dir.join("store"))
        .args(["--listen", "127.0.0.1:0", "--low-water", "100M", "--tokens"])
        .arg(&tokens)
        .env("CRIU_TRANSFER_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the store")?;
    let result = flood(&mut server, &image, clients);
    let cost = cost(server.id());
    // Whatever came of it, nothing of ours goes on.
    server.kill()?;
    server.wait()?;
    let seconds = result?;
    let ([user, system], peak) = cost?;
    let rate = total / seconds;
    println!(
        "store:                      {rate:7.0} MB/s of frames, {seconds:.1} s, {:.0} % of the bound",
        100.0 * rate / disk.min(core)
    );
    println!(
        "store's CPU {user:.1} s and the kernel's for it {system:.1} s, largest memory {peak} MB"
    );
    Ok(fs::remove_dir_all(dir)?)
}

struct Image {
    manifest: Vec<u8>,
    digest: Digest,
    frames: Vec<(Chunk, u32, Vec<u8>)>,
}

/// An image of `mb` MiB that is half noise and half text, as a job's memory may be.
fn image(dir: &Path, mb: usize) -> anyhow::Result<Image> {
    let (tree, out) = (dir.join("tree"), dir.join("image.criu"));
    fs::create_dir(&tree)?;
    let mut file = File::create(tree.join("pages-1.img"))?;
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut page = [0; 4096];
    for number in 0..mb * MIB / page.len() {
        if number % 2 == 0 {
            noise.fill(&mut page);
        } else {
            let text = format!("{number:x} is a number like others, ");
            page.iter_mut()
                .zip(text.bytes().cycle())
                .for_each(|(to, from)| *to = from);
        }
        file.write_all(&page)?;
    }
    let fingerprint = Fingerprint {
        cpu_vendor: String::new(),
        cpu_features: Default::default(),
        xcr0: 0,
        xsave_size: 0,
        kernel: Kernel(0),
        criu: Version::new(0, 0, 0),
        abilities: Default::default(),
    };
    let head = Head {
        generation: 1,
        created: 0,
        fingerprint,
        resume: Resume::default(),
    };
    pack(
        &[Tree {
            prefix: "images",
            dir: &tree,
        }],
        head,
        &out,
        &Options::default(),
        &Silent,
    )?;
    let archive = fs::read(&out)?;
    fs::remove_file(&out)?;
    fs::remove_dir_all(&tree)?;

    let front = zstd::zstd_safe::find_frame_compressed_size(&archive)
        .ok()
        .context("no frame")?;
    let tar = zstd::decode_all(&archive[..front])?;
    let hole = u32::from_le_bytes(archive[front + 4..front + 8].try_into()?) as usize;
    let size = usize::from_str_radix(std::str::from_utf8(&tar[124..135])?, 8)?;
    let manifest = tar[512..512 + size].to_vec();
    let mut rest = &archive[front + 8 + hole..];
    let mut frames = Vec::new();
    for frame in Manifest::from_json(&manifest)?.contents.frames {
        let (bytes, after) = rest.split_at(frame.packed as usize);
        frames.push((Chunk::from(frame), frame.raw, bytes.to_vec()));
        rest = after;
    }
    Ok(Image {
        digest: Digest::of(&manifest),
        manifest,
        frames,
    })
}

/// How fast the disk takes the files of all images, made durable as the store does it. All, for the first ones only go into
/// memory that is free.
fn disk(dir: &Path, image: &Image, images: usize) -> anyhow::Result<f64> {
    let dir = dir.join("disk");
    let begin = Instant::now();
    let mut bytes = 0;
    for number in 0..images {
        let dir = dir.join(number.to_string());
        fs::create_dir_all(&dir)?;
        for (chunk, _, frame) in &image.frames {
            fs::write(dir.join(chunk.to_string()), frame)?;
            bytes += frame.len();
        }
        rustix::fs::syncfs(File::open(&dir)?)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    fs::remove_dir_all(dir)?;
    Ok(bytes as f64 / 1e6 / seconds)
}

/// How fast one core verifies.
fn core(image: &Image) -> anyhow::Result<f64> {
    let mut zstd = zstd::bulk::Decompressor::new()?;
    let mut raw = Vec::with_capacity(4 * MIB);
    let begin = Instant::now();
    let mut bytes = 0;
    while begin.elapsed().as_secs_f64() < 1.0 {
        for (chunk, len, frame) in &image.frames {
            raw.clear();
            zstd.decompress_to_buffer(frame, &mut raw)?;
            ensure!(
                raw.len() == *len as usize && Digest::of(frame) == chunk.hash,
                "a frame is damaged"
            );
            bytes += frame.len();
        }
    }
    Ok(bytes as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

fn token(client: usize) -> String {
    format!("token-of-{client}")
}

/// All clients at once; the seconds until the last has committed.
fn flood(server: &mut Child, image: &Image, clients: usize) -> anyhow::Result<f64> {
    let mut line = String::new();
    BufReader::new(server.stdout.take().context("no stdout")?).read_line(&mut line)?;
    let address = line
        .trim()
        .strip_prefix("listening on ")
        .context("the store did not start")?;
    let start = Barrier::new(clients + 1);
    thread::scope(|scope| {
        let all: Vec<_> = (0..clients)
            .map(|client| {
                let start = &start;
                let work = move || {
                    start.wait();
                    send(address, &token(client), image).with_context(|| format!("client {client}"))
                };
                thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, work)
            })
            .collect::<Result<_, _>>()?;
        start.wait();
        let begin = Instant::now();
        for client in all {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(begin.elapsed().as_secs_f64())
    })
}

fn send(address: &str, token: &str, image: &Image) -> anyhow::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    stream.get_ref().set_nodelay(true)?;
    let mut headers = format!("Host: store\r\nAuthorization: Bearer {token}\r\n");
    let names: Vec<Chunk> = image.frames.iter().map(|(chunk, _, _)| *chunk).collect();
    let bytes = image
        .frames
        .iter()
        .map(|(_, _, frame)| frame.len() as u64)
        .sum();
    let asked = Admission {
        bytes,
        seconds: 3600,
        job: None,
    };
    let answer = call(
        &mut stream,
        &headers,
        "POST",
        "/v1/admission",
        &serde_json::to_vec(&asked)?,
    )?;
    let Ticket { ticket } = serde_json::from_slice(&answer)?;
    headers.push_str(&format!("{TICKET}: {ticket}\r\n"));
    let asked = serde_json::to_vec(&Missing { chunks: names })?;
    let answer = call(&mut stream, &headers, "POST", "/v1/missing", &asked)?;
    let Missing { chunks } = serde_json::from_slice(&answer)?;
    ensure!(
        chunks.len() == image.frames.len(),
        "chunks of others are there"
    );
    for (chunk, _, frame) in &image.frames {
        call(
            &mut stream,
            &headers,
            "PUT",
            &format!("/v1/chunks/{chunk}"),
            frame,
        )?;
    }
    let path = format!("/v1/jobs/1.0/images/{}", image.digest);
    call(&mut stream, &headers, "PUT", &path, &image.manifest)?;
    Ok(())
}

fn call(
    stream: &mut BufReader<TcpStream>,
    headers: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all(head.as_bytes())?;
    stream.get_mut().write_all(body)?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let good = line
        .split(' ')
        .nth(1)
        .is_some_and(|status| status.starts_with('2'));
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.trim().parse()?;
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    if !good {
        bail!(
            "{method} {path}: {}: {}",
            line.trim(),
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(answer)
}

/// Seconds of CPU that a process has used, and its largest memory in MB.
fn cost(pid: u32) -> anyhow::Result<([f64; 2], u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(')').next().context("no stat")?;
    let ticks = after.split_whitespace().skip(11).take(2);
    let ticks: Vec<u64> = ticks.filter_map(|ticks| ticks.parse().ok()).collect();
    let [user, system] = ticks[..] else {
        bail!("no times in stat");
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak
        .and_then(|peak| peak.split_whitespace().next())
        .context("no VmHWM")?;
    Ok((
        [user, system].map(|ticks| ticks as f64 / 100.0),
        peak.parse::<u64>()? / 1024,
    ))
}
