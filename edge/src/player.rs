//! The player page: `/play/<key>` and what it needs, out of the binary. No third-party calls.
//!
//! Before this: [`crate::handle`]. The page is the same for every key (it reads the key from its own address), so it is
//! one body for all; scripts and styles carry a version in their name and are cached for good. `edge/player/` holds
//! the sources.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response,
    header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS},
};
use weir_shared::{
    id::StreamKey,
    serve::{
        body::Body,
        gzip,
        respond::{self, Asked, IMMUTABLE},
    },
};

/// Everything from here, no inline code; media from `blob:` is what Media Source Extensions play. May be framed by
/// anybody: that is what it is for.
pub const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; \
     connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors *",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const STYLE: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
/// The page names its scripts by version: a minute after an upgrade all viewers have the new one.
const PAGE_LIFETIME: HeaderValue = HeaderValue::from_static("public, max-age=60");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const PERMISSIONS: HeaderValue = HeaderValue::from_static("camera=(), microphone=(), geolocation=()");

/// Something that is served as it is.
#[derive(Debug, Clone)]
pub struct Asset {
    pub content_type: HeaderValue,
    pub cache_control: HeaderValue,
    pub bytes: Bytes,
    gzipped: Bytes,
}

/// A script or style as it is compiled in.
struct Source {
    /// What the page's template calls it.
    placeholder: &'static str,
    stem: &'static str,
    extension: &'static str,
    /// `None`: a hash of the content.
    version: Option<&'static str>,
    content_type: HeaderValue,
    text: &'static str,
}

/// From npm, see `edge/player/vendor/README.md`.
const HLS_JS: &str = "1.7.4";
const PAGE: &str = include_str!("../player/index.html");

fn sources() -> [Source; 4] {
    let own = |placeholder, stem, extension, content_type, text| Source {
        placeholder,
        stem,
        extension,
        version: None,
        content_type,
        text,
    };
    [
        Source {
            placeholder: "{{hls.js}}",
            stem: "hls",
            extension: "min.js",
            version: Some(HLS_JS),
            content_type: SCRIPT,
            text: include_str!("../player/vendor/hls.min.js"),
        },
        own(
            "{{clock.js}}",
            "clock",
            "js",
            SCRIPT,
            include_str!("../player/clock.js"),
        ),
        own(
            "{{player.js}}",
            "player",
            "js",
            SCRIPT,
            include_str!("../player/player.js"),
        ),
        own(
            "{{player.css}}",
            "player",
            "css",
            STYLE,
            include_str!("../player/player.css"),
        ),
    ]
}

struct Assets {
    page: Asset,
    /// File name below `/play/assets/` and what it holds.
    files: Vec<(String, Asset)>,
}

/// Put together when the first viewer asks.
static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let mut page = PAGE.to_owned();
    let mut files = Vec::new();
    for source in sources() {
        let bytes = Bytes::from_static(source.text.as_bytes());
        let version = source.version.map_or_else(|| hash(&bytes), str::to_owned);
        let name = format!("{}-{version}.{}", source.stem, source.extension);
        page = page.replace(source.placeholder, &format!("assets/{name}"));
        files.push((name, Asset::new(source.content_type, IMMUTABLE, bytes)));
    }
    Assets {
        page: Asset::new(HTML, PAGE_LIFETIME, page.into()),
        files,
    }
});

impl Asset {
    fn new(content_type: HeaderValue, cache_control: HeaderValue, bytes: Bytes) -> Self {
        Self {
            content_type,
            cache_control,
            gzipped: gzip::gzip(&bytes),
            bytes,
        }
    }
}

/// FNV-1a of the content, 64 bits: tells versions apart, proves nothing.
fn hash(bytes: &[u8]) -> String {
    let fold = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    format!("{:016x}", bytes.iter().fold(0xCBF2_9CE4_8422_2325, fold))
}

/// The page or one of its files; `None` for any other path.
pub fn asset(path: &str) -> Option<&'static Asset> {
    let rest = path.strip_prefix("/play/")?;
    match rest.strip_prefix("assets/") {
        Some(name) => (ASSETS.files.iter()).find_map(|(file, asset)| (file == name).then_some(asset)),
        None => rest.parse::<StreamKey>().ok().map(|_| &ASSETS.page),
    }
}

/// Answers a request for the player; `None`: the path is none of ours.
pub fn respond(asked: Asked<'_>, path: &str) -> Option<Response<Body>> {
    let asset = asset(path)?;
    let zipped = asked.gzip();
    let bytes = if zipped { &asset.gzipped } else { &asset.bytes };
    let content_type = asset.content_type.clone();
    let mut response = respond::page(asked, content_type, asset.cache_control.clone(), bytes.clone());
    let headers = response.headers_mut();
    if zipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The address may carry a ticket: nobody else is told it.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    headers.insert(PERMISSIONS_POLICY, PERMISSIONS);
    Some(response)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn page() -> String {
        String::from_utf8(asset("/play/show").unwrap().bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_page_names_files_that_are_served_and_cached_for_good() {
        let page = page();
        assert!(!page.contains("{{"), "a placeholder is left");
        let names: Vec<_> = page
            .split("\"assets/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert_eq!(names.len(), 4, "{names:?}");
        for name in names {
            let file = asset(&format!("/play/assets/{name}")).unwrap();
            assert_eq!(file.cache_control, IMMUTABLE);
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_is_inline() {
        let own = sources().into_iter().filter(|source| source.version.is_none());
        for text in own.map(|source| source.text.to_owned()).chain([page()]) {
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("\"//"));
            assert!(
                !text.contains("style=\"") && !text.contains("onclick=\""),
                "the policy forbids inline code"
            );
        }
    }

    #[test]
    fn only_keys_and_known_files_are_answered() {
        for path in [
            "/play/",
            "/play",
            "/play/a/b",
            "/play/a%2fb",
            "/play/<x>",
            "/play/assets/player.js",
            "/player",
        ] {
            assert!(asset(path).is_none(), "{path}");
        }
    }

    #[test]
    fn an_answer_keeps_its_address_to_itself_and_may_be_framed() {
        let mut headers = HeaderMap::new();
        headers.insert("accept-encoding", HeaderValue::from_static("gzip, br"));
        let asked = Asked {
            method: &Method::GET,
            headers: &headers,
        };
        let response = respond(asked, "/play/show").unwrap();
        assert_eq!(response.headers()[REFERRER_POLICY], "no-referrer");
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert!(
            response.headers()[CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("frame-ancestors *")
        );
        assert!(!response.headers().contains_key("x-frame-options"));
        assert!(response.body().len() < page().len() as u64);
    }

    #[test]
    fn the_library_is_the_version_it_says() {
        let hls = include_str!("../player/vendor/hls.min.js");
        assert!(hls.contains(&format!("\"{HLS_JS}\"")));
        assert!(include_str!("../player/vendor/README.md").contains(HLS_JS));
    }
}
