//! Real containers on this machine's kernel, driven as a user would drive them.
//!
//! Every test is independent and has its own containers; most share one daemon (see `wharf_tests::e2e`).

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod bus;
mod crash;
mod damage;
mod images;
mod input;
mod install;
mod isolation;
mod lifecycle;
mod limits;
mod loading;
mod logs;
mod options;
mod requirements;
mod streams;
mod supervision;
mod upgrade;
