//! Ranges of user and group ids, one for each container: which is free. The store keeps them; a range is given
//! again only after its container has been removed with all its files.

use crate::config::Ids;
use std::collections::BTreeSet;

/// How many ids a container has: 16 bits' worth, what every image expects.
pub const RANGE_SIZE: u32 = 65_536;

/// The first id of the lowest range that is not in `taken` (first ids as well), if there is one.
pub fn free_range(config: &Ids, taken: &BTreeSet<u32>) -> Option<u32> {
    (0..config.ranges).map(|number| config.start + number * RANGE_SIZE).find(|first| !taken.contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_and_the_end_is_the_end() {
        let config = Ids { start: 1 << 20, ranges: 2 };
        let second = (1 << 20) + RANGE_SIZE;
        assert_eq!(free_range(&config, &BTreeSet::new()), Some(1 << 20));
        assert_eq!(free_range(&config, &BTreeSet::from([1 << 20])), Some(second));
        assert_eq!(free_range(&config, &BTreeSet::from([second])), Some(1 << 20));
        assert_eq!(free_range(&config, &BTreeSet::from([1 << 20, second])), None);
    }
}
