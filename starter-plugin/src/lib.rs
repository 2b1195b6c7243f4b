//! One job on one slot: started, frozen and thawed with nothing but its own user.
#![deny(unsafe_code)]
