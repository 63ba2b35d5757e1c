//! Which answer on a watch stream is for which of the watches asked for.
//!
//! etcd numbers the watches of a stream from 0 on, in the order in which they were asked for, and
//! answers in that order. Its grpc-proxy numbers them in the same way, but answers for a range that
//! somebody else watches already before it answers for others that were asked for earlier. So it is
//! the number that counts. A watch that is refused gets none.

use std::collections::VecDeque;

/// What was asked for and is not answered yet.
#[derive(Debug)]
pub(super) struct Creating<T> {
    /// Number of the first of `asked`, unless that is refused.
    first: i64,
    /// In the order of the questions; none where the answer came before that of an earlier one.
    asked: VecDeque<Option<T>>,
}

impl<T> Default for Creating<T> {
    fn default() -> Self {
        Self { first: 0, asked: VecDeque::new() }
    }
}

impl<T> Creating<T> {
    /// Notes a question.
    pub(super) fn push(&mut self, asked: T) {
        self.asked.push_back(Some(asked));
    }

    /// What the watch of this number was asked for as; none for a number that nothing was.
    pub(super) fn created(&mut self, number: i64) -> Option<T> {
        let place = usize::try_from(number - self.first).ok()?;
        let answered = self.asked.get_mut(place)?.take();
        while let Some(None) = self.asked.front() {
            self.asked.pop_front();
            self.first += 1;
        }
        answered
    }

    /// What was refused: the first that waits.
    pub(super) fn refused(&mut self) -> Option<T> {
        let place = self.asked.iter().position(Option::is_some)?;
        self.asked.remove(place).flatten()
    }

    /// Whether everything is answered.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(names: &[&'static str]) -> Creating<&'static str> {
        let mut creating = Creating::default();
        names.iter().for_each(|name| creating.push(*name));
        creating
    }

    #[test]
    fn answers_may_come_in_any_order() {
        let mut creating = asked(&["a", "b", "c"]);
        assert_eq!(creating.created(1), Some("b"));
        assert_eq!(creating.created(0), Some("a"));
        creating.push("d");
        assert_eq!(creating.created(3), Some("d"));
        assert!(!creating.is_empty());
        assert_eq!(creating.created(2), Some("c"));
        assert!(creating.is_empty());
    }

    #[test]
    fn what_is_refused_has_no_number() {
        let mut creating = asked(&["a", "b", "c"]);
        assert_eq!(creating.created(0), Some("a"));
        assert_eq!(creating.refused(), Some("b"));
        assert_eq!(creating.created(1), Some("c"));
        assert!(creating.is_empty());
        assert_eq!(creating.refused(), None);
    }

    #[test]
    fn a_number_that_nothing_was_asked_for_as_is_nobodys() {
        let mut creating = asked(&["a"]);
        assert_eq!((creating.created(-1), creating.created(1)), (None, None));
        assert_eq!(creating.created(0), Some("a"));
        assert_eq!(creating.created(0), None);
    }
}
