//! What the tests of several crates together stand on.

// A test says what is wrong by ending.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

pub mod e2e;
pub mod sim;
