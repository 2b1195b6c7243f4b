//! Real pools of HTCondor and CRIU on one machine, for the tests and the demo.
#![forbid(unsafe_code)]
