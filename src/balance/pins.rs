//! Endpoints by id and by address, for calls that name one.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;

use crate::{
    model::{Endpoint, Snapshot},
    route::without_port,
};

/// An index over one snapshot: a pin reaches registered endpoints only, whatever their state.
#[derive(Debug)]
pub struct Pins(HashMap<String, SmallVec<[Arc<Endpoint>; 1]>>);

impl Pins {
    /// Indexes every endpoint under its id and its address.
    pub fn new(snapshot: &Snapshot) -> Self {
        let mut index = HashMap::<String, SmallVec<[Arc<Endpoint>; 1]>>::new();
        for endpoint in &snapshot.endpoints {
            let address = endpoint.record.address.as_str();
            index.entry(address.to_owned()).or_default().push(Arc::clone(endpoint));
            if endpoint.record.id != address {
                index.entry(endpoint.record.id.clone()).or_default().push(Arc::clone(endpoint));
            }
        }
        Self(index)
    }

    /// The endpoints that `pin` names: usually one; several where an id is used twice. Clients add a
    /// port to what they take for a host name, so `node-1:443` is also `node-1`.
    pub fn find_pin(&self, pin: &str) -> &[Arc<Endpoint>] {
        let named = self.0.get(pin).or_else(|| self.0.get(without_port(pin)));
        named.map_or(&[], |found| found)
    }
}
