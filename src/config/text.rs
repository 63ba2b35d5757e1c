//! The strings of the file: which ones there are, and what each allows.
//!
//! Every check of a single value is here, so that documentation and error messages, which both
//! quote [`Text::allowed`], cannot say anything else than the check does.

mod net;
mod register;
mod route;
mod size;

use std::{ops::RangeInclusive, path::PathBuf, sync::Arc, time::Duration};

pub(super) use net::Net;
pub(super) use register::{HealthKind, HttpUrl, Ttl};
pub(super) use route::{
    AuthorityPattern, ChangedHeader, MatchedHeader, Method, PathPrefix, ValuePattern,
};

pub(super) use size::Size;

use super::{
    HashOn,
    eject::HealthKind as EndpointHealthKind,
    hash_on::HashOnError,
    nearest::nearest,
    settings::{
        AccessLog, Balance, Connection, EmptyPolicy, Mode, Ready, SocketMode, SocketPath,
        SocketPathError, ZonePreference,
    },
    value::Text,
};
use crate::formats::FORMATS;
use crate::model::{SelectorError, Selectors, ServiceName, ServiceNameError};

/// Longest duration: far beyond any use, near enough that adding it to the clock cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// One of a few words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Each word and what it stands for.
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Word> Text for T {
    fn allowed() -> String {
        one_of(T::WORDS.iter().map(|(word, _)| *word))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match T::WORDS.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => T::refuse(&unknown_word(text, T::WORDS.iter().map(|(word, _)| *word))),
        }
    }

    fn to_text(&self) -> String {
        // A value without a word would be a mistake in the list, and the empty text is refused on
        // reading.
        let word = T::WORDS.iter().find(|(_, value)| value == self);
        word.map_or("", |(word, _)| word).to_owned()
    }
}

pub(super) fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn unknown_word<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> String {
    match nearest(text, known) {
        Some(near) => format!("{text:?} is unknown (did you mean {near:?}?)"),
        None => format!("{text:?} is unknown"),
    }
}

/// What a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Etcd,
    File,
}

impl Word for Kind {
    const WORDS: &'static [(&'static str, Self)] = &[("etcd", Self::Etcd), ("file", Self::File)];
}

impl Word for AccessLog {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("json", Self::Json), ("text", Self::Text)];
}

impl Word for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[("lazy", Self::Lazy), ("eager", Self::Eager)];
}

impl Word for EmptyPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("serve", Self::Serve), ("keep", Self::Keep)];
}

impl Word for Balance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("weighted_random", Self::WeightedRandom),
        ("round_robin", Self::RoundRobin),
        ("p2c", Self::P2c),
        ("peak_ewma", Self::PeakEwma),
        ("ring_hash", Self::RingHash),
        ("maglev", Self::Maglev),
    ];
}

impl Word for ZonePreference {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("prefer", Self::Prefer)];
}

impl Word for EndpointHealthKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("grpc", Self::Grpc), ("tcp", Self::Tcp)];
}

impl Text for HashOn {
    fn allowed() -> String {
        Self::ALLOWED.to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().or_else(|wrong: HashOnError| Self::refuse(&wrong.to_string()))
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Word for Connection {
    const WORDS: &'static [(&'static str, Self)] =
        &[("fresh", Self::Fresh), ("warm", Self::Warm), ("pooled", Self::Pooled)];
}

impl Word for Ready {
    const WORDS: &'static [(&'static str, Self)] =
        &[("settings", Self::Settings), ("tcp", Self::Tcp)];
}

/// Name of a record format.
#[derive(Clone, Debug)]
pub(super) struct Format(pub(super) String);

impl Text for Format {
    fn allowed() -> String {
        one_of(FORMATS.iter().copied())
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match FORMATS.contains(&text) {
            true => Ok(Self(text.to_owned())),
            false => Self::refuse(&unknown_word(text, FORMATS.iter().copied())),
        }
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl Text for Duration {
    fn allowed() -> String {
        "a duration such as \"250ms\" or \"30s\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= MAX_DURATION => Ok(duration),
            Ok(_) => Self::refuse(&format!("{text:?} is more than a year")),
            Err(_) => Self::refuse(&format!("{text:?} is not a duration")),
        }
    }

    fn to_text(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

/// A duration that is not zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positive(pub(super) Duration);

impl Text for Positive {
    fn allowed() -> String {
        format!("{}, more than \"0s\"", Duration::allowed())
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match Duration::from_text(text)? {
            Duration::ZERO => Self::refuse(&format!("{text:?} is zero")),
            duration => Ok(Self(duration)),
        }
    }

    fn to_text(&self) -> String {
        self.0.to_text()
    }
}

/// How long a host may be silent; the system counts in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostTimeout(pub(super) Duration);

impl Text for HostTimeout {
    fn allowed() -> String {
        "a duration such as \"20s\", from \"1s\" to \"1h\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        const ALLOWED: RangeInclusive<Duration> =
            Duration::from_secs(1)..=Duration::from_secs(3600);
        match Duration::from_text(text)? {
            duration if ALLOWED.contains(&duration) => Ok(Self(duration)),
            _ => Self::refuse(&format!("{text:?} is out of range")),
        }
    }

    fn to_text(&self) -> String {
        self.0.to_text()
    }
}

impl Text for SocketPath {
    fn allowed() -> String {
        Self::ALLOWED.to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|wrong: SocketPathError| wrong.to_string())
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Text for SocketMode {
    fn allowed() -> String {
        "permissions in octal, from \"0000\" to \"0777\", such as \"0660\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let digits =
            (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        match u32::from_str_radix(text, 8) {
            Ok(mode) if digits && mode <= 0o777 => Ok(Self(mode)),
            _ => Self::refuse(&format!("{text:?} is none")),
        }
    }

    fn to_text(&self) -> String {
        format!("{:04o}", self.0)
    }
}

impl Text for PathBuf {
    fn allowed() -> String {
        "a path; a relative one starts at the folder of this file".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn to_text(&self) -> String {
        self.display().to_string()
    }
}

impl Text for ServiceName {
    fn allowed() -> String {
        "1 to 255 letters, digits and . _ - ~ ! $ & ' ( ) * + , ; =".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|wrong: ServiceNameError| wrong.to_string())
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Text for Arc<Selectors> {
    fn allowed() -> String {
        "a selector such as \"version=v2,zone in (a,b)\"; several, joined by ;, are tried in order"
            .to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map(Self::new).map_err(|wrong: SelectorError| wrong.to_string())
    }

    fn to_text(&self) -> String {
        self.text().to_string()
    }
}

/// Declares a string that is kept as it is once a check has passed.
macro_rules! checked {
    ($(#[doc = $doc:literal])* $name:ident, $allowed:literal, $check:expr) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        pub(in crate::config) struct $name(pub(in crate::config) String);

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Text for $name {
            fn allowed() -> String {
                $allowed.to_owned()
            }

            fn from_text(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> bool = $check;
                match check(text) {
                    true => Ok(Self(text.to_owned())),
                    false => Self::refuse(&format!("{text:?} cannot be used")),
                }
            }

            fn to_text(&self) -> String {
                self.0.clone()
            }
        }
    };
}
use checked;

/// A share in percent, below all, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brake(pub(super) Option<u8>);

impl Text for Brake {
    fn allowed() -> String {
        "a share from \"0%\" to \"99%\", or \"off\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let share = || text.strip_suffix('%')?.parse().ok().filter(|share| *share < 100);
        match (text, share()) {
            ("off", _) => Ok(Self(None)),
            (_, Some(share)) => Ok(Self(Some(share))),
            _ => Self::refuse(&format!("{text:?} is no such share")),
        }
    }

    fn to_text(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), |share| format!("{share}%"))
    }
}

checked!(
    /// What is sent as the value of a header.
    HeaderText,
    "printable ASCII characters, without spaces around them",
    |text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text
);

checked!(
    /// Name of a user or a group of this machine, or a number; empty for none.
    AccountName,
    "the name of a user or a group, or its number",
    |text| text.len() < 256 && text.chars().all(|c| !c.is_control() && !" :/".contains(c))
);

checked!(
    /// A host name, without a port.
    HostName,
    "a host name without a port, such as \"pillion.internal\"",
    |text| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    }
);

checked!(
    /// Name of a source or a registration: a metric label and a value in selectors.
    SourceName,
    "1 to 63 letters, digits and - _ .",
    |text| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    }
);

checked!(
    /// Start of the keys of a registry, or a user name.
    PlainText,
    "a text without control characters",
    |text| !text.contains(char::is_control)
);
