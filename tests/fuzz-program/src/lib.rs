//! What must hold of everything else that strangers write: headers, configuration, policy, frames.
//! `tests/fuzz` does the same for the records of registries, and takes a tenth of the time to build.

mod program;
mod text;

pub use program::{admin, frames};
pub use text::{authority, config, etcd_url, policy, selectors, services, timeout};
