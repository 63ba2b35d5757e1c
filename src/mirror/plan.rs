//! What to do about one service: a pure function of both sides.

use std::{collections::BTreeMap, sync::Arc};

use crate::formats::{EncodeError, Layout};
use crate::model::{Address, Record, ServiceName};
use crate::registry::{
    book::Entry,
    etcd::{LeaseId, is_mirrored},
};

/// One endpoint as it is written on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Service on the other side.
    pub service: ServiceName,
    /// Where it listens.
    pub address: Address,
    /// Key that it is copied from.
    pub from: Arc<str>,
    /// Key that it is copied to.
    pub key: String,
    /// Value, as the framework there would write it.
    pub value: String,
    /// What of the record the other format cannot say, such as `version v1`.
    pub lost: Vec<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a copy; `new` when its key is not there yet.
    Put {
        /// What.
        copy: Copy,
        /// Whether the key must not be there; else it must be ours.
        new: bool,
    },
    /// Delete a copy of ours.
    Delete {
        /// Service on the other side.
        service: ServiceName,
        /// Which.
        key: Arc<str>,
    },
}

/// A record that has no copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Service on the other side.
    pub service: ServiceName,
    /// Key of the record.
    pub key: Arc<str>,
    /// Where it listens, if that can be read.
    pub address: Option<Address>,
    /// Why.
    pub why: Why,
}

/// Why a record has no copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It is itself a copy that a mirror keeps.
    #[error("it is a copy itself")]
    IsCopy,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The other format cannot say it.
    #[error(transparent)]
    Cannot(#[from] EncodeError),
    /// It would be read there as something else.
    #[error("it would be read differently there")]
    Misread,
    /// Somebody else has registered the address there.
    #[error("it is registered there already, at {0}")]
    Registered(Arc<str>),
    /// Another mirror keeps a copy of it.
    #[error("another mirror keeps a copy, at {0}")]
    Mirrored(Arc<str>),
    /// The key that it would be written at is there, and not ours.
    #[error("its key there is taken: {0}")]
    Taken(String),
}

/// What to do about one service, and what to leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order: puts go before deletes, so that an address is never missing in between.
    pub steps: Vec<Step>,
    /// Copies that are there as they should be.
    pub kept: Vec<Copy>,
    /// Records without a copy.
    pub left_out: Vec<LeftOut>,
}

/// Decides what to do so that `there`, the keys of `service` on the other side, shows what `here`
/// holds. Only keys under the lease `own` are touched; without one, nothing that is there.
pub fn plan(
    service: &ServiceName,
    here: &[Arc<Entry>],
    there: &[Arc<Entry>],
    to: &Layout,
    own: Option<LeaseId>,
) -> Plan {
    let is_own = |entry: &&Arc<Entry>| LeaseId::of(entry.kv.lease).is_some_and(|l| Some(l) == own);
    let mut plan = Plan::default();
    let mut wanted: BTreeMap<String, Copy> = BTreeMap::new();
    for (entry, record) in originals(service, here, &mut plan.left_out) {
        let holders = || there.iter().filter(|e| e.records().iter().any(|r| same(r, record)));
        let mut others = holders().filter(|entry| !is_own(entry));
        let why = match copy(service, entry, record, to) {
            Err(why) => why,
            Ok(copy) => {
                if let Some(entry) = others.clone().find(|entry| !is_mirrored(entry.kv.lease)) {
                    Why::Registered(Arc::clone(&entry.key))
                } else if let Some(entry) = others.next().filter(|_| !holders().any(|e| is_own(&e)))
                {
                    Why::Mirrored(Arc::clone(&entry.key))
                } else if wanted.contains_key(&copy.key) || taken(&copy.key, there, is_own) {
                    Why::Taken(copy.key)
                } else {
                    wanted.insert(copy.key.clone(), copy);
                    continue;
                }
            }
        };
        let (address, key) = (Some(record.address.clone()), Arc::clone(&entry.key));
        plan.left_out.push(LeftOut { service: service.clone(), key, address, why });
    }
    let mut deletes = Vec::new();
    for entry in there.iter().filter(is_own) {
        match wanted.remove(&*entry.key) {
            Some(copy) if copy.value.as_bytes() == entry.kv.value => plan.kept.push(copy),
            Some(copy) => plan.steps.push(Step::Put { copy, new: false }),
            None => {
                deletes.push(Step::Delete { service: service.clone(), key: Arc::clone(&entry.key) })
            }
        }
    }
    plan.steps.extend(wanted.into_values().map(|copy| Step::Put { copy, new: true }));
    plan.steps.extend(deletes);
    plan
}

/// The records to copy, one an address: of several the one written last.
fn originals<'a>(
    service: &ServiceName,
    here: &'a [Arc<Entry>],
    left_out: &mut Vec<LeftOut>,
) -> Vec<(&'a Arc<Entry>, &'a Record)> {
    let mut newest: BTreeMap<&str, (&Arc<Entry>, &Record)> = BTreeMap::new();
    for entry in here {
        let mut leave = |address, why| {
            let (service, key) = (service.clone(), Arc::clone(&entry.key));
            left_out.push(LeftOut { service, key, address, why });
        };
        if is_mirrored(entry.kv.lease) {
            leave(entry.records().first().map(|r| r.address.clone()), Why::IsCopy);
            continue;
        }
        if let Some(reason) = entry.rejected() {
            leave(None, Why::Unreadable(reason.to_string()));
        }
        for record in entry.records() {
            let place = newest.entry(record.address.as_str()).or_insert((entry, record));
            if place.0.kv.modified < entry.kv.modified {
                *place = (entry, record);
            }
        }
    }
    newest.into_values().collect()
}

fn copy(service: &ServiceName, entry: &Entry, record: &Record, to: &Layout) -> Result<Copy, Why> {
    let address = &record.address;
    let number = number(service, address);
    let by_address = Record { id: address.to_string(), ..record.clone() };
    // The id of a go-zero record is a lease, which changes whenever it is lost. And an id that cannot
    // be written may be made of characters that another format has a use for.
    let written = match record.format {
        "go-zero" => to.encode(service, &by_address, number),
        _ => {
            let written = to.encode(service, record, number);
            written.or_else(|error| to.encode(service, &by_address, number).map_err(|_| error))
        }
    }?;
    let read = to.read_for(service, written.key.as_bytes(), written.value.as_bytes());
    let read = read.and_then(Result::ok).map(|reading| reading.records).unwrap_or_default();
    let back = read.iter().find(|back| same(back, record)).ok_or(Why::Misread)?;
    if (back.state(), back.tls) != (record.state(), record.tls) {
        return Err(Why::Misread);
    }
    Ok(Copy {
        service: service.clone(),
        address: address.clone(),
        from: Arc::clone(&entry.key),
        key: written.key,
        value: written.value,
        lost: record.lost_in(back),
    })
}

fn same(a: &Record, b: &Record) -> bool {
    a.address == b.address
}

fn taken(key: &str, there: &[Arc<Entry>], is_own: impl Fn(&&Arc<Entry>) -> bool) -> bool {
    there.iter().any(|entry| *entry.key == *key && !is_own(&entry))
}

/// What formats that name a key after the lease are given instead: all copies are under one lease, yet
/// each needs a key of its own, which another mirror would choose, too. FNV-1a, without its sign.
fn number(service: &ServiceName, address: &Address) -> i64 {
    let text = service.as_str().bytes().chain(*b"/").chain(address.as_str().bytes());
    let hash = text.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::try_from(hash >> 1).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests;
