//! Why the proxy itself ended a call, and with which status.

use super::GrpcStatus;

/// The reasons a caller sees in `pillion-error`; statuses from upstream carry none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is malformed, or asks for what no proxy like this does.
    BadRequest,
    /// `:authority` is not a service name.
    BadAuthority,
    /// `pillion-filter` does not parse.
    BadFilter,
    /// The service has no endpoint, or does not exist.
    NoEndpoints,
    /// The filter or the pin leaves no endpoint.
    NoMatch,
    /// Never seen, and the registry cannot be asked.
    RegistryUnavailable,
    /// Every attempt ended before an endpoint was connected.
    ConnectFailed,
    /// The endpoint broke off after the call was sent.
    UpstreamReset,
    /// What the endpoint sent is not HTTP/2.
    UpstreamProtocol,
    /// `grpc-timeout` or the configured `timeout` ran out.
    DeadlineExceeded,
    /// A limit of this proxy.
    Overloaded,
    /// This proxy is stopping.
    Draining,
    /// The call has been at this proxy before.
    LoopDetected,
    /// A route's `fault` aborts it.
    Fault,
    /// A route answers it by itself: `respond`.
    DirectResponse,
    /// A mistake in this proxy: it panicked.
    Internal,
}

impl Reason {
    /// All reasons, in the order of the documentation.
    pub const ALL: [Self; 16] = [
        Self::BadRequest,
        Self::BadAuthority,
        Self::BadFilter,
        Self::NoEndpoints,
        Self::NoMatch,
        Self::RegistryUnavailable,
        Self::ConnectFailed,
        Self::UpstreamReset,
        Self::UpstreamProtocol,
        Self::DeadlineExceeded,
        Self::Overloaded,
        Self::Draining,
        Self::LoopDetected,
        Self::Fault,
        Self::DirectResponse,
        Self::Internal,
    ];

    /// Value of `pillion-error` and of the metric label `error`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadAuthority => "bad_authority",
            Self::BadFilter => "bad_filter",
            Self::NoEndpoints => "no_endpoints",
            Self::NoMatch => "no_match",
            Self::RegistryUnavailable => "registry_unavailable",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::LoopDetected => "loop_detected",
            Self::Fault => "fault",
            Self::DirectResponse => "direct_response",
            Self::Internal => "internal",
        }
    }

    /// `grpc-status` of the answer to a gRPC call.
    pub const fn grpc_status(self) -> u8 {
        match self {
            Self::BadRequest | Self::BadAuthority | Self::BadFilter => 3,
            Self::DeadlineExceeded => 4,
            Self::Overloaded => 8,
            // As linkerd answers it.
            Self::LoopDetected => 10,
            Self::UpstreamProtocol | Self::Internal => 13,
            _ => 14,
        }
    }

    /// `:status` of the answer to any other request.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadAuthority | Self::BadFilter => 400,
            Self::Overloaded => 429,
            Self::Internal => 500,
            Self::UpstreamReset | Self::UpstreamProtocol => 502,
            Self::DeadlineExceeded => 504,
            Self::LoopDetected => 508,
            _ => 503,
        }
    }
}

/// How one answer of the proxy is written for either kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    /// `grpc-status` for a gRPC call.
    pub grpc: GrpcStatus,
    /// `:status` for any other request, 200 to 599.
    pub http: u16,
}

impl From<Reason> for Statuses {
    fn from(reason: Reason) -> Self {
        Self { grpc: GrpcStatus::new(reason.grpc_status()), http: reason.http_status() }
    }
}

/// With the HTTP status that Envoy gives for it.
impl From<GrpcStatus> for Statuses {
    fn from(grpc: GrpcStatus) -> Self {
        let http = match grpc.code() {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        };
        Self { grpc, http }
    }
}

impl Statuses {
    /// An HTTP status, with the gRPC status that a client makes of it (gRPC over HTTP/2, "HTTP to gRPC
    /// Status Code Mapping"); OK for a success.
    pub const fn of_http(http: u16) -> Self {
        let grpc = match http {
            200..300 => 0,
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        };
        Self { grpc: GrpcStatus::new(grpc), http }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_for_both_kinds_of_call() {
        let http = |code| Statuses::from(GrpcStatus::new(code)).http;
        assert_eq!(
            (0..17).map(http).collect::<Vec<_>>(),
            [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]
        );
        for (http, grpc) in
            [(204, "OK"), (302, "UNKNOWN"), (404, "UNIMPLEMENTED"), (503, "UNAVAILABLE")]
        {
            assert_eq!(Statuses::of_http(http).grpc.name(), grpc);
        }
    }
}
