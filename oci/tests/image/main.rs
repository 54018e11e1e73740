//! Images against real tools, real overlays and hostile layers.
//!
//! Tests that need root or a tool that is not installed say so and pass, unless `WHARF_TEST_STRICT=1`.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod corpus;
mod hostile;
mod load;
mod tape;
mod unpack;
mod world;
