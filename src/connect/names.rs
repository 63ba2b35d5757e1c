//! Addresses of host names, kept for as long as DNS allows.
//!
//! [`super::dial`] asks here when an endpoint is registered by name. An answer is used until its TTL
//! (at least 1 s) is over; then one call asks anew while the others go on with what is known, and what
//! is known also outlives a DNS that does not answer. The system's `resolv.conf` and `hosts` decide
//! whom to ask; when they change, every answer is over. Each worker has its own, so that no call waits
//! for a lock of another thread.

mod system;

use std::{
    cell::RefCell, collections::HashMap, io, net::IpAddr, rc::Rc, sync::Arc, time::Duration,
};

use hickory_resolver::TokioResolver;
use tokio::time::Instant;

use system::System;

/// Least time that an answer is used, whatever its TTL, and the wait after a failure.
const LEAST: Duration = Duration::from_secs(1);
/// Time that an answer is used that came without a TTL.
const WITHOUT_TTL: Duration = Duration::from_secs(30);
/// Names remembered at most; above it those that are over go.
const MAX_NAMES: usize = 10_000;

thread_local! {
    static NAMES: Rc<Names> = Rc::new(Names::new(System::of_host()));
}

/// The addresses of `host`, at least one, starting with any of them.
///
/// # Errors
/// What DNS says, for a name that was never found.
pub(super) async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    let names = NAMES.with(Rc::clone);
    let found = names.find(host).await?;
    // Calls spread over the addresses of a name.
    let first = fastrand::usize(..found.len().max(1));
    Ok(found[first..].iter().chain(&found[..first]).copied().collect())
}

struct Names {
    system: RefCell<System>,
    /// None where the system has never said whom to ask: then its own `getaddrinfo` is asked.
    resolver: RefCell<Rc<Option<TokioResolver>>>,
    known: RefCell<HashMap<Box<str>, Known>>,
}

#[derive(Clone)]
struct Known {
    addresses: Arc<[IpAddr]>,
    until: Instant,
}

impl Names {
    fn new(system: System) -> Self {
        let (resolver, known) = (RefCell::default(), RefCell::default());
        Self { system: RefCell::new(system), resolver, known }
    }

    /// Has the system's word, if it says something new.
    fn look(&self, now: Instant) {
        let mut system = self.system.borrow_mut();
        if !system.has_changed(now) {
            return;
        }
        match system.resolver() {
            Ok(resolver) => *self.resolver.borrow_mut() = Rc::new(Some(resolver)),
            Err(error) => tracing::warn!(%error, "DNS: going on without what resolv.conf says"),
        }
        for known in self.known.borrow_mut().values_mut() {
            known.until = now;
        }
    }

    async fn find(&self, host: &str) -> io::Result<Arc<[IpAddr]>> {
        let now = Instant::now();
        self.look(now);
        let stale = match self.known.borrow_mut().get_mut(host) {
            Some(known) if now < known.until => return Ok(Arc::clone(&known.addresses)),
            Some(known) => {
                // Whoever comes while this call asks need not ask, too.
                known.until = now + LEAST;
                Some(Arc::clone(&known.addresses))
            }
            None => None,
        };
        let resolver = Rc::clone(&self.resolver.borrow());
        match ask(resolver.as_ref().as_ref(), host).await {
            Ok(mut known) => {
                if !Rc::ptr_eq(&resolver, &self.resolver.borrow()) {
                    // Somebody else is to be asked since.
                    known.until = now;
                }
                let addresses = Arc::clone(&known.addresses);
                self.remember(host, known);
                Ok(addresses)
            }
            Err(error) => match stale {
                Some(addresses) => {
                    tracing::warn!(host, %error, "DNS: going on with the last answer");
                    Ok(addresses)
                }
                None => Err(error),
            },
        }
    }

    fn remember(&self, host: &str, known: Known) {
        let mut all = self.known.borrow_mut();
        if all.len() >= MAX_NAMES {
            let now = Instant::now();
            all.retain(|_, known| now < known.until);
        }
        if all.len() < MAX_NAMES {
            all.insert(host.into(), known);
        }
    }
}

async fn ask(resolver: Option<&TokioResolver>, host: &str) -> io::Result<Known> {
    let now = Instant::now();
    let (addresses, ttl): (Arc<[IpAddr]>, _) = match resolver {
        Some(resolver) => {
            let answer = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
            let left = answer.valid_until().saturating_duration_since(now.into_std());
            (answer.iter().collect(), left)
        }
        None => {
            let found = tokio::net::lookup_host((host, 0)).await?;
            (found.map(|address| address.ip()).collect(), WITHOUT_TTL)
        }
    };
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host name has no address"));
    }
    Ok(Known { addresses, until: now + ttl.max(LEAST) })
}

#[cfg(test)]
mod tests;
