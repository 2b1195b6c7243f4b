//! What of CRIU's image files is looked at: the fields that an inspection tells of, by the numbers of CRIU's `images/*.proto`.
//!
//! A file is two magic words and messages, each with its length before it. Fields that are not named here are skipped, so a
//! newer CRIU's images are read as well.

use prost::Message;

const COMMON_MAGIC: u32 = 0x5456_4319;

/// `pstree.img`: one for each process.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Task {
    #[prost(uint32, tag = "1")]
    pub(super) pid: u32,
    #[prost(uint32, tag = "2")]
    pub(super) parent: u32,
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    pub(super) threads: Vec<u32>,
}

/// `core-PID.img`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Core {
    #[prost(message, optional, tag = "3")]
    pub(super) task: Option<TaskCore>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TaskCore {
    #[prost(string, tag = "6")]
    pub(super) name: String,
}

/// `mm-PID.img`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Memory {
    #[prost(uint32, tag = "12")]
    pub(super) program: u32,
    #[prost(message, repeated, tag = "14")]
    pub(super) areas: Vec<Area>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Area {
    #[prost(uint64, tag = "1")]
    pub(super) start: u64,
    #[prost(uint64, tag = "2")]
    pub(super) end: u64,
    #[prost(uint64, tag = "4")]
    pub(super) file: u64,
    #[prost(uint32, tag = "5")]
    pub(super) protection: u32,
    #[prost(uint32, tag = "7")]
    pub(super) status: u32,
}

/// `pagemap-*.img`, after its head: the runs of pages that `pages-N.img` holds.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Pages {
    #[prost(uint64, tag = "1")]
    pub(super) start: u64,
    #[prost(uint32, tag = "2")]
    pub(super) few: u32,
    #[prost(bool, optional, tag = "3")]
    pub(super) in_parent: Option<bool>,
    #[prost(uint32, optional, tag = "4")]
    pub(super) flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) many: Option<u64>,
}

impl Pages {
    /// How many of them the image holds.
    pub(super) fn count(&self) -> u64 {
        const PRESENT: u32 = 1 << 2;
        let here = match (self.in_parent, self.flags) {
            (Some(true), _) => false,
            (_, Some(flags)) => flags & PRESENT != 0,
            _ => true,
        };
        if here {
            self.many.unwrap_or(self.few.into())
        } else {
            0
        }
    }
}

/// `files.img`: everything that a descriptor or a mapping refers to.
#[derive(Clone, PartialEq, Message)]
pub(super) struct File {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(uint32, tag = "2")]
    pub(super) id: u32,
    #[prost(message, optional, tag = "3")]
    pub(super) regular: Option<Regular>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Regular {
    #[prost(string, tag = "6")]
    pub(super) name: String,
}

/// `fdinfo-N.img`: one for each descriptor.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Descriptor {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
}

/// All messages of a file, after `skip` of another kind.
pub(super) fn read<M: Message + Default>(
    image: &[u8],
    skip: usize,
) -> Result<Vec<M>, &'static str> {
    let mut words = image
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")));
    if words.next() != Some(COMMON_MAGIC) {
        return Err("no image of CRIU's");
    }
    let mut rest = image.get(8..).ok_or("cut short")?;
    let mut messages = Vec::new();
    let mut number = 0;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or("cut short")?;
        let length = u32::from_le_bytes(*length) as usize;
        let message = after.get(..length).ok_or("cut short")?;
        if number >= skip {
            messages.push(M::decode(message).map_err(|_| "a message that makes no sense")?);
        }
        number += 1;
        rest = &after[length..];
    }
    Ok(messages)
}

/// Its first message; a core image has more data after it.
pub(super) fn first<M: Message + Default>(image: &[u8]) -> Result<M, &'static str> {
    let (length, after) = image
        .get(8..)
        .and_then(<[u8]>::split_first_chunk::<4>)
        .ok_or("cut short")?;
    let message = after
        .get(..u32::from_le_bytes(*length) as usize)
        .ok_or("cut short")?;
    M::decode(message).map_err(|_| "a message that makes no sense")
}
