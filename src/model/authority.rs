//! The text of an `:authority`, which is no URI: see [`without_port`].

/// Takes a trailing `:digits` off. On the text, since `http::uri::Authority` compares without case
/// and misreads `a@b` and `a:v1`.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}
