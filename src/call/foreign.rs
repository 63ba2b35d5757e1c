//! Whether an endpoint says that it does not know a gRPC service at all.

use http::HeaderMap;

use crate::model::GrpcStatus;

/// How servers say it: the beginning of their `grpc-message`. C++ and tonic say nothing. Where Java,
/// Python and Node are asked for a method that a service of theirs does not have, they say the same.
const WORDS: [&str; 4] = [
    "unknown service",
    "Service is unimplemented",
    "Method not found",
    "The server does not implement the method",
];

/// Whether an answer with this status in these headers or trailers says so: UNIMPLEMENTED, in the words
/// of a server and not in those of an application.
pub fn is_foreign(status: GrpcStatus, headers: &HeaderMap) -> bool {
    if status != GrpcStatus::UNIMPLEMENTED {
        return false;
    }
    let message =
        headers.get(GrpcStatus::MESSAGE_HEADER).map_or(&b""[..], |message| message.as_bytes());
    message.is_empty() || WORDS.iter().any(|words| message.starts_with(words.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_is_told_from_what_applications_say() {
        let says = |status: &'static str, message: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(message) = message {
                headers.insert("grpc-message", message.parse().unwrap());
            }
            is_foreign(GrpcStatus::parse(status.as_bytes()), &headers)
        };
        for (status, message, expected) in [
            ("12", None, true),
            ("12", Some("unknown service shop.Orders"), true),
            ("12", Some("unknown method Get for service shop.Orders"), false),
            ("12", Some("Method not found: shop.Orders/Get"), true),
            ("12", Some("Method not found!"), true),
            ("12", Some("Service is unimplemented."), true),
            ("12", Some("Method is unimplemented."), false),
            ("12", Some("orders cannot be split yet"), false),
            ("5", Some("unknown service"), false),
        ] {
            assert_eq!(says(status, message), expected, "{status} {message:?}");
        }
    }
}
