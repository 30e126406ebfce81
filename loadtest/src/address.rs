//! References in playlists → request paths. Pure.

use url::Url;

/// Longest path and query that is asked for, in bytes.
pub const MAX_PATH_BYTES: usize = 8192;

/// A reference that a viewer cannot follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    #[error("it is no URL reference")]
    Malformed,
    #[error("it leads to another server, {0}: give the harness that server's URL instead")]
    OtherServer(String),
    #[error("it is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
}

/// Path and query of `reference`, met in the document at `base` (path and query) on the server of `entry`.
pub fn join(entry: &Url, base: &str, reference: &str) -> Result<String, BadReference> {
    if reference.len() + base.len() > MAX_PATH_BYTES {
        return Err(BadReference::TooLong);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'.' | b'~' | b'?' | b'=' | b'&');
    let simple = reference.bytes().all(plain) && !reference.starts_with(['/', '.', '?']) && !reference.contains("/.");
    if simple && !reference.is_empty() {
        let path = base.split('?').next().unwrap_or("/");
        let directory = path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or("/");
        return Ok(format!("{directory}{reference}"));
    }
    let base = entry.join(base).map_err(|_| BadReference::Malformed)?;
    let url = base.join(reference).map_err(|_| BadReference::Malformed)?;
    if url.origin() != entry.origin() {
        return Err(BadReference::OtherServer(url.host_str().unwrap_or("?").to_owned()));
    }
    Ok(path_of(&url))
}

/// Path and query of a URL.
pub fn path_of(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// Adds directives to a path that may have a query already.
pub fn with_query(path: &str, query: &str) -> String {
    match (query.is_empty(), path.contains('?')) {
        (true, _) => path.to_owned(),
        (false, false) => format!("{path}?{query}"),
        (false, true) => format!("{path}&{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_paths() {
        let entry = Url::parse("http://h:8080/app/show/index.m3u8?policy=x").unwrap();
        for (base, reference, path) in [
            (
                "/app/show/index.m3u8?policy=x",
                "d/video.m3u8",
                "/app/show/d/video.m3u8",
            ),
            ("/a/v.m3u8", "p1.m4s?x=1", "/a/p1.m4s?x=1"),
            ("/a/b/v.m3u8", "../c/i.mp4", "/a/c/i.mp4"),
            ("/a/b/v.m3u8", "/x.m4s", "/x.m4s"),
            ("/a/b/v.m3u8", "./x.m4s", "/a/b/x.m4s"),
            ("/a/b/v.m3u8", "http://h:8080/y.m4s?q", "/y.m4s?q"),
            ("/v.m3u8", "a b", "/a%20b"),
        ] {
            assert_eq!(join(&entry, base, reference).as_deref(), Ok(path));
        }
        assert!(matches!(
            join(&entry, "/a", "http://evil/x"),
            Err(BadReference::OtherServer(_))
        ));
        assert!(matches!(
            join(&entry, "/a", "//evil/x"),
            Err(BadReference::OtherServer(_))
        ));
        assert!(join(&entry, "/a", "http://[").is_err());
        assert!(join(&entry, "/a", &"x".repeat(9000)).is_err());
    }
}
