//! The head of a call, as it will be sent.

use std::{
    mem,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use http::request;

/// Method, path, authority and headers. The call's own, until more than one attempt may need it at a
/// time: then they share it. Whoever changes a shared one gets a copy to change.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every head is a call's own")]
pub enum Head {
    /// One call has it.
    Own(request::Parts),
    /// So do its attempts beside each other.
    Shared(Rc<request::Parts>),
}

impl Head {
    /// The same head for another attempt, without a copy.
    pub fn share(&mut self) -> Self {
        let parts = match mem::take(self) {
            Self::Own(parts) => Rc::new(parts),
            Self::Shared(parts) => parts,
        };
        *self = Self::Shared(Rc::clone(&parts));
        Self::Shared(parts)
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::Own(http::Request::new(()).into_parts().0)
    }
}

impl Deref for Head {
    type Target = request::Parts;

    fn deref(&self) -> &request::Parts {
        match self {
            Self::Own(parts) => parts,
            Self::Shared(parts) => parts,
        }
    }
}

impl DerefMut for Head {
    fn deref_mut(&mut self) -> &mut request::Parts {
        match self {
            Self::Own(parts) => parts,
            Self::Shared(parts) => Rc::make_mut(parts),
        }
    }
}
