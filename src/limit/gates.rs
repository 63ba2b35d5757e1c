//! The gates of all services, and the limit on all calls.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::{Counter, Gate, Permit};
use crate::{config::Limits, model::ServiceName};

/// What workers share of limits. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Gates(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Calls in flight through this proxy, where they are limited.
    in_flight: Counter,
    /// How many there may be; 0 for any number.
    most: AtomicU32,
    counted: Mutex<HashMap<Counted, Arc<Gate>>>,
}

/// Calls that are counted together: those of a service, or of a route to it that has limits of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Counted {
    /// Which service.
    pub service: ServiceName,
    /// Name of the route, where that has limits of its own.
    pub route: Option<Arc<str>>,
}

impl Gates {
    /// How many calls may be in flight from now on; 0 for any number.
    pub fn set_max_in_flight(&self, most: u32) {
        self.0.most.store(most, Relaxed);
    }

    /// A place for one more call, where their number is limited.
    ///
    /// # Errors
    /// The limit, which has been reached.
    pub fn enter(&self) -> Result<Option<Permit>, u32> {
        match self.0.most.load(Relaxed) {
            0 => Ok(None),
            most => self.0.in_flight.enter(most).map(Some).ok_or(most),
        }
    }

    /// The gate that keeps `limits` for these calls. Workers ask when they first meet limits, and keep
    /// what they get. Equal limits, loaded again, keep their gate; others begin with the calls that
    /// are in flight.
    pub fn of(&self, calls: Counted, limits: &Arc<Limits>) -> Arc<Gate> {
        // Nothing panics while it is locked.
        let mut counted = self.0.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_used = |gate: &Arc<Gate>| Arc::strong_count(gate) > 1;
        counted.retain(|other, gate| *other == calls || is_used(gate));
        let gate = match counted.get(&calls) {
            Some(gate) if gate.limits() == limits => return Arc::clone(gate),
            Some(gate) => gate.with(Arc::clone(limits)),
            None => Gate::new(calls.route.clone(), Arc::clone(limits)),
        };
        let gate = Arc::new(gate);
        counted.insert(calls, Arc::clone(&gate));
        gate
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        config::RateBy,
        limit::{Asked, Limit, Passed, Refusal},
    };

    fn gate(gates: &Gates, limits: Limits) -> Arc<Gate> {
        gates.of(calls("orders", None), &Arc::new(limits))
    }

    fn calls(service: &str, route: Option<&str>) -> Counted {
        Counted { service: service.parse().unwrap(), route: route.map(Into::into) }
    }

    fn enter(gate: &Arc<Gate>, path: &str, tenant: &str) -> Result<Passed, Refusal> {
        let tenant = (!tenant.is_empty())
            .then(|| (HeaderName::from_static("x-tenant"), tenant.parse().unwrap()));
        let headers = HeaderMap::from_iter(tenant);
        gate.enter(Asked { arrived: Instant::now(), path, headers: &headers })
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_are_counted_across_a_change_of_the_limit() {
        let gates = Gates::default();
        let wide = gate(&gates, Limits { max_in_flight: 3, ..Limits::default() });
        let held: Vec<_> = (0..3).map(|_| enter(&wide, "/", "").unwrap()).collect();
        let narrow = gate(&gates, Limits { max_in_flight: 2, ..Limits::default() });
        let refused = enter(&narrow, "/", "").unwrap_err();
        assert_eq!(refused, Refusal { limit: Limit::InFlight, allowed: 2, wait: None });
        drop(held);
        assert!(enter(&narrow, "/", "").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn equal_limits_loaded_again_keep_what_has_been_used_up() {
        let gates = Gates::default();
        let limits = Limits { rate: 1, burst: 2, ..Limits::default() };
        let before = gate(&gates, limits.clone());
        enter(&before, "/", "").unwrap();
        let after = gate(&gates, limits);
        assert!(enter(&after, "/", "").is_ok());
        assert!(enter(&after, "/", "").is_err(), "two tokens in all");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_for_each_value_of_a_header_or_each_method() {
        let gates = Gates::default();
        let rate = |rate_by| gate(&gates, Limits { rate: 1, rate_by, ..Limits::default() });
        let passes = |gate, path, tenant| enter(gate, path, tenant).is_ok();
        let by_tenant = rate(RateBy::Header(HeaderName::from_static("x-tenant")));
        assert!(passes(&by_tenant, "/a", "one") && passes(&by_tenant, "/a", "two"));
        assert!(passes(&by_tenant, "/a", ""), "those without the header are one kind");
        assert!(!passes(&by_tenant, "/b", "one") && !passes(&by_tenant, "/b", ""));
        let by_method = rate(RateBy::Method);
        assert!(passes(&by_method, "/a", "one") && passes(&by_method, "/b", "one"));
        assert!(!passes(&by_method, "/a", "two"));
        let refused = enter(&by_method, "/a", "").unwrap_err();
        assert_eq!((refused.limit, refused.wait), (Limit::Rate, Some(Duration::from_secs(1))));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(passes(&by_method, "/a", ""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_refused_by_one_limit_takes_nothing_of_another() {
        let gates = Gates::default();
        let limits = Limits { max_in_flight: 1, rate: 1, burst: 2, ..Limits::default() };
        let gate = gate(&gates, limits);
        let held = enter(&gate, "/", "").unwrap();
        for _ in 0..10 {
            assert_eq!(enter(&gate, "/", "").unwrap_err().limit, Limit::InFlight);
        }
        drop(held);
        assert!(enter(&gate, "/", "").is_ok(), "the second token is still there");
        assert_eq!(enter(&gate, "/", "").unwrap_err().limit, Limit::Rate);
        assert_eq!(enter(&gate, "/", "").unwrap_err().limit, Limit::Rate, "and no place is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_with_limits_of_its_own_counts_its_calls_by_themselves() {
        let gates = Gates::default();
        let limits = Arc::new(Limits { max_in_flight: 1, ..Limits::default() });
        let of_service = gates.of(calls("orders", None), &limits);
        let of_route = gates.of(calls("orders", Some("#1")), &limits);
        let _held = enter(&of_service, "/", "").unwrap();
        let _held_too = enter(&of_route, "/", "").unwrap();
        assert!(enter(&of_service, "/", "").is_err() && enter(&of_route, "/", "").is_err());
    }

    #[test]
    fn all_calls_together_are_limited_from_the_moment_that_a_limit_is_set() {
        let gates = Gates::default();
        assert!(gates.enter().unwrap().is_none());
        gates.set_max_in_flight(1);
        let held = gates.enter().unwrap();
        assert_eq!(gates.enter().unwrap_err(), 1);
        drop(held);
        assert!(gates.enter().is_ok());
    }

    #[test]
    fn services_that_no_worker_knows_any_more_are_forgotten() {
        let gates = Gates::default();
        let limits = Arc::new(Limits { rate: 1, ..Limits::default() });
        for number in 0..100 {
            drop(gates.of(calls(&format!("s{number}"), None), &limits));
        }
        assert_eq!(gates.0.counted.lock().unwrap().len(), 1);
    }
}
