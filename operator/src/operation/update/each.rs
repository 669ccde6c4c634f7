//! What is kept of each of several services, in the order of the plan.
//!
//! Invariant: what is kept of one alone stands where it stood before there could be several, so that a record of either
//! version is read by the other.

use serde::{Deserialize, Serialize};

/// One thing for each service, of which there is at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Each<T> {
    #[serde(flatten)]
    first: T,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    others: Vec<T>,
}

// === impl Each ===

impl<T> Each<T> {
    /// Of the first one and of the others.
    pub(super) const fn of(first: T, others: Vec<T>) -> Each<T> {
        Each { first, others }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        1 + self.others.len()
    }

    pub(super) fn first(&self) -> &T {
        &self.first
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl<T: Default> Each<T> {
    /// That of the nth, which is the default where nothing was kept of it yet.
    pub(super) fn at(&mut self, nth: usize) -> &mut T {
        let Some(other) = nth.checked_sub(1) else { return &mut self.first };
        if self.others.len() <= other {
            self.others.resize_with(other + 1, T::default);
        }
        &mut self.others[other]
    }
}

impl<T: Default + Clone> Each<T> {
    /// As [`Each::at`], for reading.
    pub(super) fn get(&self, nth: usize) -> T {
        self.iter().nth(nth).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    struct Kept {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    }

    #[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    struct Record {
        #[serde(flatten)]
        each: Each<Kept>,
        #[serde(default)]
        rounds: u32,
    }

    fn read(value: Value) -> Record {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn of_one_alone_a_record_is_what_it_was_before_there_could_be_several() {
        let old = json!({ "at": 7, "rounds": 2 });
        let mut record = read(old.clone());
        assert_eq!((record.each.count(), record.each.at(0).at), (1, Some(7)));
        assert_eq!(serde_json::to_value(&record).unwrap(), old);
        assert_eq!(read(json!({})), Record::default());
    }

    #[test]
    fn of_several_each_has_its_own() {
        let mut record = read(json!({ "at": 7, "rounds": 2 }));
        record.each.at(2).at = Some(9);
        let stored = serde_json::to_value(&record).unwrap();
        assert_eq!(stored, json!({ "at": 7, "others": [{}, { "at": 9 }], "rounds": 2 }));
        let record = read(stored);
        assert_eq!([0, 1, 2, 3].map(|nth| record.each.get(nth).at), [Some(7), None, Some(9), None]);
    }
}
