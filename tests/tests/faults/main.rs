//! Faults on the real kernel: processes are killed, system calls fail, the power is cut, the disk is full.
//!
//! Each part does as many as its variable says, all of them by one seed after the other. A failure names the seed; with
//! the variable at 1 and `WHARF_SEED` at that seed it is repeated, as far as the kernel's timing can be.
//!
//! | variable | what is counted |
//! |---|---|
//! | `WHARF_KILLS` | processes that were killed |
//! | `WHARF_SYSCALL_FAULTS` | system calls that failed |
//! | `WHARF_POWER_CUTS` | power cuts |

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod act;
mod full;
mod kills;
mod power;
mod syscalls;
mod world;
