//! `GET /calls`: failed and slow calls of late, as a document or as lines that go on.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Frame};
use serde_json::json;

use super::{
    Admin,
    routes::{Body, Query, error, json_text},
};
use crate::recent::{Filter, FilterError, Follower, Listed, Recent};

/// Calls in a document, where nothing else is said.
const LIMIT: usize = 100;

/// What was asked for.
#[derive(Debug, Default)]
struct Asked {
    filter: Filter,
    limit: Option<usize>,
    follow: bool,
}

/// Answers with the calls that the query asks for.
pub(super) fn answer(admin: &Admin, query: &Query) -> Response<Body> {
    let Asked { filter, limit, follow } = match asked(query) {
        Ok(asked) => asked,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong.to_string()).map(Either::Left),
    };
    if !follow {
        return document(&admin.recent.list(&filter, limit.unwrap_or(LIMIT))).map(Either::Left);
    }
    match admin.recent.follow(filter, limit.unwrap_or(0)) {
        Ok(follower) => {
            let mut response = Response::new(Either::Right(Lines(follower)));
            let kind = HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(most) => {
            let text = format!("{most} follow already, which is as many as may; try again later");
            error(StatusCode::SERVICE_UNAVAILABLE, &text).map(Either::Left)
        }
    }
}

fn asked(query: &Query) -> Result<Asked, FilterError> {
    let mut asked = Asked::default();
    for (name, value) in query.iter() {
        match name {
            "limit" => asked.limit = Some(Filter::limit(value)?),
            "follow" => asked.follow = !matches!(value, "0" | "false"),
            name => asked.filter = asked.filter.and(name, value)?,
        }
    }
    Ok(asked)
}

/// The calls are JSON already: they are put together, not read again.
fn document(listed: &Listed) -> Response<Full<Bytes>> {
    let Listed { calls, matching, kept, left_out } = listed;
    let calls: Vec<&str> = calls.iter().map(|entry| entry.json()).collect();
    let rest = json!({
        "matching": matching, "kept": kept, "room": Recent::MOST_KEPT, "left_out": left_out,
    });
    let rest = rest.to_string();
    json_text(StatusCode::OK, &format!("{{\"calls\":[{}],{}\n", calls.join(","), &rest[1..]))
}

/// A line for each call, as calls end.
#[derive(Debug)]
pub(super) struct Lines(Follower);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = self.0.poll_line(cx);
        line.map(|line| Some(Ok(Frame::data(line?.to_json().into()))))
    }
}
