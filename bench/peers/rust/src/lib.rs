// SPDX-License-Identifier: MIT
//! What the two Rust peers share: the messages, the rules on single values, and the program around
//! them. bench/README.md says what a peer is.

pub mod peer;
pub mod proto;
pub mod values;
