//! HTCondor's ClassAd language.
#![forbid(unsafe_code)]
