//! The floor's answers, laid out as bytes. Pure.

use bytes::Bytes;
use weir_shared::serve::gzip;

/// What every answer carries.
const COMMON: &str = "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Age\r\n";

/// A playlist that shared caches may keep for so long.
pub(super) fn playlist(text: &str, gzip: bool, kept_seconds: u32) -> Bytes {
    let (body, coding) = match gzip {
        true => (gzip::gzip(text.as_bytes()), "Content-Encoding: gzip\r\n"),
        false => (Bytes::copy_from_slice(text.as_bytes()), ""),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n{COMMON}{coding}Vary: Accept-Encoding\r\n\
         Cache-Control: public, max-age=0, s-maxage={kept_seconds}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat().into()
}

/// Head and stamp in one piece (one slice less per write), and the rest.
pub(super) fn media(number: u64, body: Vec<Bytes>) -> [Bytes; 2] {
    let length: usize = body.iter().map(Bytes::len).sum();
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n{COMMON}Cache-Control: public, max-age=31536000\r\n\
         ETag: \"{number}\"\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    let mut pieces = body.into_iter();
    head.extend_from_slice(&pieces.next().unwrap_or_default());
    [head.into(), pieces.next().unwrap_or_default()]
}

/// An answer without a body.
pub(super) fn status(line: &str) -> Bytes {
    format!("HTTP/1.1 {line}\r\n{COMMON}Content-Length: 0\r\n\r\n").into()
}
