//! The strings of `[[route]]`.

use http::HeaderName;

use super::{Text, checked, one_of, unknown_word};
use crate::{config::settings::ValueMatch, model::GrpcStatus};

checked!(
    /// Pattern of an authority.
    AuthorityPattern,
    "an authority such as \"orders.internal:8443\", \"*.internal\" for all below it, or \"*\"",
    |text| {
        let exact = text.strip_prefix("*.").unwrap_or(text);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:[]".contains(&byte);
        text == "*" || (!exact.is_empty() && exact.bytes().all(allowed))
    }
);

checked!(
    /// Start of `:path`.
    PathPrefix,
    "the start of a path, such as \"/orders.v1.\"",
    is_path
);

checked!(
    /// All of `:path`.
    Method,
    "a path, such as \"/orders.v1.Orders/List\"",
    is_path
);

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

/// Declares the name of a header, in lower case, that is none of some.
macro_rules! header {
    ($(#[doc = $doc:literal])* $name:ident, $allowed:literal, $refused:expr) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(in crate::config) struct $name(String);

        impl $name {
            /// As HTTP/2 has it.
            pub(in crate::config) fn name(&self) -> HeaderName {
                HeaderName::from_bytes(self.0.as_bytes()).expect("it was made of one")
            }
        }

        impl From<&HeaderName> for $name {
            fn from(name: &HeaderName) -> Self {
                Self(name.as_str().to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let refused: fn(&str) -> bool = $refused;
                match HeaderName::from_bytes(text.as_bytes()) {
                    Ok(name) if !refused(name.as_str()) => Ok(Self(name.as_str().to_owned())),
                    _ => Self::refuse(&format!("{text:?} cannot be used")),
                }
            }
        }

        impl Text for $name {
            fn allowed() -> String {
                $allowed.to_owned()
            }

            fn from_text(text: &str) -> Result<Self, String> {
                text.parse()
            }

            fn to_text(&self) -> String {
                self.0.clone()
            }
        }
    };
}

header!(
    /// A header that a route looks at. Those of pillion are taken off before, and `host` is the
    /// authority.
    MatchedHeader,
    "the name of a header other than host and pillion-*",
    |name| name == "host" || name.starts_with("pillion-")
);

header!(
    /// A header that a route changes. The others belong to whoever frames the call: to change them
    /// would break it. Binary metadata has a form that a text in a file does not.
    ChangedHeader,
    "the name of a header other than pillion-*, grpc-*, *-bin, host, content-type, \
     content-length and those of the connection (te, connection, upgrade and their like)",
    |name| {
        const FRAMING: &[&str] = &[
            "connection",
            "content-length",
            "content-type",
            "host",
            "http2-settings",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        ["pillion-", "grpc-"].iter().any(|start| name.starts_with(start))
            || name.ends_with("-bin")
            || FRAMING.contains(&name)
    }
);

/// What the value of a header must be like.
#[derive(Clone, Debug)]
pub(in crate::config) struct ValuePattern(pub(in crate::config) ValueMatch);

impl Text for ValuePattern {
    fn allowed() -> String {
        "the value, \"start*\" for all that start like this, or \"*\" for any".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let plain = |text: &str| {
            let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            printable && !text.is_empty() && !text.contains('*') && !text.starts_with(' ')
        };
        match text.strip_suffix('*') {
            Some("") => Ok(Self(ValueMatch::Any)),
            Some(start) if plain(start) => Ok(Self(ValueMatch::Prefix(start.to_owned()))),
            None if plain(text) && !text.ends_with(' ') => {
                Ok(Self(ValueMatch::Exact(text.to_owned())))
            }
            _ => Self::refuse(&format!("{text:?} cannot be used")),
        }
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

impl Text for GrpcStatus {
    fn allowed() -> String {
        one_of(Self::names().iter().copied())
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match Self::named(text) {
            Some(status) => Ok(status),
            None => Self::refuse(&unknown_word(text, Self::names().iter().copied())),
        }
    }

    fn to_text(&self) -> String {
        self.name().to_owned()
    }
}
