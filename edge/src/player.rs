//! stub
use http::Response;
use weir_shared::serve::{body::Body, respond::Asked};
pub fn respond(_asked: Asked<'_>, _path: &str) -> Option<Response<Body>> {
    None
}
