//! The checkpoint image and its way to the access point and back.
#![forbid(unsafe_code)]
