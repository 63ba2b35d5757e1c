//! The name of a service, as callers and registries spell it.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

/// 1 to 255 bytes of `A-Z a-z 0-9 . _ - ~ ! $ & ' ( ) * + , ; =`; case is kept and matters.
///
/// `~` stands for `/` in registry keys, because a `/` cannot travel in `:authority`. Cloning is a
/// reference-count increment.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

/// Why a text is not a service name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceNameError {
    /// Nothing is left once port and node are taken off.
    #[error("the service name is empty")]
    Empty,
    /// More than 255 bytes.
    #[error("the service name has {0} bytes, at most 255 are allowed")]
    TooLong(usize),
    /// A byte outside the allowed set.
    #[error(
        "the service name holds {0:?}, allowed are letters, digits and . _ - ~ ! $ & ' ( ) * + , ; ="
    )]
    Byte(char),
    /// `.` or `..` as a whole segment, which a registry key must never hold.
    #[error("the service name has a segment \".\" or \"..\"")]
    Dots,
}

impl ServiceName {
    /// The name as callers write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as registries write it in keys: each `~` is a `/`.
    pub fn key(&self) -> Cow<'_, str> {
        if self.0.contains('~') { self.0.replace('~', "/").into() } else { (&*self.0).into() }
    }

    /// The name of a service that a registry key spells as `key`: each `/` becomes a `~`.
    ///
    /// # Errors
    /// [`ServiceNameError`] when a caller could never name it: a `~` in a key is no slash.
    pub fn from_key(key: &str) -> Result<Self, ServiceNameError> {
        if key.contains('~') {
            return Err(ServiceNameError::Byte('~'));
        }
        key.replace('/', "~").parse()
    }

    /// Whether `text` is a name, without making one.
    ///
    /// # Errors
    /// [`ServiceNameError`] says what is wrong with it.
    pub fn check(text: &str) -> Result<(), ServiceNameError> {
        if text.is_empty() {
            return Err(ServiceNameError::Empty);
        }
        if text.len() > 255 {
            return Err(ServiceNameError::TooLong(text.len()));
        }
        if let Some(bad) = text.chars().find(|c| !is_allowed(*c)) {
            return Err(ServiceNameError::Byte(bad));
        }
        if text.split('~').any(|segment| segment == "." || segment == "..") {
            return Err(ServiceNameError::Dots);
        }
        Ok(())
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-~!$&'()*+,;=".contains(c)
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_case_and_spells_slashes_as_tildes() {
        let name: ServiceName = "a~Orders.v1".parse().unwrap();
        assert_eq!(name.as_str(), "a~Orders.v1");
        assert_eq!(name.key(), "a/Orders.v1");
        assert_eq!(ServiceName::from_key("a/Orders.v1").unwrap(), name);
        assert!(ServiceName::from_key("a~Orders.v1").is_err(), "that would be another key");
    }

    #[test]
    fn a_name_cannot_reach_outside_its_prefix_or_hold_other_bytes() {
        for bad in ["", "a/b", "a b", "..", "a~..~b", ".", "ü", "a@b", "a%2Fb", "a\0"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(255).parse::<ServiceName>().is_ok());
        assert_eq!("x".repeat(256).parse::<ServiceName>(), Err(ServiceNameError::TooLong(256)));
    }
}
