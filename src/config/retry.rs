//! When a gRPC call is tried again after an endpoint may have worked on it, as configured.

use std::time::Duration;

use super::{
    settings::Percent,
    text::{one_of, unknown_word},
    value::Text,
};
use crate::model::GrpcStatus;

/// How gRPC calls of one service are tried again, beyond what is proven unprocessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Statuses after which a call is tried again; none by default.
    pub on: RetryOn,
    /// Time in which the answer to one attempt must begin, from the moment that it was sent; none for
    /// no limit.
    pub per_try_timeout: Option<Duration>,
    /// Wait before the second attempt, doubled for each further one. Default 25 ms.
    pub backoff: Duration,
    /// Longest wait. Default 250 ms.
    pub backoff_max: Duration,
    /// Further attempts, as a share of calls. Default 20 %.
    pub budget: Percent,
    /// Further attempts a second that are allowed in any case. Default 3.
    pub budget_min_per_second: u32,
    /// Time without an answer after which another attempt begins beside the first; none for never.
    pub hedge_after: Option<Duration>,
    /// Paths of the calls for which that holds.
    pub hedge_methods: Vec<String>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            on: RetryOn::default(),
            per_try_timeout: None,
            backoff: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            budget: Percent::new(20.0).unwrap_or(Percent::ALL),
            budget_min_per_second: 3,
            hedge_after: None,
            hedge_methods: Vec::new(),
        }
    }
}

impl Retry {
    /// Whether anything but what is proven unprocessed is ever tried again.
    pub const fn is_on(&self) -> bool {
        !self.on.is_empty() || self.per_try_timeout.is_some() || self.hedge_after.is_some()
    }

    /// After which time without an answer a call of this path gets another attempt beside the first.
    pub fn hedge_after(&self, path: &str) -> Option<Duration> {
        self.hedge_after.filter(|_| self.hedge_methods.iter().any(|method| method == path))
    }
}

/// gRPC statuses after which a call is tried again: none, or some of those that are errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

impl RetryOn {
    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this is one of them.
    pub const fn contains(self, status: GrpcStatus) -> bool {
        self.0 & (1 << status.code()) != 0
    }

    /// Them, by number.
    pub(super) fn codes(self) -> impl Iterator<Item = RetryCode> {
        let all = (1..GrpcStatus::COUNT as u8).map(GrpcStatus::new);
        all.filter(move |status| self.contains(*status)).map(RetryCode)
    }
}

impl<'a> FromIterator<&'a RetryCode> for RetryOn {
    fn from_iter<I: IntoIterator<Item = &'a RetryCode>>(codes: I) -> Self {
        Self(codes.into_iter().fold(0, |set, code| set | 1 << code.0.code()))
    }
}

/// One of them, as it is written: in lower case.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryCode(GrpcStatus);

impl RetryCode {
    fn words() -> Vec<String> {
        GrpcStatus::names()[1..].iter().map(|name| name.to_ascii_lowercase()).collect()
    }
}

impl Text for RetryCode {
    fn allowed() -> String {
        one_of(Self::words().iter().map(String::as_str))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match GrpcStatus::named(text) {
            Some(status) if status.code() != 0 => Ok(Self(status)),
            Some(_) => Self::refuse(&format!("{text:?} is no error")),
            None => Self::refuse(&unknown_word(text, Self::words().iter().map(String::as_str))),
        }
    }

    fn to_text(&self) -> String {
        self.0.name().to_ascii_lowercase()
    }
}
