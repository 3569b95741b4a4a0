//! Sets of completion indexes in the text form of `status.completedIndexes`: `1,3-5,7`.
//! Reads and writes nothing. Invariant: the intervals are in order and neither overlap nor touch, so that a set of a hundred
//! thousand indexes is as small as its text.

use std::fmt;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the text form; the error is upstream's.
    pub fn parse(text: &str) -> Result<Indexes, String> {
        let mut set = Indexes::default();
        let number = |text: &str| {
            let wrong = || format!("cannot convert string to integer for index: {text:?}");
            text.parse::<i32>().ok().filter(|n| *n >= 0).ok_or_else(wrong)
        };
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let mut ends = part.split('-');
            let first = number(ends.next().unwrap_or_default())?;
            let last = ends.next().map_or(Ok(first), number)?;
            if ends.next().is_some() {
                let rule = "an index interval can have at most two parts separated by '-'";
                return Err(format!("the fragment {part:?} violates the requirement that {rule}"));
            }
            let previous = set.last().filter(|previous| *previous >= first).or((last < first).then_some(first));
            if let Some(previous) = previous {
                let current = if last < first { last } else { first };
                return Err(format!("non-increasing order, previous: {previous}, current: {current}"));
            }
            match set.0.last_mut().filter(|(_, end)| *end + 1 == first) {
                Some(touching) => touching.1 = last,
                None => set.0.push((first, last)),
            }
        }
        Ok(set)
    }

    pub fn last(&self) -> Option<i32> {
        self.0.last().map(|(_, last)| *last)
    }

    pub fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    pub fn insert(&mut self, index: i32) {
        if self.contains(index) {
            return;
        }
        let at = self.0.partition_point(|(_, last)| *last < index);
        let follows = at > 0 && self.0[at - 1].1 + 1 == index;
        let leads = self.0.get(at).is_some_and(|(first, _)| *first - 1 == index);
        match (follows, leads) {
            (true, true) => self.0[at - 1].1 = self.0.remove(at).1,
            (true, false) => self.0[at - 1].1 = index,
            (false, true) => self.0[at].0 = index,
            (false, false) => self.0.insert(at, (index, index)),
        }
    }

    /// Those below `end`.
    pub fn below(mut self, end: i32) -> Indexes {
        self.0.retain(|(first, _)| *first < end);
        if let Some((_, last)) = self.0.last_mut() {
            *last = (*last).min(end - 1);
        }
        self
    }

    pub fn len(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are in both.
    pub fn common(&self, other: &Indexes) -> i32 {
        let both = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
        both.filter(|(first, last)| first <= last).map(|(first, last)| last - first + 1).sum()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let parsed = |text: &str| Indexes::parse(text).map_or_else(|why| why, |set| set.to_string());
        for (text, want) in [
            ("1,3-5,6,7", "1,3-7"),
            ("1-", "cannot convert string to integer for index: \"\""),
            ("3,2", "non-increasing order, previous: 3, current: 2"),
            ("4-2", "non-increasing order, previous: 4, current: 2"),
        ] {
            assert_eq!(parsed(text), want, "{text}");
        }
        let mut set = Indexes::default();
        for (index, want) in [(5, "5"), (3, "3,5"), (4, "3-5"), (4, "3-5"), (0, "0,3-5"), (6, "0,3-6"), (2, "0,2-6")] {
            set.insert(index);
            assert_eq!(set.to_string(), want);
        }
        assert_eq!((set.len(), set.last(), set.contains(1), set.contains(2)), (6, Some(6), false, true));
        assert_eq!(set.common(&Indexes::parse("1-3,6-9").unwrap()), 3);
        assert_eq!(set.below(4).to_string(), "0,2,3");
    }
}
