//! Whether an application holds up more than it should.

use std::{cell::Cell, rc::Rc};

/// On while so much waits for the application of a connection that further answers are to wait with their
/// endpoints. The listener sets it; the calls of the connection go by it.
#[derive(Clone, Debug, Default)]
pub struct Pressure(Rc<Cell<bool>>);

impl Pressure {
    /// Whether answers are to wait with their endpoints.
    pub fn is_on(&self) -> bool {
        self.0.get()
    }

    /// Says so, or that they are not.
    pub fn set(&self, on: bool) {
        self.0.set(on);
    }
}
