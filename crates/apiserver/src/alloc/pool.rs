//! A range of numbers of which each is given out once.
//!
//! Invariant: a number is in `used` from the moment it is given out until it is given back.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::Rng;

pub struct Pool {
    range: RangeInclusive<u64>,
    /// So many of the first numbers are given out by chance only when the others are used up.
    reserved: u64,
    used: Mutex<BTreeSet<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    New,
    Already,
    Outside,
}

impl Pool {
    pub fn new(range: RangeInclusive<u64>, reserved: u64) -> Pool {
        let size = range.end().saturating_sub(*range.start()) + 1;
        Pool { reserved: if size > reserved { reserved } else { 0 }, range, used: Mutex::default() }
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self, number: u64) -> Taken {
        if !self.range.contains(&number) {
            return Taken::Outside;
        }
        if self.used().insert(number) { Taken::New } else { Taken::Already }
    }

    /// Any free number; `None` when all are used.
    pub fn take_any(&self) -> Option<u64> {
        let mut used = self.used();
        let (start, end) = (*self.range.start(), *self.range.end());
        let upper = start + self.reserved;
        let from = if upper <= end { rand::rng().random_range(upper..=end) } else { start };
        let found =
            free(&used, from..=end).or_else(|| free(&used, upper..=from)).or_else(|| free(&used, start..=upper))?;
        used.insert(found);
        Some(found)
    }

    pub fn give_back(&self, number: u64) {
        self.used().remove(&number);
    }
}

/// The first number of the range that is not used. Walks the used ones only.
fn free(used: &BTreeSet<u64>, range: RangeInclusive<u64>) -> Option<u64> {
    let mut candidate = *range.start();
    if candidate > *range.end() {
        return None;
    }
    for taken in used.range(range.clone()) {
        if *taken > candidate {
            break;
        }
        candidate += 1;
    }
    (candidate <= *range.end()).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_given_out_once() {
        let pool = Pool::new(10..=59, 16);
        let mut all: Vec<u64> = (0..50).map(|_| pool.take_any().expect("free")).collect();
        assert!(all[..34].iter().all(|n| *n >= 26), "the reserved ones come last: {all:?}");
        assert_eq!(pool.take_any(), None);
        all.sort_unstable();
        assert_eq!(all, (10..=59).collect::<Vec<_>>());
        pool.give_back(33);
        assert_eq!(pool.take_any(), Some(33));
        assert_eq!(pool.take(33), Taken::Already);
        assert_eq!(pool.take(60), Taken::Outside);
    }
}
