//! Names for containers that were given none: two words that people can say, and digits of the id if they are taken.

use crate::view::Views;
use parking_lot::Mutex;
use std::collections::HashSet;
use wharf_supervisor::Id;

const FIRST: [&str; 16] = [
    "amber", "brave", "calm", "clever", "coral", "deep", "eager", "gentle", "jolly", "keen", "lucky",
    "north", "quiet", "rapid", "silver", "sunny",
];
const SECOND: [&str; 16] = [
    "anchor", "barge", "beacon", "buoy", "cutter", "dory", "ferry", "harbor", "ketch", "lagoon", "lantern",
    "pier", "schooner", "skiff", "sloop", "tug",
];

/// Names on their way to a container that nobody sees yet: two that are made at once must not get the same.
#[derive(Debug, Default)]
pub struct Nicknames(Mutex<HashSet<String>>);

/// A name that is made up for nobody else while this lives.
#[derive(Debug)]
pub struct Nickname<'a> {
    given: &'a Nicknames,
    /// The name.
    pub name: String,
}

impl Nicknames {
    /// A name that nobody has.
    pub fn pick(&self, id: Id, views: &Views) -> Nickname<'_> {
        let digits = id.to_string();
        let word = |at: usize| usize::from_str_radix(&digits[at..=at], 16).unwrap_or(0);
        let short = format!("{}-{}", FIRST[word(0)], SECOND[word(1)]);
        let mut given = self.0.lock();
        let taken = given.contains(&short) || views.all().iter().any(|view| view.name == short);
        let name = if taken { format!("{short}-{}", &digits[2..8]) } else { short };
        given.insert(name.clone());
        Nickname { given: self, name }
    }
}

impl Drop for Nickname<'_> {
    fn drop(&mut self) {
        self.given.0.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_on_its_way_is_not_given_again() {
        let (nicknames, views) = (Nicknames::default(), Views::default());
        let id = |end: char| format!("00abcdef{}", end.to_string().repeat(56)).parse::<Id>().unwrap();
        let first = nicknames.pick(id('1'), &views);
        let second = nicknames.pick(id('2'), &views);
        assert_eq!((first.name.as_str(), second.name.as_str()), ("amber-anchor", "amber-anchor-abcdef"));
        drop(first);
        assert_eq!(nicknames.pick(id('3'), &views).name, "amber-anchor");
    }
}
