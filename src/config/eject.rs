//! When endpoints are left out, as configured: by what calls tell of them, and by asking them.

use std::time::Duration;

use super::settings::Percent;

/// When an endpoint of one service is ejected: left out for a while because of how its calls ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eject {
    /// Times in a row that it could not be connected, or broke off; 0 turns the rule off. Default 5.
    pub consecutive_local: u32,
    /// UNAVAILABLE, INTERNAL or UNKNOWN in a row; 0 turns the rule off. Default 5.
    pub consecutive_errors: u32,
    /// How much larger than that of the others its share of failed calls is; 0 turns the rule off.
    /// Default 5 %.
    pub failure_rate: Percent,
    /// Whether one that answers for another service is ejected. Default true.
    pub wrong_service: bool,
    /// Time in which the share of failed calls of the others is forgotten, and after which an
    /// ejection counts no more for the length of the next one. Default 10 s.
    pub interval: Duration,
    /// Length of the first ejection; those that follow are longer by as much. Default 30 s.
    pub base: Duration,
    /// Length of the longest ejection. Default 300 s.
    pub max: Duration,
    /// Share of the endpoints that may be ejected at a time. Default 50 %.
    pub max_share: Percent,
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            consecutive_local: 5,
            consecutive_errors: 5,
            failure_rate: Percent::of(5),
            wrong_service: true,
            interval: Duration::from_secs(10),
            base: Duration::from_secs(30),
            max: Duration::from_secs(300),
            max_share: Percent::of(50),
        }
    }
}

impl Eject {
    /// Whether nothing is ejected, so that nothing need be counted.
    pub fn is_off(&self) -> bool {
        let by_rate = self.failure_rate > Percent::of(0);
        let rules = self.consecutive_local > 0 || self.consecutive_errors > 0 || by_rate;
        !(rules || self.wrong_service) || self.max_share == Percent::of(0)
    }
}

/// How endpoints of one service are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// What is asked.
    pub kind: HealthKind,
    /// Between two checks of one endpoint; 10 % more or less. Default 5 s.
    pub interval: Duration,
    /// Limit of one check. Default 1 s.
    pub timeout: Duration,
    /// Successes in a row that make an endpoint healthy again. Default 1.
    pub healthy_after: u32,
    /// Failures in a row that make it unhealthy. Default 3.
    pub unhealthy_after: u32,
}

/// What endpoints are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthKind {
    /// Nothing.
    #[default]
    None,
    /// Whether `grpc.health.v1.Health/Check` says SERVING, of the server as a whole.
    Grpc,
    /// Whether they take a TCP connection.
    Tcp,
}

impl Default for EndpointHealth {
    fn default() -> Self {
        Self {
            kind: HealthKind::None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy_after: 1,
            unhealthy_after: 3,
        }
    }
}
