//! How many calls of one service are let through, as configured.

use std::fmt;

use http::HeaderName;

use super::value::Text;

/// Limits on the calls of one service. 0 means that there is no such limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls in flight, from the arrival of the head to the last byte of the answer.
    pub max_in_flight: u32,
    /// Calls in flight on one endpoint.
    pub max_in_flight_per_endpoint: u32,
    /// Calls a second.
    pub rate: u32,
    /// Calls that may come at once after a pause; 0 for as many as `rate`.
    pub burst: u32,
    /// Which calls share one rate.
    pub rate_by: RateBy,
    /// Whether the number of calls that wait for an answer follows the latency.
    pub adaptive: bool,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        let Self { max_in_flight, max_in_flight_per_endpoint, rate, adaptive, .. } = self;
        *max_in_flight == 0 && *max_in_flight_per_endpoint == 0 && *rate == 0 && !adaptive
    }

    /// `burst` with its default.
    pub const fn burst(&self) -> u32 {
        if self.burst == 0 { self.rate } else { self.burst }
    }
}

/// Which calls of a service share one rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RateBy {
    /// All of them.
    #[default]
    Service,
    /// Those of one method, which is the path of the call.
    Method,
    /// Those with the same value of a header; those without it are one more kind.
    Header(HeaderName),
}

impl fmt::Display for RateBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("service"),
            Self::Method => f.write_str("method"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl Text for RateBy {
    fn allowed() -> String {
        "\"service\", \"method\", or \"header:NAME\", such as \"header:x-tenant\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "service" => Ok(Self::Service),
            "method" => Ok(Self::Method),
            _ => {
                let name = text.strip_prefix("header:").map(str::to_ascii_lowercase);
                match name.map(|name| name.parse::<HeaderName>()) {
                    // The proxy takes these off before it counts.
                    Some(Ok(name)) if !name.as_str().starts_with("pillion-") => {
                        Ok(Self::Header(name))
                    }
                    Some(Ok(_)) => Self::refuse(&format!("{text:?} speaks to this proxy")),
                    Some(Err(_)) => Self::refuse(&format!("{text:?} names no header")),
                    None => Self::refuse(&format!("{text:?} is unknown")),
                }
            }
        }
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}
