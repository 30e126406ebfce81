//! A recording as one MP4 file, made while it is sent.
//!
//! Before this: `recordings.rs`. After this: `record/remux.rs` (what is where), `record/shelf.rs` (segments).

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE},
};
use weir_shared::{
    hls::address::VodObject,
    serve::respond::{self, Requested},
};

use super::{
    ApiState,
    extract::Caller,
    problem::{Problem, ReadProblems},
    recordings::{OfRecording, row},
};
use crate::{
    control::{
        model::Scope,
        store::{RecordingRow, RecordingState},
    },
    record::{
        remux::{self, Plan},
        shelf::{Missing, Shelf},
    },
};

/// Download a recording
///
/// As one MP4 file with the first video and the first audio rendition. `Range` is honoured, so that downloads can be
/// continued and players can seek.
#[utoipa::path(
    get, path = "/v1/projects/{project}/streams/{stream}/recordings/{recording}/download", tag = "recording", operation_id = "downloadRecording",
    params(
        ("project" = String, Path, description = "Project"),
        ("stream" = String, Path, description = "Stream id"),
        ("recording" = String, Path, description = "Recording"),
        ("Range" = Option<String>, Header, description = "bytes=first-last"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "video/mp4", body = [u8]),
        (status = 206, description = "The part of it that was asked for", content_type = "video/mp4", body = [u8]),
        (status = 409, description = "It is still being recorded, or can't be one file", body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "The range starts past the end", body = Problem, content_type = "application/problem+json"),
        ReadProblems,
    ),
)]
pub(super) async fn download(
    caller: Caller,
    of: OfRecording,
    State(api): State<ApiState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may_in(&of.stream.project, Scope::Vod)?;
    let row = row(&api, &of).await?;
    if row.state == RecordingState::Recording {
        return Err(Problem::conflict(
            "illegal-state",
            "it is still being recorded or stored".to_owned(),
        ));
    }
    let shelf = api.control.node().shelf().ok_or_else(Problem::unavailable)?;
    let plan = plan(&shelf, &row).await?;
    let total = plan.total_bytes();
    let etag = HeaderValue::try_from(format!("\"{}-{total}\"", row.name)).unwrap_or(HeaderValue::from_static("\"0\""));
    let range_applies = headers.get(IF_RANGE).is_none_or(|value| *value == etag);
    let range = headers.get(RANGE).filter(|_| range_applies);
    let (status, first, last) = match range.map(|range| respond::byte_range(range, total)) {
        None | Some(Requested::Whole) => (StatusCode::OK, 0, total.saturating_sub(1)),
        Some(Requested::Bytes { first, last }) => (StatusCode::PARTIAL_CONTENT, first, last),
        Some(Requested::Unsatisfiable) => return Err(Problem::unsatisfiable_range(total)),
    };
    let name = format!("attachment; filename=\"{}-{}.mp4\"", row.key, row.name);
    let mut response = Response::new(body(shelf, row, plan, first, last));
    *response.status_mut() = status;
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
    answer.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.insert(CONTENT_LENGTH, HeaderValue::from(last - first + 1));
    answer.insert(ETAG, etag);
    if let Ok(name) = HeaderValue::try_from(name) {
        answer.insert(CONTENT_DISPOSITION, name);
    }
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = HeaderValue::try_from(format!("bytes {first}-{last}/{total}"))
    {
        answer.insert(CONTENT_RANGE, range);
    }
    Ok(response)
}

async fn plan(shelf: &Shelf, row: &RecordingRow) -> Result<Plan, Problem> {
    let summary = shelf.summary(&row.key, &row.name).await.map_err(unreadable)?;
    let not_one = |why: remux::NotOneFile| Problem::conflict("not-one-file", why.to_string());
    let mut read = Vec::new();
    for (init, first) in remux::sources(&summary).map_err(not_one)?.tracks {
        let init = object(shelf, row, &init).await.map_err(unreadable)?;
        let first = object(shelf, row, &first).await.map_err(unreadable)?;
        read.push((init.to_vec(), first.to_vec()));
    }
    remux::plan(&summary, &read).map_err(not_one)
}

async fn object(shelf: &Shelf, row: &RecordingRow, name: &str) -> Result<Bytes, Missing> {
    let object = VodObject::parse(name).ok_or(Missing::Absent)?;
    Ok(shelf.get(&row.key, &row.name, &object).await?.bytes)
}

/// Bytes `first..=last` of the file, one segment at a time.
fn body(shelf: Arc<Shelf>, row: RecordingRow, plan: Plan, first: u64, last: u64) -> Body {
    /// Index of the next piece (0 is the header) and where it begins in the file.
    struct Place {
        next: usize,
        at: u64,
    }
    let start = Place { next: 0, at: 0 };
    let parts = stream::try_unfold(
        (start, shelf, row, plan),
        move |(mut place, shelf, row, plan)| async move {
            while place.at <= last {
                let piece = place.next.checked_sub(1).map(|index| plan.pieces.get(index));
                let length = match piece {
                    None => plan.header.len() as u64,
                    Some(Some(piece)) => piece.bytes,
                    Some(None) => break,
                };
                let at = place.at;
                place = Place {
                    next: place.next + 1,
                    at: at + length,
                };
                if place.at <= first {
                    continue;
                }
                let whole = match piece.flatten() {
                    None => Bytes::copy_from_slice(&plan.header),
                    Some(piece) => {
                        let read = object(&shelf, &row, &piece.name).await;
                        let bytes = read.map_err(|_| std::io::Error::other("a segment can't be read"))?;
                        Bytes::from(plan.made(piece, bytes.to_vec()))
                    }
                };
                if whole.len() as u64 != length {
                    return Err(std::io::Error::other("a segment is not as long as it was"));
                }
                let from = usize::try_from(first.saturating_sub(at)).unwrap_or(0);
                let to = usize::try_from((last + 1 - at).min(length)).unwrap_or(0);
                return Ok(Some((whole.slice(from..to), (place, shelf, row, plan))));
            }
            Ok(None)
        },
    );
    Body::from_stream(parts)
}

fn unreadable(missing: Missing) -> Problem {
    match missing {
        Missing::Absent => Problem::not_found("the recording's objects are not in the store any more"),
        Missing::StoreDown => Problem::unavailable(),
    }
}
