//! The registry: etcd, and what frameworks write into it.
//!
//! [`etcd`] reaches a member of the cluster; [`formats`] turns keys and values into
//! [`crate::model::Record`]s. Discovery and registration put the two together;
//! [`book`] does so key by key, for commands and the mirror.

pub mod book;
pub mod etcd;
pub use crate::formats;
