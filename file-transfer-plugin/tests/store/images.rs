//! Images come, are there, and go.

use file_transfer_plugin::protocol::{self, Chunk, Problem};

use crate::image::{Image, missing, problem, put};
use crate::server::Server;

#[test]
fn an_image_that_was_pushed_comes_back_byte_for_byte() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let mut client = server.client();
    let image = Image::of(1, &[1, 2, 3]);
    assert_eq!(image.push(&mut client, "12.0"), image.frames.len());
    image.is_whole(&mut client, "12.0");
    let listed: Vec<protocol::Image> = client.get("/v1/jobs/12.0/images").json();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].digest, listed[0].generation, listed[0].created),
        (image.digest, 1, 1_790_000_001)
    );
    let sum: usize = image.frames.iter().map(|(_, frame)| frame.len()).sum();
    assert_eq!(listed[0].bytes, sum as u64);
    assert_eq!(
        client.get("/v1/images").json::<Vec<protocol::Image>>(),
        listed
    );
    let latest = client.get("/v1/jobs/12.0/images/latest");
    assert_eq!(latest.body, image.manifest);
    // Its answer was lost, so it is sent again.
    assert_eq!(image.commit(&mut client, "12.0").status, 200);
}

#[test]
fn an_image_is_not_there_before_its_manifest_nor_its_manifest_before_its_chunks() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let mut client = server.client();
    let image = Image::of(1, &[1, 2, 3]);
    let (last, rest) = image.frames.split_last().unwrap();
    for (chunk, frame) in rest {
        assert_eq!(put(&mut client, *chunk, frame).status, 204);
    }
    let early = image.commit(&mut client, "12.0");
    assert_eq!(early.status, 409);
    assert_eq!(early.json::<Problem>().missing, [last.0]);
    assert_eq!(problem(&early), "1 chunks of the image are missing");
    assert_eq!(client.get("/v1/jobs/12.0/images/latest").status, 404);
    assert!(
        client
            .get("/v1/images")
            .json::<Vec<protocol::Image>>()
            .is_empty()
    );
    assert_eq!(missing(&mut client, &image.names()), [last.0]);
    assert_eq!(image.push(&mut client, "12.0"), 1);
}

#[test]
fn the_last_two_images_of_a_job_are_kept_and_shared_chunks_with_them() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let mut client = server.client();
    let images = [
        Image::of(1, &[1, 2, 3, 4]),
        Image::of(2, &[1, 2, 3, 5]),
        Image::of(3, &[1, 2, 6, 7]),
    ];
    assert_eq!(images[0].push(&mut client, "12.0"), images[0].frames.len());
    // One page and the headers, which hold times.
    assert_eq!(images[1].push(&mut client, "12.0"), 2);
    assert_eq!(images[2].push(&mut client, "12.0"), 3);
    let listed: Vec<protocol::Image> = client.get("/v1/jobs/12.0/images").json();
    let generations: Vec<u64> = listed.iter().map(|image| image.generation).collect();
    assert_eq!(generations, [3, 2]);
    assert_eq!(client.get(&images[0].path("12.0")).status, 404);
    images[1].is_whole(&mut client, "12.0");
    images[2].is_whole(&mut client, "12.0");
    let (only_of_first, _) = &images[0].frames[4];
    assert_eq!(missing(&mut client, &images[0].names()).len(), 2);
    assert_eq!(
        client.get(&format!("/v1/chunks/{only_of_first}")).status,
        404
    );
}

#[test]
fn what_is_removed_is_gone_and_what_others_share_with_it_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let mut client = server.client();
    let (one, two) = (Image::of(1, &[1, 2]), Image::of(1, &[1, 3]));
    one.push(&mut client, "12.0");
    two.push(&mut client, "12.1");
    assert_eq!(client.delete(&one.path("12.0")).status, 204);
    assert_eq!(client.delete(&one.path("12.0")).status, 204);
    assert_eq!(client.get(&one.path("12.0")).status, 404);
    two.is_whole(&mut client, "12.1");
    assert_eq!(client.delete("/v1/jobs/12.1/images").status, 204);
    assert_eq!(missing(&mut client, &two.names()), two.names());
}

#[test]
fn a_frame_that_is_not_its_chunk_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let mut client = server.client();
    let image = Image::of(1, &[1, 2]);
    // The first frame is that of the headers.
    let (chunk, frame) = &image.frames[1];
    let (_, other) = &image.frames[2];
    assert_eq!(frame.len(), other.len());
    let mut flipped = frame.clone();
    flipped[100] ^= 1;
    let mut twice = frame.clone();
    twice.extend(frame);
    let double = Chunk {
        packed: twice.len() as u32,
        ..*chunk
    };
    let cases = [
        ("of another", put(&mut client, *chunk, other)),
        ("flipped", put(&mut client, *chunk, &flipped)),
        ("cut", put(&mut client, *chunk, &frame[1..])),
        ("too long", put(&mut client, *chunk, &twice)),
        ("twice", put(&mut client, double, &twice)),
    ];
    for (what, answer) in cases {
        assert!(
            answer.status == 422 || answer.status == 400,
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(missing(&mut client, &image.names()), image.names());
}

#[test]
fn a_manifest_that_no_reader_would_take_is_not_committed() {
    let temp = tempfile::tempdir().unwrap();
    let server = Server::start(&temp.path().join("store"));
    let mut client = server.client();
    let image = Image::of(1, &[1]);
    image.push(&mut client, "12.0");
    let mut future: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    future["format"] = 999.into();
    let mut past = future.clone();
    past["format"] = 1.into();
    let mut outside: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    outside["contents"]["entries"][1]["path"] = "images/../../x".into();
    let texts = [future, past, outside].map(|manifest| manifest.to_string());
    for bad in texts.into_iter().chain(["[".repeat(100_000)]) {
        let bad = Image {
            digest: file_transfer_plugin::manifest::Digest::of(bad.as_bytes()),
            manifest: bad.into_bytes(),
            frames: Vec::new(),
        };
        let answer = bad.commit(&mut client, "12.0");
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(problem(&answer).starts_with("cannot believe the manifest"));
    }
    let other = client.put(&image.path("12.0"), b"{}");
    assert_eq!(other.status, 422);
}
