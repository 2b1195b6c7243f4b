//! An archive whose first files arrive through pipes while it is written, and so are never written twice.
//!
//! ```text
//!   begin   room for the manifest, estimated; the root of the first tree
//!   file    room for its header; chunks as they come; then the header, now that the size is known
//!   finish  the trees, without what came through pipes; manifest; fsync, rename
//! ```
//!
//! A header's room is a stored frame, whose length follows from the header's. Where the estimate for the manifest was too
//! small, which needs a sandbox that has grown much since [`Stream::begin`] or memory far above what was expected, the
//! archive is copied once to where there is more room.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::pipe::Pipe;
use super::write::Sink;
use super::{
    Options, PackError, Packed, Temp, Tree, Word, beside, commit, files, flush, foreseen, front,
    limits, room, scan, word,
};
use crate::frame::{self, Unpacker};
use crate::layout;
use crate::manifest::{Contents, Digest, Entry, FORMAT, Frame, Head, Kind, Manifest, Name};
use crate::monitor::{Monitor, Paced, Stage};

/// A header that has a record for its time always has room for one of its size: three blocks.
const HEAD: usize = 3 * layout::BLOCK as usize;
/// The longest name that a header of three blocks takes, with its tree's.
const NAME_MAX: usize = 90;
/// What a chunk is taken for when frames are counted before there are any: half of what they are on average.
const CHUNK: u64 = 512 << 10;

/// An archive that is not complete. Dropped, it is gone, and an older one is as it was.
pub struct Stream {
    out: PathBuf,
    options: Options,
    temp: Temp,
    flusher: Option<flush::Flusher>,
    prefix: String,
    room: u64,
    end: u64,
    entries: Vec<Entry>,
    frames: Vec<Frame>,
    /// Of each file its name, its first frame and where that lies.
    files: Vec<(String, usize, u64)>,
    told: Option<Sender<Word>>,
    start: Instant,
}

impl Stream {
    /// Begins an archive of these trees, of which the first also gets what comes through pipes: some `expected` bytes.
    /// `head` may still change, but not much in its length.
    pub fn begin(
        trees: &[Tree<'_>],
        expected: u64,
        head: &Head,
        out: &Path,
        options: &Options,
    ) -> Result<Self, PackError> {
        let start = Instant::now();
        let chunk = options.chunk.clamp(
            layout::OWN_FRAME as u32,
            crate::manifest::Limits::default().frame,
        );
        let options = Options { chunk, ..*options };
        let scan = scan::scan(trees)?;
        let root = scan.entries[..1].to_vec();
        let chunks = (expected / CHUNK) as usize;
        let mut frames = layout::cut(&scan.entries, chunk);
        frames.resize(frames.len() + chunks, chunk);
        let estimate = Manifest {
            format: FORMAT,
            head: head.clone(),
            contents: Contents {
                entries: scan.entries,
                left_out: scan.left_out,
                codec: options.codec,
                frames: frames.into_iter().map(foreseen).collect(),
            },
        };
        let estimate = room(&estimate)?;
        let room = (estimate + estimate / 4 + (64 << 10)) as u64;
        let temp = Temp::create(out)?;
        let flusher = flusher(&temp.file, out, &options)?;
        let mut stream = Self {
            out: out.to_owned(),
            options,
            temp,
            flusher,
            prefix: root[0].path.to_string(),
            room,
            end: room,
            entries: root,
            frames: Vec::new(),
            files: Vec::new(),
            told: None,
            start,
        };
        let head = layout::head(&stream.entries[0]);
        let at = stream.reserve(head.len());
        stream.fill(at, &head)?;
        Ok(stream)
    }

    /// Tells somebody of each frame that is written from here on.
    pub fn tell(&mut self, somebody: Sender<Word>) {
        self.told = Some(somebody);
    }

    /// Takes a file of the first tree, by its name there, and returns its size.
    pub fn file(
        &mut self,
        name: &str,
        from: impl Read + Send,
        monitor: &dyn Monitor,
    ) -> Result<u64, PackError> {
        let path = format!("{}/{name}", self.prefix);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since.map_or(0, |since| since.as_secs() as i64);
        let mut entry = Entry {
            path: Name::from(path.as_str()),
            mode: 0o600,
            // Not a whole second, so that its header has records, whatever its size.
            mtime_ns: seconds * 1_000_000_000 + 1,
            xattrs: Vec::new(),
            kind: Kind::File {
                size: 0,
                extents: None,
            },
        };
        if path.len() > NAME_MAX {
            return Err(PackError::Read {
                path: path.into(),
                source: io::ErrorKind::InvalidFilename.into(),
            });
        }
        let head = self.reserve(HEAD);
        let paced = Paced::new(monitor, Stage::Pack, u64::MAX);
        let sink = self.sink(&paced);
        let pipe = Pipe::new(path.into(), from);
        let (frames, end) = sink.run(&pipe, usize::MAX, self.end)?;
        self.files
            .push((name.to_owned(), self.frames.len(), self.end));
        self.frames.extend(frames);
        self.end = end;
        let size = pipe.bytes();
        entry.kind = Kind::File {
            size,
            extents: None,
        };
        self.fill(head, &layout::head(&entry))?;
        self.entries.push(entry);
        let pad = size.next_multiple_of(layout::BLOCK) - size;
        if pad > 0 {
            let at = self.reserve(pad as usize);
            self.fill(at, &vec![0; pad as usize])?;
        }
        Ok(size)
    }

    /// Bytes of a file that it has taken, from wherever they are in the archive.
    pub fn read_back(&self, name: &str, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let file = self.files.iter().find(|(file, ..)| file == name);
        let &(_, first, mut lies) = file.ok_or(io::ErrorKind::NotFound)?;
        let archive = File::open(self.temp.path())?;
        let mut unpacker = Unpacker::new()?;
        let (mut start, mut raw, mut found) = (0, Vec::new(), Vec::new());
        for frame in &self.frames[first..] {
            let end = start + u64::from(frame.raw);
            if end > at {
                let mut packed = vec![0; frame.packed as usize];
                archive.read_exact_at(&mut packed, lies)?;
                let whole = frame.raw as usize;
                if !unpacker.unpack(self.options.codec, &packed, whole, &mut raw) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let from = at.saturating_sub(start) as usize;
                let more = raw[from..].iter().take(len as usize - found.len());
                found.extend(more);
            }
            if found.len() as u64 == len {
                return Ok(found);
            }
            start = end;
            lies += u64::from(frame.packed);
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Adds the trees and commits the archive.
    pub fn finish(
        mut self,
        trees: &[Tree<'_>],
        head: Head,
        monitor: &dyn Monitor,
    ) -> Result<Packed, PackError> {
        let scan = scan::scan(trees)?;
        // The first root is there.
        let entries: Vec<_> = scan.entries.into_iter().skip(1).collect();
        let frames = layout::cut(&entries, self.options.chunk);
        let raw = frames.iter().map(|len| u64::from(*len)).sum();
        let paced = Paced::new(monitor, Stage::Pack, raw);
        let (done, end) = {
            let plan = layout::split(&entries, frames.iter().copied());
            let files = files::Files::new(&entries, &scan.sources[1..], plan);
            self.sink(&paced).run(&files, frames.len(), self.end)?
        };
        self.frames.extend(done);
        self.end = end;
        self.entries.extend(entries);

        let manifest = Manifest {
            format: FORMAT,
            head,
            contents: Contents {
                entries: std::mem::take(&mut self.entries),
                left_out: scan.left_out,
                codec: self.options.codec,
                frames: std::mem::take(&mut self.frames),
            },
        };
        manifest.check(&limits())?;
        let json = manifest.to_json();
        let (codec, created) = (self.options.codec, manifest.head.created);
        let front = match front(codec, &json, created, self.room as usize) {
            Err(PackError::Hole { needed, .. }) => {
                self.make_room(needed as u64)?;
                front(codec, &json, created, self.room as usize)?
            }
            other => other?,
        };
        let out = self.out;
        self.temp
            .file
            .write_all_at(&front, 0)
            .map_err(write(&out))?;
        commit(self.temp, self.flusher, &out, self.end, monitor)?;
        let raw_bytes = manifest.contents.frames.iter();
        let packed = Packed {
            bytes: self.end,
            raw_bytes: raw_bytes.map(|frame| u64::from(frame.raw)).sum(),
            digest: Digest::of(&json),
            left_out: manifest.contents.left_out,
        };
        tracing::debug!(
            bytes = packed.bytes,
            raw_bytes = packed.raw_bytes,
            entries = manifest.contents.entries.len(),
            seconds = self.start.elapsed().as_secs_f64(),
            "streamed"
        );
        Ok(packed)
    }

    fn sink<'a>(&'a self, paced: &'a Paced<'a>) -> Sink<'a> {
        Sink {
            options: &self.options,
            file: &self.temp.file,
            flusher: self.flusher.as_ref(),
            out: &self.out,
            paced,
            told: self.told.as_ref(),
        }
    }

    /// Keeps the place of a frame of `raw` bytes that come later.
    fn reserve(&mut self, raw: usize) -> Reserved {
        let packed = frame::stored(self.options.codec, raw);
        self.frames.push(Frame {
            hash: Digest::of(b""),
            raw: raw as u32,
            packed: packed as u32,
        });
        let reserved = Reserved {
            index: self.frames.len() - 1,
            at: self.end,
        };
        self.end += packed as u64;
        reserved
    }

    fn fill(&mut self, reserved: Reserved, raw: &[u8]) -> Result<(), PackError> {
        let frame = &mut self.frames[reserved.index];
        if frame.raw as usize != raw.len() {
            return Err(PackError::Hole {
                needed: raw.len(),
                foreseen: frame.raw as usize,
            });
        }
        let mut packed = Vec::new();
        frame::store(self.options.codec, raw, &mut packed);
        frame.hash = Digest::of(&packed);
        let (frame, at) = (*frame, reserved.at);
        let written = self.temp.file.write_all_at(&packed, at);
        written.map_err(write(&self.out))?;
        word::tell(self.told.as_ref(), frame, at);
        Ok(())
    }

    /// Moves the body to where the manifest has `needed` bytes.
    fn make_room(&mut self, needed: u64) -> Result<(), PackError> {
        tracing::debug!(needed, foreseen = self.room, "the archive is copied");
        let larger = Temp::create_as(&self.out, beside(&self.out, ".tmp2"))?;
        let copied = || -> io::Result<u64> {
            let mut from = File::open(self.temp.path())?;
            from.seek(SeekFrom::Start(self.room))?;
            let mut to = &larger.file;
            to.seek(SeekFrom::Start(needed))?;
            io::copy(&mut from, &mut to)
        };
        let copied = copied().map_err(write(&self.out))?;
        self.flusher = flusher(&larger.file, &self.out, &self.options)?;
        self.temp = larger;
        self.room = needed;
        self.end = needed + copied;
        Ok(())
    }
}

/// The place of a frame.
struct Reserved {
    index: usize,
    at: u64,
}

fn flusher(
    file: &File,
    out: &Path,
    options: &Options,
) -> Result<Option<flush::Flusher>, PackError> {
    let start = || flush::Flusher::start(file).map_err(write(out));
    options.sync.then(start).transpose()
}

fn write(out: &Path) -> impl Fn(io::Error) -> PackError + '_ {
    |source| PackError::Write {
        path: out.to_owned(),
        source,
    }
}
