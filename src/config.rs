//! Configuration: the file as it is written, and the settings known to be usable.
//!
//! Two types on purpose: [`Settings`] holds no value that could be wrong, so that no other module
//! checks one again. [`load()`] makes them at start and at every reload; [`effective()`] writes them
//! back.

mod check;
mod default_file;
mod document;
mod effective;
mod eject;
mod etcd_url;
mod hash_on;
mod limits;
mod listener_limits;
mod load;
mod nearest;
mod policy_keys;
mod problem;
mod raw;
mod read;
mod register;
mod render;
mod retry;
mod settings;
mod table;
mod text;
mod tls;
mod token;
mod value;

pub use crate::{formats::FORMATS, watch_file::Said};
pub use default_file::default_file;
pub use document::{Document, DocumentError, DocumentKey, DocumentKeyError};
pub use effective::{effective, effective_json};
pub use eject::{Eject, EndpointHealth, HealthKind};
pub use etcd_url::{EtcdUrl, EtcdUrlError};
pub use hash_on::{HashOn, HashOnError};
pub use limits::{Limits, RateBy};
pub use listener_limits::ListenerLimits;
pub use load::{Loaded, Overrides, load, load_again};
pub use nearest::nearest;
pub use policy_keys::PolicyKeys;
pub use problem::{ConfigErrors, OpenAdmin, Problem};
pub use raw::definition;
pub use register::{Details, HealthCheck, Probe, Register};
pub use retry::{Retry, RetryOn};
pub use settings::{
    AccessLog, Action, AdminSettings, Balance, Branch, Connection, DirectResponse, EmptyPolicy,
    EtcdSource, Fault, FileSource, HeaderChanges, Listener, LivePolicy, Mode, Node, PathMatch,
    Percent, Policy, Ready, Route, RouteMatch, Settings, SocketMode, SocketPath, SocketPathError,
    Source, SourceKind, Split, ValueMatch, ZonePreference,
};
pub use table::{KeyDef, Shape, TableDef};
pub use tls::{EndpointTls, ListenerTls, TlsMode, TlsVersion};
pub use token::{TokenError, read_token};
