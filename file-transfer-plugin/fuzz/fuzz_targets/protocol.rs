//! Any bytes as what comes from HTCondor, over the network or from an archive's writer: read or refused, and what was read is
//! written and read as the same. Run it for a minute with `cargo +nightly fuzz run protocol -- -max_total_time=60` in this
//! directory's parent.
#![no_main]

use file_transfer_plugin::pack::Word;
use file_transfer_plugin::plugin;
use file_transfer_plugin::protocol::{Admission, Chunk, Image, Job, Missing, Problem, Ticket};
use file_transfer_plugin::remote::Url;
use libfuzzer_sys::fuzz_target;
use serde_json::{from_slice, to_vec};

macro_rules! same_again {
    ($bytes:ident: $($kind:ty),+) => {
        $(if let Ok(value) = from_slice::<$kind>($bytes) {
            let again: $kind = from_slice(&to_vec(&value).expect("it is JSON")).expect("it was read before");
            assert_eq!(again, value);
        })+
    };
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(requests) = plugin::parse(bytes) {
        for request in requests {
            let _ = request.url.parse::<Url>();
        }
    }
    same_again!(bytes: Admission, Image, Missing, Problem, Ticket);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(url) = text.parse::<Url>() {
        assert_eq!(url.to_string().parse::<Url>().expect("it was read before"), url);
    }
    if let Ok(chunk) = text.parse::<Chunk>() {
        assert_eq!(chunk.to_string(), text);
    }
    if let Ok(word) = text.parse::<Word>() {
        assert_eq!(word.to_string().parse(), Ok(word));
    }
    if let Ok(job) = text.parse::<Job>() {
        assert!(!job.as_str().contains('/'));
    }
});
