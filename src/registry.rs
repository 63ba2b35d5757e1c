//! The registry: etcd, and what frameworks write into it.
//!
//! [`formats`] turns keys and values into [`crate::model::Record`]s without any I/O; [`etcd`] reaches
//! a member of the cluster. Discovery puts the two together.

pub mod etcd;
pub mod formats;
