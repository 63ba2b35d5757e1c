//! The head of a call, for as many attempts as it gets.

use std::{
    mem,
    ops::{Deref, DerefMut},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, request};

/// Method, path, authority and headers.
///
/// The headers themselves go to the first attempt. What is kept for others is their bytes in a row,
/// which cost one allocation: to copy the map costs three, and two atomic operations for each header.
/// So a call that is sent once, as nearly all are, pays little for those that are not.
#[derive(Debug)]
pub struct Head {
    /// Without headers, once an attempt has taken them.
    parts: request::Parts,
    is_taken: bool,
    kept: Option<Kept>,
}

/// Names and values, one behind the other: the lengths of both, the name, the value.
#[derive(Clone, Debug)]
struct Kept(Bytes);

/// Bytes of the two lengths.
const LENGTHS: usize = size_of::<u64>();
/// Set in them where the value must not be indexed.
const SENSITIVE: u64 = 1 << 63;

impl Head {
    /// As it came.
    pub const fn new(parts: request::Parts) -> Self {
        Self { parts, is_taken: false, kept: None }
    }

    /// The headers, for one attempt. Afterwards nothing is left of them but for further attempts.
    pub fn take_headers(&mut self) -> HeaderMap {
        if mem::replace(&mut self.is_taken, true) {
            return self.keep().headers();
        }
        self.keep();
        mem::take(&mut self.parts.headers)
    }

    /// The same head for an attempt beside this one.
    pub fn share(&mut self) -> Self {
        let kept = self.keep().clone();
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method.clone_from(&self.parts.method);
        parts.uri.clone_from(&self.parts.uri);
        Self { parts, is_taken: true, kept: Some(kept) }
    }

    fn keep(&mut self) -> &Kept {
        self.kept.get_or_insert_with(|| Kept::new(&self.parts.headers))
    }
}

impl Kept {
    fn new(headers: &HeaderMap) -> Self {
        let size = |(name, value): (&HeaderName, &HeaderValue)| {
            LENGTHS + name.as_str().len() + value.len()
        };
        let mut bytes = Vec::with_capacity(headers.iter().map(size).sum());
        for (name, value) in headers {
            let (name, flag) = (name.as_str(), if value.is_sensitive() { SENSITIVE } else { 0 });
            let lengths = (name.len() as u64) << 32 | value.len() as u64 | flag;
            bytes.extend_from_slice(&lengths.to_ne_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        Self(bytes.into())
    }

    fn headers(&self) -> HeaderMap {
        let (mut headers, mut rest) = (HeaderMap::new(), self.0.clone());
        while rest.len() >= LENGTHS {
            let lengths = rest.get_u64_ne();
            let name = rest.split_to((lengths & !SENSITIVE) as usize >> 32);
            let value = rest.split_to(lengths as u32 as usize);
            // Both were in a map before.
            let name = HeaderName::from_bytes(&name);
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_maybe_shared(value)) {
                value.set_sensitive(lengths & SENSITIVE != 0);
                headers.append(name, value);
            }
        }
        headers
    }
}

impl Deref for Head {
    type Target = request::Parts;

    fn deref(&self) -> &request::Parts {
        &self.parts
    }
}

impl DerefMut for Head {
    fn deref_mut(&mut self) -> &mut request::Parts {
        &mut self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let request = http::Request::post("http://orders/shop.Orders/Get")
            .header("content-type", "application/grpc")
            .header("x-twice", "a")
            .header("empty", "")
            .header("x-twice", "b")
            .header("bytes-bin", HeaderValue::from_bytes(b"\xff\x80 ").unwrap());
        let mut head = Head::new(request.body(()).unwrap().into_parts().0);
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        head.headers.insert("authorization", secret);
        head
    }

    #[test]
    fn each_attempt_has_the_same_headers() {
        let (mut head, expected) = (head(), head().headers.clone());
        for attempt in 1..4 {
            let headers = head.take_headers();
            assert_eq!(headers, expected, "{attempt}");
            assert!(headers["authorization"].is_sensitive());
            assert!(!headers["content-type"].is_sensitive());
        }
    }

    #[test]
    fn an_attempt_beside_another_has_all_of_the_head() {
        let (mut first, expected) = (head(), head());
        let mut second = first.share();
        let mut third = second.share();
        for head in [&mut first, &mut second, &mut third] {
            assert_eq!((&head.method, &head.uri), (&expected.method, &expected.uri));
            assert_eq!(head.take_headers(), expected.headers);
        }
    }

    #[test]
    fn a_head_without_headers_stays_one() {
        let mut head = Head::new(http::Request::new(()).into_parts().0);
        assert!(head.take_headers().is_empty() && head.take_headers().is_empty());
    }
}
