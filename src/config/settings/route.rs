//! Routes: for which calls one is, and what becomes of them.

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderName;

use crate::{
    config::{HashOn, PolicyKeys},
    model::{GrpcStatus, Selectors, ServiceName, Statuses},
};

/// One rule. It is worked out for the path of a call by [`crate::route`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What reports call it: its place in the file, such as `#2`, or its key in etcd.
    pub name: Arc<str>,
    /// Which calls take it.
    pub matches: RouteMatch,
    /// What becomes of them.
    pub action: Action,
    /// What differs from the policy of the service.
    pub policy: PolicyKeys,
    /// What is changed of the head of a call.
    pub request_headers: HeaderChanges,
    /// Trouble made on purpose.
    pub fault: Option<Fault>,
}

/// Which calls take a route: those for which all of it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// Exact authority, `*.suffix`, or `*` for any; with or without a port.
    pub authority: String,
    /// What `:path` must be like.
    pub path: PathMatch,
    /// Headers that must be there.
    pub headers: Vec<(HeaderName, ValueMatch)>,
}

/// What `:path` must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathMatch {
    /// Anything.
    #[default]
    Any,
    /// Starts like this.
    Prefix(String),
    /// Is this.
    Method(String),
}

/// What the value of a header must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Anything.
    Any,
    /// Starts like this.
    Prefix(String),
    /// Is this.
    Exact(String),
}

/// As it is written.
impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Prefix(start) => write!(f, "{start}*"),
            Self::Exact(value) => f.write_str(value),
        }
    }
}

/// What becomes of the calls that take a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// They go to this service.
    Forward(ServiceName),
    /// Each goes one of several ways.
    Split(Split),
    /// The proxy answers them.
    Respond(DirectResponse),
}

/// Several ways for the calls of one route, by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Where a branch goes that names no service.
    pub service: Option<ServiceName>,
    /// What of a call decides, so that equal calls go the same way; none: chance.
    pub on: Option<HashOn>,
    /// At least one, each with a service of its own or [`Split::service`]; the weights are not all 0.
    pub branches: Vec<Branch>,
}

/// One way of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Service, where it is not the one of the route.
    pub service: Option<ServiceName>,
    /// Filter, where it is not the one of route or service.
    pub filter: Option<Arc<Selectors>>,
    /// Share of the calls relative to its siblings.
    pub weight: u32,
}

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// `grpc-status`, if given.
    pub grpc: Option<GrpcStatus>,
    /// HTTP status, if given.
    pub http: Option<u16>,
    /// `grpc-message`, or the body.
    pub message: String,
}

impl DirectResponse {
    /// The statuses for both kinds of call; one that is not given follows from the other.
    pub fn statuses(&self) -> Statuses {
        match (self.grpc, self.http) {
            (Some(grpc), Some(http)) => Statuses { grpc, http },
            (Some(grpc), None) => grpc.into(),
            (None, http) => Statuses::of_http(http.unwrap_or(200)),
        }
    }
}

/// Changes of the head of a call, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Taken off.
    pub remove: Vec<HeaderName>,
    /// Written instead of what is there.
    pub set: Vec<(HeaderName, String)>,
    /// Written beside what is there.
    pub add: Vec<(HeaderName, String)>,
}

/// Trouble made on purpose: to see how callers take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long a call is held up, and for which share of them.
    pub delay: Option<(Duration, Percent)>,
    /// The status that a call ends with, and for which share of them.
    pub abort: Option<(GrpcStatus, Percent)>,
}

/// `delay 100ms for 10 %, abort UNAVAILABLE for 1 %`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delay, abort } = self;
        if let Some((delay, share)) = delay {
            write!(f, "delay {} for {} %", humantime::format_duration(*delay), share.get())?;
        }
        if let Some((status, share)) = abort {
            let separator = if delay.is_some() { ", " } else { "" };
            write!(f, "{separator}abort {} for {} %", status.name(), share.get())?;
        }
        Ok(())
    }
}

/// A share, in steps of 0.0001 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// All.
    pub const ALL: Self = Self(1_000_000);

    /// Of a whole number up to 100.
    pub const fn of(percent: u8) -> Self {
        Self(percent as u32 * 10_000)
    }

    /// Of a number from 0 to 100; none for any other.
    pub fn new(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then(|| Self((percent * 10_000.0).round() as u32))
    }

    /// The number, from 0 to 100.
    pub fn get(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// The number, from 0 to 1.
    pub fn share(self) -> f64 {
        self.get() / 100.0
    }

    /// Whether it is one of the share. `number` is uniform in 0..2^32.
    pub const fn takes(self, number: u32) -> bool {
        (number as u64 * Self::ALL.0 as u64) >> 32 < self.0 as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_in_a_few_words() {
        let share = |percent| Percent::new(percent).unwrap();
        let delay = Some((Duration::from_millis(100), share(10.0)));
        let abort = Some((GrpcStatus::new(14), share(0.5)));
        let told = |delay, abort| Fault { delay, abort }.to_string();
        assert_eq!(told(delay, abort), "delay 100ms for 10 %, abort UNAVAILABLE for 0.5 %");
        assert_eq!(told(delay, None), "delay 100ms for 10 %");
        assert_eq!(told(None, abort), "abort UNAVAILABLE for 0.5 %");
    }

    #[test]
    fn a_share_takes_its_part_of_all_numbers() {
        // One thousandth of 2^32, rounded up.
        let step = 4_294_968;
        let taken = |percent| {
            let percent = Percent::new(percent).unwrap();
            (0..1_000_u32).filter(|at| percent.takes(at * step)).count()
        };
        assert_eq!([0.0, 0.1, 10.0, 50.0, 100.0].map(taken), [0, 1, 100, 500, 1_000]);
        assert!(Percent::ALL.takes(u32::MAX) && !Percent::new(0.0).unwrap().takes(0));
        assert_eq!(
            (Percent::new(-0.1), Percent::new(100.1), Percent::new(f64::NAN)),
            (None, None, None)
        );
    }
}
