//! A body that has come whole, for attempts side by side.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;

use super::{Kept, Pieces, Replay, Upload};

/// The body of a call, once all of it has come, and unless it is too large to be kept.
#[derive(Debug, Default)]
pub struct Copied(RefCell<Copy>);

#[derive(Debug, Default)]
enum Copy {
    /// More of it may come.
    #[default]
    Coming,
    /// This is all of it.
    Whole(Pieces),
    /// It is not kept.
    TooLarge,
}

impl Copied {
    /// Of an upload that has not begun; there is something in it when that upload has ended.
    pub fn of(upload: &mut Upload) -> Rc<Self> {
        let copied = Rc::<Self>::default();
        if upload.is_empty() {
            copied.complete(&[]);
        }
        upload.kept.copied = Some(Rc::clone(&copied));
        copied
    }

    /// Whether it has come whole.
    pub fn is_whole(&self) -> bool {
        matches!(*self.0.borrow(), Copy::Whole(_))
    }

    /// Whether it never will.
    pub fn is_too_large(&self) -> bool {
        matches!(*self.0.borrow(), Copy::TooLarge)
    }

    /// The same body, from its beginning; none unless it has come whole.
    pub fn upload(&self) -> Option<Upload> {
        let Copy::Whole(sent) = &*self.0.borrow() else { return None };
        Some(Upload { pump: None, kept: Kept::new(sent.clone(), Replay::Again(0)) })
    }

    pub(super) fn complete(&self, sent: &[Bytes]) {
        *self.0.borrow_mut() = Copy::Whole(sent.into());
    }

    pub(super) fn give_up(&self) {
        *self.0.borrow_mut() = Copy::TooLarge;
    }
}
