//! Which image to go on from, and whether it may be tried here.
//!
//! ```text
//! candidates, newest first:
//!   verifies, is known, is admitted ──> Thaw ── fails, or dies at once ──┐
//!   verifies, but cannot run here ───────────────────────────────────────┤
//!   is damaged, or another's ──> the next one                            │
//!   is in a store that is away ──────────────────────────────────────────┤
//! none is left ──> Fresh: from the beginning           by hand, and on the first three slots: NotHere,
//!                  (by hand an error instead)          the slot goes back and the image stays; then the next one
//! ```
//!
//! Candidates are what HTCondor has brought and, where the job has a store, what is there.
//!
//! An image is known where the job's ad names no digest, or its own, or that of the image before it: an image can
//! reach the access point without the news of it, when a slot dies right after the upload, and the news without the
//! image, when the upload fails. So the ad names the images that may be there, `ChirpCRIUDigest` and before it
//! `ChirpCRIUDigestBefore`, and an image says which one it follows. News of images that a job sends to a store while it
//! runs comes late, by five minutes and not at all from a slot that dies: there, what is newer than the ad is known, too.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use file_transfer_plugin::fingerprint::Fingerprint;
use file_transfer_plugin::manifest::{Limits, Manifest, Name};
use file_transfer_plugin::monitor::Silent;
use file_transfer_plugin::protocol;
use file_transfer_plugin::rig;
use file_transfer_plugin::unpack::{Archive, ArchiveError};

use crate::again::Notes;
use crate::criu::is_served;
use crate::job::Job;
use crate::sandbox::{Sandbox, TREES};
use crate::store::{Asked, Asking};

/// Slots that may fail to restore an image before an older one is taken.
const ATTEMPTS: u32 = 3;

/// How the job begins.
pub(crate) enum Choice {
    /// From its command.
    Fresh,
    /// From the image that is now unpacked in the sandbox, but for the memory.
    Thaw(Box<Image>),
    /// Elsewhere: this slot cannot, and the sentence says why.
    NotHere(String),
    /// Not at all: the slot is wanted back.
    Vacated,
}

/// An image that verified.
pub(crate) struct Image {
    pub(crate) manifest: Manifest,
    /// Where its memory is.
    pub(crate) archive: Arc<Archive>,
    /// The digest of that manifest.
    pub(crate) digest: String,
}

/// Where an image is.
enum Candidate {
    Here(PathBuf),
    Stored(protocol::Image),
}

/// The images that are left to try.
pub(crate) struct Ladder<'a> {
    candidates: VecDeque<Candidate>,
    /// The digests of the images that it may be; none where nobody named any.
    known: Vec<String>,
    /// Why those before were not taken.
    refused: Vec<String>,
    asking: Option<Asking<'a>>,
    /// That of the newest image that there is or was.
    pub(crate) generation: u64,
    /// What HTCondor has brought, which stays at home while newer ones go to the store.
    pub(crate) at_home: Option<String>,
}

/// What is wrong with a candidate.
enum Refusal {
    /// It is of no use to anybody.
    Bad(String),
    /// Another slot may take it.
    NotHere(Box<Manifest>, String),
}

impl<'a> Ladder<'a> {
    /// The images in the scratch directory. HTCondor wants a listed file to exist, so an empty one is none.
    ///
    /// Started again in place we have the ad of the first start here, and know better what was sent since.
    pub(crate) fn of(sandbox: &Sandbox, job: &Job, again: Option<&Notes>) -> Ladder<'a> {
        let mut known = job.digests();
        if !known.is_empty()
            && let Some(notes) = again
        {
            known.extend_from_slice(&notes.digests);
        }
        let is_image = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
        let here = sandbox.archives().into_iter().filter(is_image);
        Ladder {
            candidates: here.map(Candidate::Here).collect(),
            known,
            refused: Vec::new(),
            asking: None,
            generation: 0,
            at_home: None,
        }
    }

    /// Adds those of a store, which are asked for when their turn comes.
    pub(crate) fn and_stored(&mut self, stored: Vec<protocol::Image>, asking: Asking<'a>) {
        self.asking = Some(asking);
        self.merge(stored);
    }

    /// Each in its place by age, but for those that are here already.
    fn merge(&mut self, mut stored: Vec<protocol::Image>) {
        stored.sort_by_key(|image| (image.generation, image.created));
        self.generation = stored.last().map_or(0, |image| image.generation);
        for candidate in std::mem::take(&mut self.candidates) {
            let Candidate::Here(path) = &candidate else {
                continue;
            };
            // One that cannot be read is refused when its turn comes, which it may do at once.
            if let Ok(archive) = Archive::open(path, &Limits::default()) {
                let head = &archive.manifest().head;
                let digest = archive.digest();
                let age = (head.generation, head.created);
                stored.retain(|image| image.digest != digest);
                while let Some(newer) =
                    stored.pop_if(|image| (image.generation, image.created) > age)
                {
                    self.candidates.push_back(Candidate::Stored(newer));
                }
                self.generation = self.generation.max(head.generation);
                let digest = digest.to_string();
                if is_known(&self.known, &digest, &head.resume.follows) {
                    self.at_home.get_or_insert(digest);
                }
            }
            self.candidates.push_back(candidate);
        }
        self.candidates
            .extend(stored.into_iter().rev().map(Candidate::Stored));
    }

    /// Whether there is anything to go on from.
    pub(crate) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Why images were not taken, if any were not.
    pub(crate) fn refusals(&self) -> Option<String> {
        (!self.refused.is_empty()).then(|| self.refused.join("; "))
    }

    /// Verifies and unpacks the newest image that is left.
    pub(crate) fn next(
        &mut self,
        job: &Job,
        sandbox: &Sandbox,
        slot: &Fingerprint,
    ) -> Result<Choice> {
        while let Some(candidate) = self.candidates.pop_front() {
            let (path, newer_than) = match (candidate, &self.asking) {
                (Candidate::Here(path), _) => (path, None),
                (Candidate::Stored(_), None) => continue,
                (Candidate::Stored(image), Some(asking)) => match asking.pull(&image, sandbox) {
                    Asked::Got(path) => (path, Some(job.generation())),
                    Asked::Vacated => return Ok(Choice::Vacated),
                    Asked::Not(why) if may_wait_for_store(job) => {
                        return Ok(Choice::NotHere(why.to_string()));
                    }
                    Asked::Not(why) => {
                        tracing::warn!("not from the store: {why}");
                        self.refused.push(why.to_string());
                        continue;
                    }
                },
            };
            let unpacked = unpack(&path, &self.known, newer_than, sandbox, slot);
            if newer_than.is_some() {
                // It is open as long as it is needed.
                let _ = fs::remove_file(&path);
            }
            match unpacked {
                Ok(image) => return Ok(Choice::Thaw(Box::new(image))),
                Err(Refusal::NotHere(manifest, reason)) if may_give_back(job, &manifest) => {
                    return Ok(Choice::NotHere(reason));
                }
                Err(Refusal::NotHere(_, reason) | Refusal::Bad(reason)) => {
                    tracing::warn!("not from {}: {reason}", path.display());
                    self.refused.push(reason);
                    sandbox.clear(&TREES)?;
                }
            }
        }
        if !job.is_htcondor()
            && let Some(refused) = self.refusals()
        {
            bail!("{refused}; take checkpoint.criu away to begin again");
        }
        Ok(Choice::Fresh)
    }

    /// After an image could not be restored here: another slot while there is hope, then an older image.
    pub(crate) fn failed(
        &mut self,
        image: &Image,
        reason: String,
        job: &Job,
        sandbox: &Sandbox,
        slot: &Fingerprint,
    ) -> Result<Choice> {
        if may_give_back(job, &image.manifest) {
            return Ok(Choice::NotHere(reason));
        }
        tracing::warn!("given up on the image after {ATTEMPTS} slots: {reason}");
        self.without(reason, job, sandbox, slot)
    }

    /// After an image turned out damaged, which it is on every slot: an older one.
    pub(crate) fn without(
        &mut self,
        reason: String,
        job: &Job,
        sandbox: &Sandbox,
        slot: &Fingerprint,
    ) -> Result<Choice> {
        self.refused.push(reason);
        sandbox.clear(&TREES)?;
        self.next(job, sandbox, slot)
    }
}

/// Writes an image out into the sandbox, all of it or without what CRIU asks for itself.
pub(crate) fn write_out(
    archive: &Archive,
    sandbox: &Sandbox,
    without: impl Fn(&Name) -> bool,
) -> Result<(), ArchiveError> {
    let dirs = TREES.map(|name| (name, sandbox.tree(name)));
    let trees: Vec<_> = dirs
        .iter()
        .map(|(name, dir)| (*name, dir.as_path()))
        .collect();
    archive.unpack_but(&trees, without, &Silent).map(|_| ())
}

/// Whether another slot is to try. By hand nobody counts, and nothing is lost by asking the person.
fn may_give_back(job: &Job, manifest: &Manifest) -> bool {
    let attempts = job.starts().saturating_sub(manifest.head.resume.job_starts);
    !job.is_htcondor() || attempts <= ATTEMPTS
}

/// Whether a later slot is to get the image of a store that is away: the same patience as with one that cannot restore.
pub(crate) fn may_wait_for_store(job: &Job) -> bool {
    !job.is_htcondor() || job.starts_since_image() <= u64::from(ATTEMPTS)
}

/// Of a store an image that is `newer_than` the last that was announced is believed, too.
fn unpack(
    path: &std::path::Path,
    known: &[String],
    newer_than: Option<u64>,
    sandbox: &Sandbox,
    slot: &Fingerprint,
) -> Result<Image, Refusal> {
    let begun = std::time::Instant::now();
    let bad = |error: ArchiveError| Refusal::Bad(format!("{:#}", anyhow::Error::from(error)));
    let archive = Archive::open(path, &Limits::default()).map_err(bad)?;
    let manifest = archive.manifest().clone();
    let digest = archive.digest().to_string();
    let is_news = newer_than.is_some_and(|announced| manifest.head.generation > announced);
    if !is_news && !is_known(known, &digest, &manifest.head.resume.follows) {
        return Err(Refusal::Bad(format!(
            "{} is {digest}, which is none of those that the job's ad names",
            path.display()
        )));
    }
    if let Err(mismatches) = slot.admits(&manifest.head.fingerprint) {
        let reasons: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
        return Err(Refusal::NotHere(Box::new(manifest), reasons.join("; ")));
    }
    rig::stop("unpacking");
    write_out(&archive, sandbox, is_served).map_err(|error| match error {
        // A full disk is this slot's, and the image as good as it was.
        ArchiveError::Write { .. } => Refusal::NotHere(
            Box::new(manifest.clone()),
            format!("{:#}", anyhow::Error::from(error)),
        ),
        error => bad(error),
    })?;
    tracing::info!(
        stage = "unpacked",
        generation = manifest.head.generation,
        seconds = begun.elapsed().as_secs_f64()
    );
    Ok(Image {
        manifest,
        archive: Arc::new(archive),
        digest,
    })
}

/// Whether an image is one that the ad may mean; `follows` is the one before it.
fn is_known(known: &[String], digest: &str, follows: &str) -> bool {
    known.is_empty()
        || known
            .iter()
            .any(|known| known == digest || known == follows)
}

#[cfg(test)]
mod tests {
    use classad::ClassAd;
    use file_transfer_plugin::host;
    use file_transfer_plugin::manifest::{Head, Resume};
    use file_transfer_plugin::pack::{self, Options, Tree};

    use super::*;

    /// A scratch directory with images: each has its number in a file.
    struct Scratch {
        dir: tempfile::TempDir,
        slot: Fingerprint,
    }

    impl Scratch {
        fn new() -> Scratch {
            let version = "4.2.1".parse().unwrap();
            Scratch {
                dir: tempfile::tempdir().unwrap(),
                slot: host::fingerprint(version, Default::default()).unwrap(),
            }
        }

        fn sandbox(&self) -> Sandbox {
            Sandbox::create(self.dir.path()).unwrap()
        }

        /// Writes `name`, of generation `number`, which needs `ability`; its digest.
        fn image(&self, name: &str, number: u64, ability: Option<&str>, follows: &str) -> String {
            let tree = tempfile::tempdir().unwrap();
            for name in TREES {
                fs::create_dir(tree.path().join(name)).unwrap();
            }
            fs::write(tree.path().join("srv/number"), number.to_string()).unwrap();
            let dirs = TREES.map(|name| (name, tree.path().join(name)));
            let trees: Vec<_> = dirs
                .iter()
                .map(|(prefix, dir)| Tree { prefix, dir })
                .collect();
            let mut fingerprint = self.slot.clone();
            fingerprint.abilities.extend(ability.map(str::to_owned));
            let head = Head {
                generation: number,
                created: 1,
                fingerprint,
                resume: Resume {
                    job_starts: 1,
                    follows: follows.to_owned(),
                    ..Resume::default()
                },
            };
            let out = self.dir.path().join(name);
            let packed = pack::pack(&trees, head, &out, &Options::default(), &Silent).unwrap();
            packed.digest.to_string()
        }

        fn damage(&self, name: &str) {
            let path = self.dir.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes.truncate(middle);
            fs::write(path, bytes).unwrap();
        }

        fn job(&self, ad: Option<&str>) -> Job {
            Job {
                scratch: self.dir.path().to_owned(),
                command: vec!["./job".into()],
                job_ad: ad.map(|ad| ClassAd::parse_old(ad).unwrap()),
                machine_ad: None,
                every: None,
                baseline: None,
                criu: None,
                codec: Default::default(),
                small: false,
                store: None,
                as_root: false,
                only_restore: false,
            }
        }
    }

    fn number(sandbox: &Sandbox) -> String {
        fs::read_to_string(sandbox.tree("srv").join("number")).unwrap()
    }

    const NEW: &str = "checkpoint.criu";
    const OLD: &str = "checkpoint.criu.older";

    #[test]
    fn without_an_image_the_job_begins() {
        let scratch = Scratch::new();
        fs::write(scratch.dir.path().join(NEW), "").unwrap();
        let sandbox = scratch.sandbox();
        let job = scratch.job(Some("A = 1"));
        let choice = Ladder::of(&sandbox, &job, None)
            .next(&job, &sandbox, &scratch.slot)
            .unwrap();
        assert!(matches!(choice, Choice::Fresh));
    }

    #[test]
    fn the_newest_that_is_whole_is_taken() {
        let scratch = Scratch::new();
        scratch.image(OLD, 1, None, "");
        scratch.image(NEW, 2, None, "");
        let sandbox = scratch.sandbox();
        let job = scratch.job(Some("NumJobStarts = 2"));
        let mut ladder = Ladder::of(&sandbox, &job, None);
        let choice = ladder.next(&job, &sandbox, &scratch.slot).unwrap();
        assert!(matches!(choice, Choice::Thaw(image) if image.manifest.head.generation == 2));
        assert_eq!(number(&sandbox), "2");
    }

    #[test]
    fn a_damaged_one_gives_way_to_an_older_one_and_that_to_the_beginning() {
        let scratch = Scratch::new();
        scratch.image(OLD, 1, None, "");
        scratch.image(NEW, 2, None, "");
        scratch.damage(NEW);
        let sandbox = scratch.sandbox();
        let job = scratch.job(Some("NumJobStarts = 2"));
        let mut ladder = Ladder::of(&sandbox, &job, None);
        let choice = ladder.next(&job, &sandbox, &scratch.slot).unwrap();
        assert!(matches!(choice, Choice::Thaw(image) if image.manifest.head.generation == 1));
        assert_eq!(number(&sandbox), "1");

        scratch.damage(OLD);
        sandbox.clear(&TREES).unwrap();
        let mut ladder = Ladder::of(&sandbox, &job, None);
        let choice = ladder.next(&job, &sandbox, &scratch.slot).unwrap();
        assert!(matches!(choice, Choice::Fresh));
        assert!(ladder.refusals().is_some());
        let job = scratch.job(None);
        let by_hand = Ladder::of(&sandbox, &job, None).next(&job, &sandbox, &scratch.slot);
        let Err(error) = by_hand else {
            panic!("by hand nobody decides that work is thrown away")
        };
        assert!(error.to_string().ends_with("to begin again"), "{error}");
    }

    #[test]
    fn three_slots_may_fail_on_an_image_and_then_an_older_one_is_tried() {
        let scratch = Scratch::new();
        scratch.image(OLD, 1, None, "");
        scratch.image(NEW, 2, None, "");
        let sandbox = scratch.sandbox();
        // The image was made in the first start.
        for starts in 2..=6 {
            let job = scratch.job(Some(&format!("NumJobStarts = {starts}")));
            sandbox.clear(&TREES).unwrap();
            let mut ladder = Ladder::of(&sandbox, &job, None);
            let Choice::Thaw(image) = ladder.next(&job, &sandbox, &scratch.slot).unwrap() else {
                panic!("no image at start {starts}")
            };
            let reason = "it died of SIGILL".to_owned();
            let choice = ladder
                .failed(&image, reason, &job, &sandbox, &scratch.slot)
                .unwrap();
            match choice {
                Choice::NotHere(_) => assert!(starts <= 4, "given back at start {starts}"),
                Choice::Thaw(older) => {
                    assert!(starts > 4, "given up at start {starts}");
                    assert_eq!(older.manifest.head.generation, 1);
                    assert_eq!(number(&sandbox), "1");
                }
                Choice::Fresh | Choice::Vacated => {
                    panic!("the older image was passed over")
                }
            }
        }
    }

    #[test]
    fn an_image_that_needs_another_slot_is_kept_for_it() {
        let scratch = Scratch::new();
        scratch.image(NEW, 2, Some("levitation"), "");
        let sandbox = scratch.sandbox();
        for ad in [None, Some("NumJobStarts = 2")] {
            let job = scratch.job(ad);
            let choice = Ladder::of(&sandbox, &job, None)
                .next(&job, &sandbox, &scratch.slot)
                .unwrap();
            assert!(matches!(choice, Choice::NotHere(reason) if reason.contains("levitation")));
        }
        let late = scratch.job(Some("NumJobStarts = 9"));
        let choice = Ladder::of(&sandbox, &late, None).next(&late, &sandbox, &scratch.slot);
        assert!(matches!(choice.unwrap(), Choice::Fresh));
    }

    #[test]
    fn images_of_a_store_and_of_spool_are_tried_by_their_age() {
        let scratch = Scratch::new();
        let first = scratch.image(OLD, 1, None, "");
        let third = scratch.image(NEW, 3, None, "");
        let sandbox = scratch.sandbox();
        let stored = |generation, digest: &str| protocol::Image {
            job: "12.0".parse().unwrap(),
            generation,
            digest: digest.parse().unwrap(),
            bytes: 1,
            raw_bytes: 1,
            created: 1,
            committed: 1,
        };
        let (second, fourth) = ("2".repeat(64), "4".repeat(64));
        let ad = format!("ChirpCRIUDigest = \"{third}\"");
        let mut ladder = Ladder::of(&sandbox, &scratch.job(Some(&ad)), None);
        ladder.merge(vec![
            stored(2, &second),
            stored(3, &third),
            stored(4, &fourth),
        ]);
        let order: Vec<_> = ladder
            .candidates
            .iter()
            .map(|candidate| match candidate {
                Candidate::Here(path) => path.file_name().unwrap().to_str().unwrap(),
                Candidate::Stored(image) if image.generation == 4 => "stored 4",
                Candidate::Stored(image) if image.generation == 2 => "stored 2",
                Candidate::Stored(_) => "stored",
            })
            .collect();
        assert_eq!(order, ["stored 4", NEW, "stored 2", OLD]);
        assert_eq!(ladder.generation, 4);
        // The first is of no ad's that we know.
        assert_eq!(ladder.at_home, Some(third));
        assert_ne!(ladder.at_home, Some(first));
    }

    #[test]
    fn a_store_that_is_away_is_waited_for_three_times() {
        let scratch = Scratch::new();
        let waits = |ad: &str| may_wait_for_store(&scratch.job(Some(ad)));
        assert!(waits("NumJobStarts = 3"));
        assert!(!waits("NumJobStarts = 4"));
        let of_second = |starts| format!("ChirpCRIUStarts = 2\nNumJobStarts = {starts}");
        assert!(waits(&of_second(5)));
        assert!(!waits(&of_second(6)));
    }

    #[test]
    fn what_is_newer_than_the_ad_is_believed_of_a_store_alone() {
        let scratch = Scratch::new();
        scratch.image(NEW, 5, None, "");
        let sandbox = scratch.sandbox();
        let known = ["f00d".to_owned()];
        let path = sandbox.archive();
        for (newer_than, taken) in [(None, false), (Some(5), false), (Some(4), true)] {
            sandbox.clear(&TREES).unwrap();
            let image = unpack(&path, &known, newer_than, &sandbox, &scratch.slot);
            assert_eq!(image.is_ok(), taken, "{newer_than:?}");
        }
    }

    #[test]
    fn only_images_that_the_ad_may_mean_are_taken() {
        let scratch = Scratch::new();
        let first = scratch.image(OLD, 1, None, "");
        let second = scratch.image(NEW, 2, None, &first);
        let sandbox = scratch.sandbox();
        let chosen = |ad: String| {
            sandbox.clear(&TREES).unwrap();
            let job = scratch.job(Some(&ad));
            match Ladder::of(&sandbox, &job, None).next(&job, &sandbox, &scratch.slot) {
                Ok(Choice::Thaw(image)) => image.manifest.head.generation,
                _ => 0,
            }
        };
        let ad = |digest: &str| format!("NumJobStarts = 2\nChirpCRIUDigest = \"{digest}\"\n");
        assert_eq!(chosen(ad(&second)), 2);
        // Its upload failed after it was announced; here the first is what has arrived.
        let before = format!("{}ChirpCRIUDigestBefore = \"{first}\"", ad("f00d"));
        assert_eq!(chosen(before), 2, "the second follows the first");
        // The slot died between the upload and the news.
        assert_eq!(chosen(ad(&first)), 2);
        assert_eq!(chosen(ad("f00d")), 0);
        // Started again in place, where the ad is that of the first start.
        let job = scratch.job(Some(&ad("f00d")));
        let notes = Notes {
            digests: vec!["f00d".into(), second],
            ..Notes::default()
        };
        sandbox.clear(&TREES).unwrap();
        let choice = Ladder::of(&sandbox, &job, Some(&notes)).next(&job, &sandbox, &scratch.slot);
        assert!(matches!(choice, Ok(Choice::Thaw(_))));
    }
}
