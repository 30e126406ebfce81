//! The head of an HTTP/1.1 response as bytes. Pure: the date is handed in.
//!
//! Before this: the node's handler. After this: [`super`], which writes it in one go with the body.

use bytes::Bytes;
use http::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
};

use crate::serve::body::Body;

/// Room for the heads of usual answers, in bytes.
const USUAL_HEAD_BYTES: usize = 640;

/// Status line and headers. `date`: an HTTP date. `close`: the connection ends after this answer.
pub(super) fn head(response: &Response<Body>, date: &[u8], close: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_HEAD_BYTES);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(response.status().canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_length = false;
    for (name, value) in response.headers() {
        // What frames the answer is ours to say.
        if *name == CONNECTION || *name == TRANSFER_ENCODING || *name == DATE {
            continue;
        }
        has_length |= *name == CONTENT_LENGTH;
        line(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    if !has_length && may_have_body(response.status()) {
        line(
            &mut out,
            b"content-length",
            response.body().len().to_string().as_bytes(),
        );
    }
    line(&mut out, b"date", date);
    if close {
        line(&mut out, b"connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// RFC 9112 section 6.3: these end with their head.
fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// The refusal of what is no request.
pub(super) fn malformed(status: StatusCode, date: &[u8]) -> Bytes {
    let response =
        crate::serve::respond::refusal(status, "malformed_request", "this is no request that can be answered");
    let mut out = head(&response, date, true);
    let mut body = response.into_body();
    while let Some(piece) = body.next_piece() {
        out.extend_from_slice(&piece);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;
    use crate::serve::respond::{self, Asked};

    const DATE: &[u8] = b"Thu, 01 Jan 1970 00:00:00 GMT";

    fn text(response: &Response<Body>, close: bool) -> String {
        String::from_utf8(head(response, DATE, close)).unwrap()
    }

    #[test]
    fn a_head_has_its_length_its_date_and_says_whether_it_is_the_last() {
        let headers = http::HeaderMap::new();
        let asked = Asked {
            method: &Method::GET,
            headers: &headers,
        };
        let mut response = respond::page(asked, respond::JSON_TYPE, respond::NO_STORE, "{}".into());
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("x"));
        let going_on = text(&response, false);
        assert!(going_on.starts_with("HTTP/1.1 200 OK\r\n") && going_on.ends_with("\r\n\r\n"));
        assert_eq!(going_on.matches("content-length: 2\r\n").count(), 1);
        assert!(going_on.contains("date: Thu, 01 Jan") && !going_on.contains("connection:"));
        assert!(text(&response, true).contains("\r\nconnection: close\r\n"));
    }

    #[test]
    fn a_length_is_made_up_for_whoever_forgot_it_unless_there_is_no_body() {
        let mut response = Response::new(Body::full("abc".into()));
        assert!(text(&response, false).contains("content-length: 3\r\n"));
        *response.status_mut() = StatusCode::NO_CONTENT;
        assert!(!text(&response, false).contains("content-length"));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        assert!(!text(&response, false).contains("content-length"));
    }

    #[test]
    fn a_refusal_can_be_read_by_scripts() {
        let bytes = malformed(StatusCode::BAD_REQUEST, DATE);
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n") && text.contains("access-control-allow-origin: *"));
        assert!(text.contains("connection: close") && text.ends_with('}'));
    }
}
