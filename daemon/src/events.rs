//! The last events, for those who come late or were cut off: they ask with the last sequence number they know.

use crate::clock;
use crate::view::{Notice, Views};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use wharf_bus::types::EventRecord;

/// Kept in memory: some hours of a busy host, about 1 MiB.
const KEPT: usize = 4096;

/// The ring of events.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<Ring>,
    views: Arc<Views>,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    events: VecDeque<Arc<EventRecord>>,
}

impl Events {
    /// Empty; what is added is announced to the subscribers of `views`.
    pub fn new(views: Arc<Views>) -> Self {
        Self { ring: Mutex::default(), views }
    }

    /// Something happened.
    pub fn add(&self, kind: &str, container: &str, name: &str, details: &[(&str, String)]) {
        let details: HashMap<String, String> =
            details.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let mut ring = self.ring.lock();
        ring.last += 1;
        let event = Arc::new(EventRecord {
            sequence: ring.last,
            time: clock::wall_micros(),
            kind: kind.to_owned(),
            container: container.to_owned(),
            name: name.to_owned(),
            details,
        });
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        // Still under the lock, so that subscribers see the numbers in order.
        self.views.announce(Notice::Event(event));
    }

    /// The number of the last event; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.ring.lock().last
    }

    /// Those after this number, oldest first.
    pub fn since(&self, sequence: u64) -> Vec<EventRecord> {
        let ring = self.ring.lock();
        ring.events
            .iter()
            .filter(|event| event.sequence > sequence)
            .map(|event| EventRecord::clone(event))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gap_and_the_oldest_go_first() {
        let events = Events::new(Arc::default());
        for _ in 0..KEPT + 10 {
            events.add("started", "id", "name", &[]);
        }
        let kept: Vec<u64> = events.since(0).iter().map(|event| event.sequence).collect();
        assert_eq!(kept, (11..=(KEPT as u64 + 10)).collect::<Vec<_>>());
        assert_eq!(events.since(KEPT as u64 + 9).len(), 1);
    }
}
