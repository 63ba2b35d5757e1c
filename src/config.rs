//! Configuration: the file as it is written, and the settings known to be usable.
//!
//! Two types on purpose: [`Settings`] holds no value that could be wrong, so that no other module
//! checks one again.

mod settings;

pub use settings::{
    AccessLog, Balance, Connection, EmptyPolicy, EtcdSource, FileSource, Listener, Mode, Node,
    Policy, Ready, Route, Settings, SocketPath, Source, SourceKind,
};
