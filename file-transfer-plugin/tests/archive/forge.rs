//! Archives as nobody should write them: a real one taken apart, changed and put together again.

use std::fs;
use std::path::Path;

use file_transfer_plugin::manifest::Digest;
use serde_json::Value;

/// The parts of an archive.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) manifest: Value,
    pub(crate) body: Vec<u8>,
}

impl Parts {
    /// Takes an archive apart.
    pub(crate) fn of(archive: &[u8]) -> Self {
        let front = zstd::zstd_safe::find_frame_compressed_size(archive).unwrap();
        let tar = zstd::decode_all(&archive[..front]).unwrap();
        let hole = u32::from_le_bytes(archive[front + 4..front + 8].try_into().unwrap()) as usize;
        let size = usize::from_str_radix(std::str::from_utf8(&tar[124..135]).unwrap(), 8).unwrap();
        let manifest = serde_json::from_slice(&tar[512..512 + size]).unwrap();
        Self {
            manifest,
            body: archive[front + 8 + hole..].to_vec(),
        }
    }

    /// Puts an archive together.
    pub(crate) fn write(&self, path: &Path) {
        write_with(
            path,
            serde_json::to_string(&self.manifest).unwrap().as_bytes(),
            &self.body,
        );
    }

    /// The packed bytes of each frame.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let mut rest = self.body.as_slice();
        let frames = self.manifest["contents"]["frames"].as_array().unwrap();
        let cut = frames.iter().map(|frame| {
            let (frame, after) = rest.split_at(frame[2].as_u64().unwrap() as usize);
            rest = after;
            frame.to_vec()
        });
        cut.collect()
    }
}

/// Gives each frame of the body the name that it has a right to, as far as there are bytes for it: whoever means harm can.
pub(crate) fn name_frames(manifest: &mut Value, mut body: &[u8]) {
    let frames = manifest.pointer_mut("/contents/frames");
    for frame in frames.and_then(Value::as_array_mut).into_iter().flatten() {
        let packed = frame[2].as_u64().and_then(|len| usize::try_from(len).ok());
        let Some((bytes, rest)) = packed.and_then(|len| body.split_at_checked(len)) else {
            return;
        };
        frame[0] = Digest::of(bytes).to_string().into();
        body = rest;
    }
}

/// Writes an archive with any text for a manifest.
pub(crate) fn write_with(path: &Path, json: &[u8], body: &[u8]) {
    let mut tar = vec![0; 512];
    tar[..13].copy_from_slice(b"manifest.json");
    tar[100..108].copy_from_slice(b"0000644\0");
    tar[108..116].copy_from_slice(b"0000000\0");
    tar[116..124].copy_from_slice(b"0000000\0");
    tar[124..136].copy_from_slice(format!("{:011o}\0", json.len()).as_bytes());
    tar[136..148].copy_from_slice(b"00000000000\0");
    tar[148..156].copy_from_slice(b"        ");
    tar[156] = b'0';
    tar[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend(json);
    tar.resize(tar.len().next_multiple_of(512), 0);
    let mut archive = zstd::bulk::compress(&tar, 1).unwrap();
    archive.extend(0x184D_2A50u32.to_le_bytes());
    archive.extend(4u32.to_le_bytes());
    archive.extend([0; 4]);
    archive.extend(body);
    fs::write(path, archive).unwrap();
}
