//! Which of the recent calls somebody wants to see.

use std::time::Duration;

use super::{Entry, Recent};
use crate::model::{GrpcStatus, Reason};

/// What a call must be like; what is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    service: Option<String>,
    status: Option<String>,
    error: Option<String>,
    path: Option<String>,
    slower: Duration,
}

/// A text that no filter can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is no such filter.
    #[error("unknown parameter {0:?}; allowed: {names}, limit, follow", names = Filter::NAMES.join(", "))]
    Name(String),
    /// Its value can match nothing.
    #[error("{name}: found {value:?}, allowed: {allowed}")]
    Value {
        /// Of which filter.
        name: &'static str,
        /// What was found.
        value: String,
        /// What it may be.
        allowed: String,
    },
}

impl Filter {
    /// What calls are chosen by.
    pub const NAMES: [&str; 5] = ["service", "status", "error", "path", "slower"];

    /// Calls must also be like this. An empty value asks for nothing.
    ///
    /// # Errors
    /// The name is none of [`Self::NAMES`], or no call can be like this.
    pub fn and(mut self, name: &str, value: &str) -> Result<Self, FilterError> {
        let text = (!value.is_empty()).then(|| value.to_owned());
        match name {
            "service" => self.service = text,
            "status" => self.status = text.as_deref().map(status).transpose()?,
            "error" => self.error = text.as_deref().map(error).transpose()?,
            "path" => self.path = text,
            "slower" => self.slower = text.as_deref().map_or(Ok(Duration::ZERO), duration)?,
            _ => return Err(FilterError::Name(name.to_owned())),
        }
        Ok(self)
    }

    pub(super) fn matches(&self, entry: &Entry) -> bool {
        let is = |asked: &Option<String>, found: &str| asked.as_deref().is_none_or(|a| a == found);
        entry.waited >= self.slower
            && is(&self.service, &entry.service)
            && is(&self.status, &entry.status)
            && is(&self.error, entry.error)
            && self.path.as_deref().is_none_or(|start| entry.path.starts_with(start))
    }

    /// How many calls are asked for.
    ///
    /// # Errors
    /// It is not a number from 1 to [`Recent::MOST_KEPT`].
    pub fn limit(value: &str) -> Result<usize, FilterError> {
        let number = value.parse().ok().filter(|number| (1..=Recent::MOST_KEPT).contains(number));
        let allowed = format!("1 to {}", Recent::MOST_KEPT);
        number.ok_or_else(|| FilterError::Value { name: "limit", value: value.to_owned(), allowed })
    }
}

/// A gRPC status by name or number, an HTTP status, or RESET, as calls are told with.
fn status(value: &str) -> Result<String, FilterError> {
    const RESET: &str = "RESET";
    let wrong = || {
        let names = GrpcStatus::names().join(", ");
        let allowed = format!("{names}, their numbers, an HTTP status, {RESET}");
        FilterError::Value { name: "status", value: value.to_owned(), allowed }
    };
    let mut names = GrpcStatus::names().iter().chain([&RESET]);
    match value.parse::<u16>() {
        Ok(code) if usize::from(code) < GrpcStatus::COUNT => {
            Ok(GrpcStatus::new(code as u8).name().to_owned())
        }
        Ok(100..=599) => Ok(value.to_owned()),
        _ => match names.find(|name| name.eq_ignore_ascii_case(value)) {
            Some(name) => Ok((*name).to_owned()),
            None => Err(wrong()),
        },
    }
}

fn error(value: &str) -> Result<String, FilterError> {
    let known = || Reason::ALL.map(Reason::as_str).into_iter().chain(["cancelled"]);
    known().find(|name| *name == value).map(str::to_owned).ok_or_else(|| {
        let allowed = known().collect::<Vec<_>>().join(", ");
        FilterError::Value { name: "error", value: value.to_owned(), allowed }
    })
}

fn duration(value: &str) -> Result<Duration, FilterError> {
    humantime::parse_duration(value).map_err(|_| FilterError::Value {
        name: "slower",
        value: value.to_owned(),
        allowed: "a duration such as 250ms or 1s".to_owned(),
    })
}
