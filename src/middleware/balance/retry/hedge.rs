//! What is needed to send a call a second time while the first one is still under way.

use std::{rc::Rc, time::Duration};

use crate::{
    call::{Call, CallMeta, Copied, Head, Terms},
    config::Retry,
};

/// A copy of a call whose method may be done twice.
pub(super) struct Hedge {
    /// Time without an answer after which there is another attempt.
    pub(super) after: Duration,
    head: Head,
    body: Rc<Copied>,
}

impl Hedge {
    /// Of a call that has not been sent; none where its method is not hedged.
    pub(super) fn of(retry: &Retry, call: &mut Call) -> Option<Self> {
        let after = retry.hedge_after(call.head.uri.path())?;
        Some(Self { after, head: call.head.share(), body: Copied::of(&mut call.upload) })
    }

    /// Whether the body has come whole.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    /// Whether the body will never be there whole.
    pub(super) fn is_too_large(&self) -> bool {
        self.body.is_too_large()
    }

    /// The call once more; none while its body has not come whole, or where that is too large.
    pub(super) fn call(&mut self, meta: &Rc<CallMeta>) -> Option<Box<Call>> {
        let (head, upload) = (self.head.share(), self.body.upload()?);
        Some(Box::new(Call { head, upload, meta: Rc::clone(meta), terms: Terms::default() }))
    }
}
