//! What heads must be like, beyond what h2 refuses by itself (RFC 9110 section 15, RFC 9113 section 8.2.1): anything
//! that others could read in another way than this proxy does. The listener goes by it for calls.

use http::{HeaderMap, HeaderName, header::CONTENT_LENGTH, response};

/// What is wrong with a head, if anything.
pub(super) fn fault(head: &response::Parts) -> Option<&'static str> {
    // h2 passes informational heads over.
    if !(200..600).contains(&head.status.as_u16()) {
        return Some("a status out of range");
    }
    let Fields { padded, lengths, .. } = Fields::of(&head.headers);
    if padded.is_some() {
        return Some("a header that begins or ends with a space");
    }
    (lengths > 1).then_some("two content-length headers")
}

/// What is to be known of the headers of a head, from one pass over them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    /// Their size as RFC 9113 section 6.5.2 has it: of each, its name, its value, and 32 bytes.
    pub bytes: usize,
    /// A header whose value has a space or a tab at either end.
    pub padded: Option<&'a HeaderName>,
    /// How many `content-length` there are.
    pub lengths: usize,
}

impl<'a> Fields<'a> {
    /// Of these.
    #[inline]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            fields.bytes += name.as_str().len() + value.len() + 32;
            fields.lengths += usize::from(*name == CONTENT_LENGTH);
            if is_padded(value.as_bytes()) {
                fields.padded = Some(name);
            }
        }
        fields
    }
}

/// Whether the value of a header has a space or a tab at either end (RFC 9113 section 8.2.1).
#[inline]
pub(super) fn is_padded(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.first()) || is_space(value.last())
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    #[test]
    fn what_applications_may_read_in_another_way_is_a_fault() {
        let fault = |answer: response::Builder| fault(&answer.body(()).unwrap().into_parts().0);
        let ok = || Response::builder().header("content-length", "3");
        assert_eq!(fault(ok()), None);
        assert_eq!(fault(ok().status(599)), None);
        assert_eq!(fault(ok().status(600)), Some("a status out of range"));
        assert_eq!(fault(ok().status(999)), Some("a status out of range"));
        assert!(fault(ok().header("content-length", "3")).is_some());
        assert!(fault(ok().header("x-a", "a ")).is_some());
        assert!(fault(ok().header("x-a", "\ta")).is_some());
    }
}
