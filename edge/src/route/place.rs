//! From a URI in an upstream's playlist to an address of this edge. Pure.
//!
//! Before this: `route/rendition.rs`, with the address that viewers use and the one where the playlist was found. After
//! this: `weir_shared::hls::outline`, which writes the playlist anew where an address has to change.

use url::Url;
use weir_shared::hls::outline::Mapped;

/// Longest path and query of a request, in bytes.
const ADDRESS_BYTES: usize = 4096;

/// Where a playlist is: at this edge and upstream.
pub struct Place<'a> {
    /// The route's prefix at this edge; empty or with a leading slash.
    pub prefix: &'a str,
    /// What the prefix stands for upstream.
    pub base_path: &'a str,
    /// Scheme and authority of those that have the route's objects.
    pub upstreams: Vec<url::Origin>,
    /// Where the playlist was found, after redirects.
    found: Url,
    /// Where viewers have it.
    page: Url,
    /// The directory of the playlist at this edge, if relative addresses mean the same there and upstream.
    directory: Option<String>,
}

impl<'a> Place<'a> {
    /// `page`: path and query at this edge. `None`: one of the addresses can't be read.
    pub fn new(
        prefix: &'a str,
        base_path: &'a str,
        upstreams: impl IntoIterator<Item = &'a str>,
        found: &str,
        page: &str,
    ) -> Option<Self> {
        let mut place = Self {
            prefix,
            base_path,
            upstreams: upstreams
                .into_iter()
                .filter_map(|u| Some(Url::parse(u).ok()?.origin()))
                .collect(),
            found: Url::parse(found).ok()?,
            page: Url::parse("http://edge").ok()?.join(page).ok()?,
            directory: None,
        };
        let here = place.page.path().rsplit_once('/')?.0.to_owned();
        let there = place.address(&place.found)?;
        let there = there.split('?').next()?.rsplit_once('/')?.0;
        place.directory = (here == there).then(|| format!("{here}/"));
        Some(place)
    }

    /// What becomes of a URI.
    pub fn map(&self, uri: &str) -> Mapped {
        if let Some(directory) = self.directory.as_deref().filter(|_| is_plain(uri)) {
            return Mapped {
                name: Some(format!("{directory}{uri}").into()),
                written: None,
            };
        }
        let there = self.found.join(uri).ok();
        let Some(address) = there.and_then(|there| self.address(&there)) else {
            return Mapped::default();
        };
        let read_here = self.page.join(uri).ok();
        let same =
            read_here.is_some_and(|read| read.origin() == self.page.origin() && path_and_query(&read) == address);
        Mapped {
            written: (!same).then(|| address.clone()),
            name: Some(address.into()),
        }
    }

    /// Path and query at this edge of what is upstream. `None`: it is elsewhere.
    fn address(&self, there: &Url) -> Option<String> {
        if !self.upstreams.contains(&there.origin()) {
            return None;
        }
        let rest = there.path().strip_prefix(self.base_path)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let query = there.query().map(|query| format!("?{query}")).unwrap_or_default();
        Some(format!("{}{rest}{query}", self.prefix))
    }
}

fn path_and_query(url: &Url) -> String {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", url.path())
}

/// Whether a URI is a name in the same directory or below it, spelled in the only way it can be: the usual case, and many
/// per playlist.
fn is_plain(uri: &str) -> bool {
    let path = uri.split('?').next().unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._~!$&()*+,;=@-/?".contains(&b);
    !path.is_empty() && uri.bytes().all(plain) && path.split('/').all(|step| !matches!(step, "" | "." | ".."))
}

/// Whether a request's path names something in one way only: no steps back, however spelled, nothing that a server could
/// read as a slash or an end.
pub fn is_straight(path: &str) -> bool {
    let straight = |step: &str| {
        let lower = step.to_ascii_lowercase();
        let dots = lower.replace("%2e", ".");
        !matches!(dots.as_str(), "." | "..") && !["%2f", "%5c", "%00", "\\"].iter().any(|trick| lower.contains(trick))
    };
    path.len() <= ADDRESS_BYTES && path.split('/').all(straight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(found: &str, page: &str, uri: &str) -> (Option<String>, Option<String>) {
        let place = Place::new("/live", "/base", ["http://origin:81"], found, page).unwrap();
        let mapped = place.map(uri);
        (mapped.name.map(|name| name.to_string()), mapped.written)
    }

    fn usual(uri: &str) -> (Option<String>, Option<String>) {
        map("http://origin:81/base/s/v.m3u8", "/live/s/v.m3u8", uri)
    }

    #[test]
    fn what_is_below_the_upstream_has_an_address_here() {
        for (uri, name) in [
            ("p1.m4s", "/live/s/p1.m4s"),
            ("a/p1.m4s?x=1&y", "/live/s/a/p1.m4s?x=1&y"),
            ("./p1.m4s", "/live/s/p1.m4s"),
            ("../t/p1.m4s", "/live/t/p1.m4s"),
            ("p%201.m4s", "/live/s/p%201.m4s"),
        ] {
            assert_eq!(usual(uri), (Some(name.to_owned()), None), "{uri}");
        }
    }

    #[test]
    fn absolute_addresses_of_the_upstream_are_written_anew() {
        for (uri, name) in [
            ("/base/t/p1.m4s", "/live/t/p1.m4s"),
            ("http://origin:81/base/p1.m4s?x", "/live/p1.m4s?x"),
            ("//origin:81/base/p1.m4s", "/live/p1.m4s"),
        ] {
            assert_eq!(usual(uri), (Some(name.to_owned()), Some(name.to_owned())), "{uri}");
        }
    }

    #[test]
    fn what_is_elsewhere_is_left_to_the_viewer() {
        for uri in [
            "https://cdn.example/p1.m4s",
            "http://origin:82/base/p1.m4s",
            "/other/p1.m4s",
            "/based/p1.m4s",
            "../../../p1.m4s",
            "data:text/plain,x",
            "skd://key",
            "",
        ] {
            let (name, written) = usual(uri);
            assert_eq!(written, None, "{uri}");
            assert!(name.is_none() || uri.is_empty(), "{uri}: {name:?}");
        }
    }

    #[test]
    fn after_a_redirect_relative_names_are_those_of_where_it_led() {
        let moved = |uri| map("http://origin:81/base/session7/v.m3u8", "/live/s/v.m3u8", uri);
        let name = Some("/live/session7/p1.m4s".to_owned());
        assert_eq!(moved("p1.m4s"), (name.clone(), name));
    }

    #[test]
    fn a_path_goes_one_way_only() {
        for good in [
            "/",
            "/live/s/v.m3u8",
            "/live/a%20b",
            "/live/a;b=1",
            "/live/.hidden",
            "/live/a..b",
        ] {
            assert!(is_straight(good), "{good}");
        }
        for bad in [
            "/live/../x",
            "/live/%2e%2E/x",
            "/live/.%2e",
            "/live/.",
            "/live/a%2fb",
            "/live/a%5Cb",
            "/live/a\\b",
            "/live/%00",
        ] {
            assert!(!is_straight(bad), "{bad}");
        }
        assert!(!is_straight(&format!("/{}", "x".repeat(ADDRESS_BYTES))));
    }
}
