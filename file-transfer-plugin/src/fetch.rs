//! An image in a store -> verified chunks -> `checkpoint.criu`.
//!
//! The archive is put together beside its name, `checkpoint.criu.part`, and takes its name when it is whole. Every chunk is
//! hashed before it is written, and not opened. A fetch that was cut off goes on from what of the part verifies: nothing else
//! has to be remembered.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::frame::{self, Skip};
use crate::manifest::{Digest, Frame, Limits, Manifest};
use crate::monitor::{Monitor, Paced, Stage};
use crate::protocol::Chunk;
use crate::remote::{Effort, Error, Moved, Options, Remote, Requests};
use crate::workers::lock;
use crate::{layout, rig};

/// A chunk and all the places where it is in the archive.
struct Wanted {
    frame: Frame,
    places: Vec<u64>,
}

/// Gets an image and writes it to `out`. None if the job has none yet.
///
/// The owner of the token gets what he has put there: that it is the image which the job's ad names is for whoever opens the
/// archive to find out, with [`Archive::expect`](crate::unpack::Archive::expect), or for the URL to say.
pub fn fetch(
    remote: &Remote,
    out: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Option<Moved>, Error> {
    let effort = Effort::new(options, monitor);
    let Some(image) = Image::look(remote, &effort)? else {
        return Ok(None);
    };
    let part = Part::open(out, &image)?;
    let load = Load::new(remote, &effort, Some(&part));
    let (queue, end) = image.queue(part.body);
    let moved = load.all(&image, queue, options.connections, monitor)?;
    part.finish(end)?;
    Ok(Some(Moved {
        file_bytes: end,
        ..moved
    }))
}

/// Gets an image and compares every chunk with its name; nothing is kept. None if the job has none.
pub fn verify(
    remote: &Remote,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Option<Moved>, Error> {
    let effort = Effort::new(options, monitor);
    let Some(image) = Image::look(remote, &effort)? else {
        return Ok(None);
    };
    let (queue, end) = image.queue(image.json.len() as u64);
    let load = Load::new(remote, &effort, None);
    let moved = load.all(&image, queue, options.connections, monitor)?;
    Ok(Some(Moved {
        file_bytes: end,
        ..moved
    }))
}

/// An image by its manifest.
struct Image {
    json: Bytes,
    digest: Digest,
    manifest: Manifest,
}

impl Image {
    fn look(remote: &Remote, effort: &Effort<'_>) -> Result<Option<Self>, Error> {
        let job = remote.url().job()?;
        let wanted = remote.url().digest;
        let mut requests = Requests::new(remote, effort)?;
        let json = match effort.persist(|| requests.manifest(job, wanted)) {
            Err(Error::NotFound { .. }) if wanted.is_none() => return Ok(None),
            json => json?,
        };
        let digest = Digest::of(&json);
        if wanted.is_some_and(|wanted| wanted != digest) {
            return Err(nonsense(
                remote,
                format!("it has sent the image {digest} for another"),
            ));
        }
        let manifest = Manifest::from_json(&json).and_then(|manifest| {
            manifest.check_names()?;
            manifest.check(&Limits::default())?;
            Ok(manifest)
        });
        let manifest = manifest.map_err(|error| nonsense(remote, error.to_string()))?;
        Ok(Some(Self {
            json,
            digest,
            manifest,
        }))
    }

    /// The distinct chunks, each with its places in an archive whose chunks begin at `body`, and where that ends.
    fn queue(&self, body: u64) -> (Vec<Wanted>, u64) {
        let mut chunks: HashMap<Chunk, Wanted> = HashMap::new();
        let mut end = body;
        for frame in &self.manifest.contents.frames {
            let wanted = chunks.entry(Chunk::from(*frame)).or_insert(Wanted {
                frame: *frame,
                places: Vec::new(),
            });
            wanted.places.push(end);
            end += u64::from(frame.packed);
        }
        let mut queue: Vec<Wanted> = chunks.into_values().collect();
        queue.sort_unstable_by_key(|wanted| wanted.places.first().copied());
        (queue, end)
    }
}

fn nonsense(remote: &Remote, why: String) -> Error {
    Error::Nonsense {
        server: remote.url().server(),
        why,
    }
}

/// An archive that is being put together.
struct Part {
    file: File,
    path: PathBuf,
    out: PathBuf,
    /// Where the chunks begin.
    body: u64,
    /// Whether it is the beginning of this very image.
    is_old: bool,
}

impl Part {
    fn open(out: &Path, image: &Image) -> Result<Self, Error> {
        let mut name: OsString = out.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let failed = |source| Error::Local {
            what: format!("write {}", path.display()),
            source,
        };
        let mut front = Vec::new();
        let tar = layout::manifest(&image.json, image.manifest.head.created);
        let codec = image.manifest.contents.codec;
        frame::pack_manifest(codec, &tar, &mut front).map_err(failed)?;
        // A reader wants the gap that a writer leaves behind its manifest; here it is empty.
        front.extend(frame::skips(codec, Skip::of(codec).least()));
        let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        // Memory is private, so is its image.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nofollow.bits() as i32)
            .open(&path)
            .map_err(failed)?;
        let mut old = vec![0; front.len()];
        let is_old = file.read_exact_at(&mut old, 0).is_ok() && old == front;
        if !is_old {
            file.set_len(0).map_err(failed)?;
            file.write_all_at(&front, 0).map_err(failed)?;
        }
        Ok(Self {
            file,
            body: front.len() as u64,
            out: out.to_owned(),
            is_old,
            path,
        })
    }

    /// Whether a chunk is at this place already.
    fn has(&self, frame: Frame, at: u64, buffer: &mut Vec<u8>) -> bool {
        buffer.resize(frame.packed as usize, 0);
        let read = self.file.read_exact_at(buffer, at);
        read.is_ok() && Digest::of(buffer) == frame.hash
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Local {
            what: format!("write {}", self.path.display()),
            source,
        }
    }

    /// It is whole.
    fn finish(self, end: u64) -> Result<(), Error> {
        let named = self
            .file
            .set_len(end)
            .and_then(|()| fs::rename(&self.path, &self.out));
        named.map_err(|source| self.failed(source))
    }
}

/// Chunks on their way.
struct Load<'a> {
    remote: &'a Remote,
    effort: &'a Effort<'a>,
    /// Where they go, if they are kept.
    part: Option<&'a Part>,
    bytes: AtomicU64,
    chunks: AtomicU64,
}

impl<'a> Load<'a> {
    fn new(remote: &'a Remote, effort: &'a Effort<'a>, part: Option<&'a Part>) -> Self {
        Self {
            remote,
            effort,
            part,
            bytes: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
        }
    }

    fn all(
        self,
        image: &Image,
        queue: Vec<Wanted>,
        connections: usize,
        monitor: &dyn Monitor,
    ) -> Result<Moved, Error> {
        let chunks = queue.len() as u64;
        self.get(queue, connections, monitor)?;
        Ok(Moved {
            sent_bytes: self.bytes.into_inner() + image.json.len() as u64,
            chunks,
            sent_chunks: self.chunks.into_inner(),
            digest: Some(image.digest),
            generation: Some(image.manifest.head.generation),
            ..Moved::of(self.remote, self.effort)
        })
    }

    fn get(
        &self,
        queue: Vec<Wanted>,
        connections: usize,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let total = queue
            .iter()
            .map(|wanted| u64::from(wanted.frame.packed))
            .sum();
        let paced = Paced::new(monitor, Stage::Fetch, total);
        let workers = connections.clamp(1, 16).min(queue.len());
        let queue = Mutex::new(queue.into_iter());
        self.effort
            .side_by_side(workers, || self.work(&queue, &paced))
    }

    fn work(
        &self,
        queue: &Mutex<impl Iterator<Item = Wanted>>,
        paced: &Paced<'_>,
    ) -> Result<(), Error> {
        let mut requests = Requests::new(self.remote, self.effort)?;
        let mut old = Vec::new();
        loop {
            let Some(Wanted { frame, places }) = lock(queue).next() else {
                return Ok(());
            };
            let mut rest = places.as_slice();
            if let Some(part) = self.part.filter(|part| part.is_old) {
                while let Some((at, more)) = rest.split_first()
                    && part.has(frame, *at, &mut old)
                {
                    rest = more;
                }
            }
            if !rest.is_empty() {
                let chunk = Chunk::from(frame);
                let bytes = self.effort.persist(|| {
                    let bytes = requests.chunk(chunk)?;
                    if Digest::of(&bytes) == frame.hash {
                        Ok(bytes)
                    } else {
                        Err(requests.damaged(chunk))
                    }
                })?;
                if let Some(part) = self.part {
                    rest.iter().try_for_each(|at| part.write(&bytes, *at))?;
                }
                rig::stop("fetching");
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.chunks.fetch_add(1, Ordering::Relaxed);
            }
            paced.add(u64::from(frame.packed));
        }
    }
}
