//! A simulated host: the real supervisor, driven as the daemon drives it, in a world that obeys, stalls, fails,
//! says things twice and late, loses what it was asked, and kills the daemon at every step. Time jumps to the
//! next event; the whole life of a host takes a millisecond.
//!
//! ```text
//!   Chance ── a seed decides everything ──┐
//!   Host: driver, store, agenda ──────────┼── after every step: invariants, each a function of that name
//!   Runtime: what is really there ────────┘
//! ```
//!
//! A seed is a storm, in which everything goes wrong, and then a calm, in which everything works and the daemon
//! lives: by the end of the calm, every wish that was accepted must have come true.

mod care;
mod chance;
mod host;
mod invariants;
mod ledger;
pub mod reference;
mod runtime;
mod wishes;

pub use chance::Chance;
pub use host::simulate;
pub use wishes::{probes, restart};

/// What was found, and how to find it again.
#[derive(Debug)]
pub struct Violation {
    /// Repeats it.
    pub seed: u64,
    /// Which invariant does not hold, and what was seen instead.
    pub what: String,
    /// What happened before, the last lines of it.
    pub story: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        write!(f, "again: WHARF_SIM_SEED={} cargo test -p wharf-tests --test simulation", self.seed)
    }
}
