//! A value that is replaced whole while many threads read it.
//!
//! Whoever reads it with each call asks first whether it is still the one that was seen before: that is
//! one plain load, where to borrow the value itself costs two atomic exchanges.

use std::{
    cell::{Cell, Ref, RefCell},
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use arc_swap::{ArcSwap, Guard};

/// The newest of a row of values.
pub struct Newest<T> {
    value: ArcSwap<T>,
    version: AtomicU64,
}

/// What one thread has seen of a [`Newest`].
#[derive(Debug)]
pub struct Seen<T> {
    version: Cell<u64>,
    value: RefCell<Arc<T>>,
}

impl<T> Newest<T> {
    /// The first.
    pub fn new(value: T) -> Self {
        Self { value: ArcSwap::from_pointee(value), version: AtomicU64::new(0) }
    }

    /// The newest.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.value.load()
    }

    /// Puts another in its place.
    pub fn replace(&self, value: Arc<T>) {
        self.value.store(value);
        self.version.fetch_add(1, Release);
    }

    /// Differs from what it was as soon as the value does. Of a value that is read after it, it says no
    /// more than that it is not older.
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }
}

impl<T> Seen<T> {
    /// The newest until now.
    pub fn new(of: &Newest<T>) -> Self {
        // In this order: a value that is replaced in between is read once more.
        let version = Cell::new(of.version());
        Self { version, value: RefCell::new(Arc::clone(&of.load())) }
    }

    /// The newest of the same row.
    pub fn newest(&self, of: &Newest<T>) -> Ref<'_, Arc<T>> {
        let version = of.version();
        if self.version.replace(version) != version {
            *self.value.borrow_mut() = Arc::clone(&of.load());
        }
        self.value.borrow()
    }
}

impl<T: fmt::Debug> fmt::Debug for Newest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Newest").field(&*self.load()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replaced_is_seen_at_the_next_look() {
        let newest = Newest::new(1);
        let (early, seen) = (Seen::new(&newest), Seen::new(&newest));
        assert_eq!(**seen.newest(&newest), 1);
        newest.replace(Arc::new(2));
        assert_eq!(**seen.newest(&newest), 2);
        newest.replace(Arc::new(3));
        newest.replace(Arc::new(4));
        assert_eq!((**seen.newest(&newest), **early.newest(&newest)), (4, 4));
    }

    #[test]
    fn what_is_still_the_newest_is_the_same() {
        let newest = Newest::new(1);
        let seen = Seen::new(&newest);
        let first = Arc::clone(&seen.newest(&newest));
        assert!(Arc::ptr_eq(&first, &seen.newest(&newest)));
    }
}
