//! The nouns of the program, without I/O and without locks.
//!
//! Every other module imports from here; this one imports from none.

mod address;
mod authority;
mod certificate_name;
mod endpoint;
mod grpc_status;
mod history;
mod last_seconds;
mod latency;
mod newest;
mod reason;
mod selector;
mod service;
mod service_name;
mod snapshot;
mod stable_hash;
mod wellness;

pub use address::{Address, AddressError};
pub use authority::without_port;
pub use certificate_name::{CertificateName, CertificateNameError};
pub use endpoint::{Endpoint, InFlight, Load, Record, State, Tally};
pub use grpc_status::GrpcStatus;
pub use history::{History, Row, Rows, Served, Told};
pub use last_seconds::LastSeconds;
pub use latency::Latency;
pub use newest::{Newest, Seen};
pub use reason::{Reason, Statuses};
pub use selector::{Selector, SelectorError, Selectors};
pub use service::Service;
pub use service_name::{ServiceName, ServiceNameError};
pub use snapshot::{Rejected, Snapshot};
pub use stable_hash::{mix, stable_hash};
pub use wellness::{EjectReason, Ejection, Sick, Trial};
