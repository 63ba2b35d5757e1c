//! Which proxies of this kind a call has passed, so that one that goes in circles ends.
//!
//! A call that comes with `pillion-attempt` has passed one already. From then on each leaves its mark in
//! `via` (RFC 9110 section 7.6.3), which proxies of other kinds pass on: `2 pillion-ID-CALL`, where ID is
//! made up at the start of the process, and CALL is a hash of what the call is for. One that comes back
//! to its own mark has been here before. The ID alone would not tell: an application may copy the
//! metadata of the calls that it gets into those that it makes (go-micro's do). A call straight from an
//! application costs nothing of this.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Uri, header::VIA};

use crate::{
    call::CallError,
    model::{Reason, stable_hash},
};

/// Most marks that a call may have, whatever it is for.
const MOST: usize = 32;

/// What the marks of this process begin with.
static OURS: LazyLock<String> = LazyLock::new(|| format!("{ANY}{:016x}", fastrand::u64(..)));

/// What the marks of any pillion begin with.
const ANY: &str = "2 pillion-";

/// Leaves the mark on a call that has passed a pillion before.
///
/// # Errors
/// [`Reason::LoopDetected`], where it has been here before, or has too many marks.
pub(super) fn mark(headers: &mut HeaderMap, uri: &Uri) -> Result<(), CallError> {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let call = stable_hash(format!("{authority}{}", uri.path()).as_bytes());
    let mark = format!("{}-{:08x}", *OURS, call as u32);
    let lines = headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
    let marks = lines.flat_map(|line| line.split(',').map(str::trim));
    let marks: Vec<_> = marks.filter(|mark| mark.starts_with(ANY)).collect();
    let text = match marks.iter().rev().position(|other| *other == mark) {
        Some(0) => "it came straight back".to_owned(),
        Some(proxies) => format!("it came back by {proxies} other proxies"),
        None if marks.len() >= MOST => format!("it has passed {MOST} proxies"),
        None => {
            let mark = HeaderValue::try_from(mark).ok();
            mark.map(|mark| headers.append(VIA, mark));
            return Ok(());
        }
    };
    Err(CallError::new(
        Reason::LoopDetected,
        format!(
            "a call to {authority:?} goes in circles: {text}; see whom its endpoints belong to"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(headers: &mut HeaderMap, path: &str) -> Option<Reason> {
        let uri = format!("http://orders{path}").parse().unwrap();
        mark(headers, &uri).err().map(|error| error.reason)
    }

    #[test]
    fn a_call_that_comes_back_ends_and_another_that_carries_its_marks_does_not() {
        let mut headers = HeaderMap::new();
        headers.insert(VIA, HeaderValue::from_static("1.1 edge, 2 pillion-0-1"));
        assert_eq!(marked(&mut headers, "/a"), None);
        assert_eq!(marked(&mut headers.clone(), "/b"), None, "what was copied into another call");
        headers.append(VIA, HeaderValue::from_static("2 pillion-0-2"));
        assert_eq!(marked(&mut headers, "/a"), Some(Reason::LoopDetected));
        let lines: Vec<_> = headers.get_all(VIA).iter().map(|v| v.to_str().unwrap()).collect();
        let joined = HeaderValue::try_from(lines.join(",")).unwrap();
        let mut joined = HeaderMap::from_iter([(VIA, joined)]);
        assert_eq!(marked(&mut joined, "/a"), Some(Reason::LoopDetected));
    }

    #[test]
    fn a_call_passes_so_many_proxies_and_no_more() {
        let mut headers = HeaderMap::new();
        for passed in 0..MOST {
            assert_eq!(marked(&mut headers, &format!("/{passed}")), None);
        }
        assert_eq!(marked(&mut headers, "/other"), Some(Reason::LoopDetected));
    }
}
