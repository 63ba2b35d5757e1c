//! The nouns of the program, without I/O and without locks.
//!
//! Every other module imports from here; this one imports from none.

mod address;
mod authority;
mod endpoint;
mod reason;
mod selector;
mod service;
mod service_name;
mod snapshot;

pub use address::{Address, AddressError};
pub use authority::without_port;
pub use endpoint::{Endpoint, InFlight, Load, Record, State};
pub use reason::Reason;
pub use selector::{Selector, SelectorError, Selectors};
pub use service::Service;
pub use service_name::{ServiceName, ServiceNameError};
pub use snapshot::{Rejected, Snapshot};
