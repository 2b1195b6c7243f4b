//! What is in an archive, without unpacking it: for people who wonder what their job left behind.
//!
//! The manifest tells of the archive, CRIU's own images of processes, memory and files. Only the frames with these are read,
//! and memory itself is not among them.

mod images;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use crate::manifest::{Kind, Limits};
use crate::unpack::{Archive, ArchiveError};

/// CRIU's description of a job, without its pages, is some kilobytes for each process.
const DESCRIPTION_LIMIT: u64 = 256 << 20;

const PAGE: u64 = 4096;

/// What could not be told.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The archive itself.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// One of CRIU's files in it.
    #[error("cannot make sense of {name} in the archive: {why}")]
    Image {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The processes, parents first.
    pub processes: Vec<Process>,
    /// Bytes of memory in the image, by kind.
    pub memory: BTreeMap<&'static str, u64>,
    /// Open and mapped files, without libraries.
    pub files: Vec<String>,
    /// Mapped programs and libraries from outside of the job's directory.
    pub libraries: Vec<String>,
    /// How many descriptors there are, by kind.
    pub descriptors: BTreeMap<&'static str, u32>,
    /// Entries and bytes of each tree.
    pub trees: BTreeMap<String, (u64, u64)>,
    /// Bytes of the archive, and what they are when unpacked.
    pub size: (u64, u64),
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// As the job sees it.
    pub pid: u32,
    /// Its parent's; 0 or the supervisor's for the first.
    pub parent: u32,
    /// Its name.
    pub name: String,
    /// How many threads it has.
    pub threads: usize,
    /// Bytes of its memory in the image.
    pub bytes: u64,
}

/// Opens an archive and looks into it.
pub fn inspect(path: &Path) -> Result<(Archive, Inspection), InspectError> {
    let archive = Archive::open(path, &Limits::default())?;
    let found = look(&archive)?;
    Ok((archive, found))
}

fn look(archive: &Archive) -> Result<Inspection, InspectError> {
    let wanted = |name: &[u8]| {
        let Some(name) = name.strip_prefix(b"images/") else {
            return false;
        };
        name.ends_with(b".img")
            && [
                &b"pstree"[..],
                b"core-",
                b"mm-",
                b"pagemap-",
                b"files",
                b"fdinfo-",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let images = archive.read_files(|entry| wanted(entry.path.as_bytes()), DESCRIPTION_LIMIT)?;
    let images: BTreeMap<String, Vec<u8>> = images
        .into_iter()
        .map(|(name, bytes)| (name.to_string().replacen("images/", "", 1), bytes))
        .collect();
    let mut found = Inspection {
        processes: Vec::new(),
        memory: BTreeMap::new(),
        files: Vec::new(),
        libraries: Vec::new(),
        descriptors: BTreeMap::new(),
        trees: trees(archive),
        size: (
            archive.bytes(),
            archive
                .manifest()
                .contents
                .frames
                .iter()
                .map(|frame| u64::from(frame.raw))
                .sum(),
        ),
    };
    let files: BTreeMap<u64, images::File> = all(&images, "files.img", 0)?
        .into_iter()
        .map(|file: images::File| (u64::from(file.id), file))
        .collect();
    let mut libraries = BTreeSet::new();
    for task in all::<images::Task>(&images, "pstree.img", 0)? {
        let process = process(&images, &task, &files, &mut libraries, &mut found.memory)?;
        found.processes.push(process);
    }
    for name in images.keys() {
        if name.starts_with("pagemap-shmem-") {
            *found.memory.entry("shared").or_default() += pages(&images, name)?
                .iter()
                .map(|run| run.count().saturating_mul(PAGE))
                .fold(0, u64::saturating_add);
        }
        if name.starts_with("fdinfo-") {
            for descriptor in all::<images::Descriptor>(&images, name, 0)? {
                let kind = files
                    .get(&u64::from(descriptor.id))
                    .map_or("other", |file| kind(file.kind));
                *found.descriptors.entry(kind).or_default() += 1;
            }
        }
    }
    for file in files.values().filter_map(|file| file.regular.as_ref()) {
        let name = file.name.clone();
        if !libraries.contains(&name) {
            found.files.push(name);
        }
    }
    found.files.sort();
    found.files.dedup();
    found.libraries = libraries.into_iter().collect();
    Ok(found)
}

fn process(
    images: &BTreeMap<String, Vec<u8>>,
    task: &images::Task,
    files: &BTreeMap<u64, images::File>,
    libraries: &mut BTreeSet<String>,
    memory: &mut BTreeMap<&'static str, u64>,
) -> Result<Process, InspectError> {
    const EXECUTABLE: u32 = 4;
    let pid = task.pid;
    let core: Option<images::Core> = one(images, &format!("core-{pid}.img"))?;
    let map: Option<images::Memory> = one(images, &format!("mm-{pid}.img"))?;
    let mut areas = map.map(|map| map.areas).unwrap_or_default();
    areas.sort_by_key(|area| area.start);
    for area in areas
        .iter()
        .filter(|area| area.protection & EXECUTABLE != 0 && is_file(area))
    {
        let name = files
            .get(&area.file)
            .and_then(|file| file.regular.as_ref())
            .map(|file| &file.name);
        libraries.extend(
            name.filter(|name| !name.trim_start_matches('/').starts_with("srv/"))
                .cloned(),
        );
    }
    let mut bytes = 0;
    for run in pages(images, &format!("pagemap-{pid}.img"))? {
        let size = run.count().saturating_mul(PAGE);
        bytes = u64::saturating_add(bytes, size);
        // A run does not reach from one area into another of a different kind unless they touch; its start decides.
        let index = areas.partition_point(|area| area.start <= run.start);
        let area = index.checked_sub(1).map(|index| &areas[index]);
        *memory.entry(area.map_or("other", memory_kind)).or_default() += size;
    }
    Ok(Process {
        pid,
        parent: task.parent,
        name: core
            .and_then(|core| core.task)
            .map(|task| task.name)
            .unwrap_or_default(),
        threads: task.threads.len(),
        bytes,
    })
}

fn is_file(area: &images::Area) -> bool {
    area.status & (1 << 6 | 1 << 7) != 0
}

/// From the bits of `criu/include/image.h`.
fn memory_kind(area: &images::Area) -> &'static str {
    match area.status {
        status if status & 1 << 5 != 0 => "heap",
        status if status & 1 << 1 != 0 => "stack",
        status if status & (1 << 3 | 1 << 12) != 0 => "vdso",
        status if status & 1 << 6 != 0 => "private copies of files",
        status if status & (1 << 7 | 1 << 8) != 0 => "shared",
        status if status & 1 << 9 != 0 => "anonymous",
        _ => "other",
    }
}

/// From `fd_types` of CRIU's `fdinfo.proto`.
fn kind(number: i32) -> &'static str {
    match number {
        1 => "file",
        2 | 3 => "pipe",
        4 => "tcp or udp",
        5 => "unix socket",
        6 => "eventfd",
        7 => "epoll",
        8 => "inotify",
        9 => "signalfd",
        11 => "terminal",
        17 => "timerfd",
        18 => "memfd",
        _ => "other",
    }
}

fn all<M: prost::Message + Default>(
    images: &BTreeMap<String, Vec<u8>>,
    name: &str,
    skip: usize,
) -> Result<Vec<M>, InspectError> {
    let Some(image) = images.get(name) else {
        return Ok(Vec::new());
    };
    images::read(image, skip).map_err(|why| InspectError::Image {
        name: name.to_owned(),
        why,
    })
}

fn one<M: prost::Message + Default>(
    images: &BTreeMap<String, Vec<u8>>,
    name: &str,
) -> Result<Option<M>, InspectError> {
    let image = images
        .get(name)
        .map(|image| images::first(image))
        .transpose();
    image.map_err(|why| InspectError::Image {
        name: name.to_owned(),
        why,
    })
}

fn pages(
    images: &BTreeMap<String, Vec<u8>>,
    name: &str,
) -> Result<Vec<images::Pages>, InspectError> {
    all(images, name, 1)
}

fn trees(archive: &Archive) -> BTreeMap<String, (u64, u64)> {
    let mut trees: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for entry in &archive.manifest().contents.entries {
        let path = entry.path.to_string();
        let (tree, inside) = path
            .split_once('/')
            .map_or((path.as_str(), false), |(tree, _)| (tree, true));
        let sum = trees.entry(tree.to_owned()).or_default();
        if inside {
            sum.0 += 1;
            if let Kind::File { size, .. } = entry.kind {
                sum.1 += size;
            }
        }
    }
    trees
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::fingerprint::tests::haswell;
    use crate::manifest::{Head, Resume};
    use crate::monitor::Silent;
    use crate::pack::{Options, Tree, pack};

    /// As CRIU writes one.
    fn image(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = 0x5456_4319_u32.to_le_bytes().to_vec();
        bytes.extend(1_u32.to_le_bytes());
        for message in messages {
            bytes.extend((message.len() as u32).to_le_bytes());
            bytes.extend(message);
        }
        bytes
    }

    fn area(start: u64, pages: u64, file: u64, protection: u32, status: u32) -> images::Area {
        images::Area {
            start,
            end: start + pages * PAGE,
            file,
            protection,
            status,
        }
    }

    fn run(start: u64, pages: u64) -> Vec<u8> {
        let flags = Some(1 << 2);
        images::Pages {
            start,
            few: 0,
            in_parent: None,
            flags,
            many: Some(pages),
        }
        .encode_to_vec()
    }

    fn file(id: u32, name: &str) -> Vec<u8> {
        let regular = Some(images::Regular { name: name.into() });
        images::File {
            kind: 1,
            id,
            regular,
        }
        .encode_to_vec()
    }

    /// Two processes, one of them with a library; the other's pages are in the parent image.
    fn packed(change: impl Fn(&Path)) -> Result<Inspection, InspectError> {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        std::fs::create_dir(&images).unwrap();
        let put = |name: &str, messages: &[Vec<u8>]| {
            std::fs::write(images.join(name), image(messages)).unwrap()
        };
        let task = |pid, parent, threads| {
            images::Task {
                pid,
                parent,
                threads,
            }
            .encode_to_vec()
        };
        put("pstree.img", &[task(2, 0, vec![2, 5]), task(3, 2, vec![3])]);
        let core = |name: &str| {
            images::Core {
                task: Some(images::TaskCore { name: name.into() }),
            }
            .encode_to_vec()
        };
        put("core-2.img", &[core("sim")]);
        put("core-3.img", &[core("\u{1b}[2J")]);
        let areas = vec![
            area(0x1000, 4, 0, 3, 1 << 5 | 1 << 9),
            area(0x9000, 2, 7, 5, 1 << 6),
            area(0x20000, 1, 0, 3, 1 << 9),
        ];
        put(
            "mm-2.img",
            &[images::Memory { program: 8, areas }.encode_to_vec()],
        );
        put(
            "pagemap-2.img",
            &[vec![8, 1], run(0x1000, 3), run(0x9000, 1), run(0x20000, 1)],
        );
        let flags = Some(1);
        let parent = images::Pages {
            start: 0x1000,
            few: 9,
            in_parent: Some(true),
            flags,
            many: None,
        };
        put("pagemap-3.img", &[vec![8, 2], parent.encode_to_vec()]);
        put("pagemap-shmem-9.img", &[vec![8, 3], run(0, 2)]);
        put(
            "files.img",
            &[file(7, "/usr/lib/libm.so.6"), file(8, "/srv/sim")],
        );
        put(
            "fdinfo-2.img",
            &[
                images::Descriptor { id: 8 }.encode_to_vec(),
                images::Descriptor { id: 99 }.encode_to_vec(),
            ],
        );
        std::fs::write(images.join("pages-1.img"), vec![1; 5 * 4096]).unwrap();
        change(&images);
        let out = dir.path().join("checkpoint.criu");
        let head = Head {
            generation: 1,
            created: 0,
            fingerprint: haswell(),
            resume: Resume::default(),
        };
        pack(
            &[Tree {
                prefix: "images",
                dir: &images,
            }],
            head,
            &out,
            &Options::default(),
            &Silent,
        )
        .unwrap();
        inspect(&out).map(|(_, found)| found)
    }

    #[test]
    fn processes_memory_files_and_libraries_are_told() {
        let found = packed(|_| ()).unwrap();
        let process = |pid, parent, name: &str, threads, bytes| Process {
            pid,
            parent,
            name: name.into(),
            threads,
            bytes,
        };
        assert_eq!(
            found.processes,
            [
                process(2, 0, "sim", 2, 5 * PAGE),
                process(3, 2, "\u{1b}[2J", 1, 0)
            ]
        );
        let memory = [
            ("anonymous", PAGE),
            ("heap", 3 * PAGE),
            ("private copies of files", PAGE),
            ("shared", 2 * PAGE),
            ("other", 0),
        ];
        assert_eq!(found.memory, BTreeMap::from(memory));
        assert_eq!(found.libraries, ["/usr/lib/libm.so.6"]);
        assert_eq!(found.files, ["/srv/sim"]);
        assert_eq!(
            found.descriptors,
            BTreeMap::from([("file", 1), ("other", 1)])
        );
    }

    #[test]
    fn an_image_that_makes_no_sense_is_named() {
        for (name, bytes) in [
            ("pstree.img", &b"x"[..]),
            ("mm-2.img", &[0; 12]),
            (
                "pagemap-2.img",
                &[0x19, 0x43, 0x56, 0x54, 0, 0, 0, 0, 255, 255, 255, 255],
            ),
        ] {
            let result = packed(|dir| std::fs::write(dir.join(name), bytes).unwrap());
            match result {
                Err(InspectError::Image { name: found, .. }) => assert_eq!(found, name),
                // Twelve zeros are an empty message, which is an empty memory.
                Ok(_) if name == "mm-2.img" => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
