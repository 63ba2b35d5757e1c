//! Sessions that connections to an endpoint go on from: a connection then costs no signature and no check
//! of a chain.
//!
//! Each endpoint has its own, since only it can read the tickets that it gave. After an hour they are
//! forgotten, and the endpoint shows its certificate again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, NamedGroup,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

use crate::model::Address;

/// How long endpoints are believed by what they showed first.
const BELIEVED: Duration = Duration::from_secs(60 * 60);
/// How long sessions of an endpoint are kept that is not connected, once there are many.
const UNUSED: Duration = Duration::from_secs(10 * 60);
/// Endpoints whose sessions are kept.
const MOST_PEERS: usize = 1024;
/// Tickets of one endpoint that are kept at first, and at most. There are more the more connections are
/// made at once: each takes one, since using one twice would tell that both are of the same client.
const TICKETS: (usize, usize) = (8, 256);

/// Sessions of all endpoints that are connected by the same terms.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<Peer, Kept, foldhash::fast::RandomState>>);

/// An endpoint, and whom it was asked for: a session is of both.
type Peer = (Address, ServerName<'static>);

#[derive(Debug)]
struct Kept {
    config: Arc<ClientConfig>,
    since: Instant,
    used: Instant,
}

impl Sessions {
    /// `config` with the sessions of the endpoint at `address` that was asked for `name`.
    pub(super) fn of(
        &self,
        config: &Arc<ClientConfig>,
        address: &Address,
        name: &ServerName<'static>,
        now: Instant,
    ) -> Arc<ClientConfig> {
        let peer = (address.clone(), name.clone());
        let mut all = lock(&self.0);
        if let Some(kept) = all.get_mut(&peer)
            && now.saturating_duration_since(kept.since) < BELIEVED
        {
            kept.used = now;
            return Arc::clone(&kept.config);
        }
        if all.len() >= MOST_PEERS {
            all.retain(|_, kept| now.saturating_duration_since(kept.used) < UNUSED);
            if all.len() >= MOST_PEERS {
                all.clear();
            }
        }
        let mut own = ClientConfig::clone(config);
        own.resumption = Resumption::store(Arc::new(Store::default()));
        let config = Arc::new(own);
        all.insert(peer, Kept { config: Arc::clone(&config), since: now, used: now });
        config
    }
}

/// Sessions of one endpoint.
#[derive(Debug, Default)]
struct Store(Mutex<Stored>);

#[derive(Debug, Default)]
struct Stored {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// Oldest first.
    tls13: VecDeque<Tls13ClientSessionValue>,
    /// How many of them are kept; 0 for as many as at first.
    room: usize,
}

impl ClientSessionStore for Store {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        lock(&self.0).group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        lock(&self.0).group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        lock(&self.0).tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        lock(&self.0).tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        lock(&self.0).tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut stored = lock(&self.0);
        if stored.tls13.len() >= stored.room.max(TICKETS.0) {
            stored.tls13.pop_front();
        }
        stored.tls13.push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut stored = lock(&self.0);
        let taken = stored.tls13.pop_back();
        // Before the first connection there is none, whatever the room.
        if taken.is_none() && stored.group.is_some() {
            stored.room = (stored.room.max(TICKETS.0) * 2).min(TICKETS.1);
        }
        taken
    }
}

/// Whoever panicked in between has left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
