//! Why the proxy itself ended a call.

/// The reasons a caller sees in `pillion-error`; statuses from upstream carry none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
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
}

impl Reason {
    /// All reasons, in the order of the documentation.
    pub const ALL: [Self; 11] = [
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
    ];

    /// Value of `pillion-error` and of the metric label `error`.
    pub const fn as_str(self) -> &'static str {
        match self {
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
        }
    }

    /// `grpc-status` of the answer to a gRPC call.
    pub const fn grpc_status(self) -> u8 {
        match self {
            Self::BadAuthority | Self::BadFilter => 3,
            Self::DeadlineExceeded => 4,
            Self::Overloaded => 8,
            Self::UpstreamProtocol => 13,
            _ => 14,
        }
    }

    /// `:status` of the answer to any other request.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadAuthority | Self::BadFilter => 400,
            Self::Overloaded => 429,
            Self::UpstreamReset | Self::UpstreamProtocol => 502,
            Self::DeadlineExceeded => 504,
            _ => 503,
        }
    }
}
