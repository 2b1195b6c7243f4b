//! Numbers for Prometheus: sums, never whose.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::index::Sums;

/// The type of what [`encode`](Metrics::encode) makes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Seconds that a request may take, as far as it is worth telling apart.
const SECONDS: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// A request by its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    status: u16,
}

/// The counters.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) commits: Counter,
    pub(super) superseded: Counter,
    gauges: Gauges,
}

/// What is looked up when it is asked for.
struct Gauges(Vec<(&'static str, Gauge<u64, AtomicU64>)>);

/// The names of the gauges, and what they say.
const GAUGES: [(&str, &str); 11] = [
    ("owners", "Owners with anything in the store"),
    ("jobs", "Jobs with images"),
    ("images", "Committed images"),
    ("chunks", "Chunks"),
    (
        "chunks_unnamed",
        "Chunks that no image names, yet or any longer",
    ),
    ("kept_bytes", "Bytes as kept"),
    ("image_bytes", "Bytes of the images, each by itself"),
    ("raw_bytes", "Bytes of the images before compression"),
    ("free_bytes", "Bytes free on the disk"),
    ("uploads", "Uploads that have their turn"),
    ("uploads_waiting", "Uploads that wait for their turn"),
];

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("criu_store");
        let gauges = GAUGES.map(|(name, help)| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            (name, gauge)
        });
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let received = counter("received_bytes", "Bytes of chunks that came");
        let sent = counter("sent_bytes", "Bytes of chunks that went");
        let commits = counter("commits", "Images that were committed");
        let superseded = counter("superseded", "Images that gave way to newer ones");
        let requests = Family::default();
        registry.register("requests", "Requests", Family::clone(&requests));
        let seconds = Histogram::new(SECONDS);
        registry.register("request_seconds", "How long they took", seconds.clone());
        Self {
            registry,
            requests,
            seconds,
            received,
            sent,
            commits,
            superseded,
            gauges: Gauges(gauges.into()),
        }
    }

    /// A request was answered.
    pub(super) fn request(&self, method: &str, status: u16, took: Duration) {
        let method = method.to_owned();
        self.requests
            .get_or_create(&Request { method, status })
            .inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// All of it as text.
    pub(super) fn encode(
        &self,
        sums: &Sums,
        free: Option<u64>,
        (uploads, waiting): (usize, usize),
    ) -> String {
        for (name, gauge) in &self.gauges.0 {
            gauge.set(match *name {
                "owners" => sums.owners,
                "jobs" => sums.jobs,
                "images" => sums.images,
                "chunks" => sums.chunks,
                "chunks_unnamed" => sums.pending,
                "kept_bytes" => sums.bytes,
                "image_bytes" => sums.image_bytes,
                "raw_bytes" => sums.raw_bytes,
                "free_bytes" => free.unwrap_or(0),
                "uploads" => uploads as u64,
                _ => waiting as u64,
            });
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("a string takes all text");
        text
    }
}
