//! The registry: etcd, and what frameworks write into it.
