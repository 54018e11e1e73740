//! The supervisor against a simulated host, seed after seed.
//!
//! `WHARF_SIM_SEEDS=1000000` for a longer run, `WHARF_SIM_SEED=42` to repeat one.

#![allow(clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};
use wharf_tests::sim::{Violation, simulate};

#[test]
fn every_wish_comes_true_whatever_the_host_does() {
    if let Some(seed) = number("WHARF_SIM_SEED") {
        return report(simulate(seed, true));
    }
    let seeds = number("WHARF_SIM_SEEDS").unwrap_or(10_000);
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if simulate(seed, false).is_err() {
                // Once more, and this time tell the story.
                report(simulate(seed, true));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        (0..threads).for_each(|_| {
            scope.spawn(work);
        });
    });
}

fn report(outcome: Result<(), Violation>) {
    if let Err(violation) = outcome {
        panic!("\n{violation}");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}
