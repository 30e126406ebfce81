//! What the headers of an answer say, as far as rules are about them. Pure.
//!
//! Before this: [`crate::http`], which reads them. After this: [`crate::oracle`].

/// A media type, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MediaType {
    #[default]
    Absent,
    Playlist,
    /// `video/mp4`, `audio/mp4` or `application/mp4`.
    Mp4,
    Other,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coding {
    #[default]
    Identity,
    Gzip,
    Other,
}

/// The facts of one answer's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers {
    /// Whether the request took gzip.
    pub asked_gzip: bool,
    pub media_type: MediaType,
    pub coding: Coding,
    /// `Vary` names Accept-Encoding, or everything.
    pub varies: bool,
    /// `Access-Control-Allow-Origin` is there.
    pub cors: bool,
    /// Scripts may read `Age`.
    pub exposes_age: bool,
    pub length: bool,
    /// `ETag` or `Last-Modified`.
    pub validator: bool,
    /// Seconds.
    pub max_age: Option<u32>,
    /// Seconds, for shared caches.
    pub s_maxage: Option<u32>,
    /// `no-store`, or `private` with `no-cache`: nobody keeps it.
    pub no_store: bool,
    /// Seconds.
    pub age: Option<u32>,
    /// Urgency by RFC 9218.
    pub urgency: Option<u8>,
}

impl Headers {
    pub fn new(asked_gzip: bool) -> Self {
        Self {
            asked_gzip,
            ..Self::default()
        }
    }

    /// Takes one header; those that no rule is about are passed over.
    pub fn take(&mut self, name: &str, value: &str) {
        // Sorted out by length first: this runs for every header of every answer that is judged.
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            3 if is("age") => self.age = value.trim().parse().ok(),
            4 if is("vary") => self.varies = lists(value, "accept-encoding"),
            4 if is("etag") => self.validator = true,
            8 if is("priority") => self.urgency = urgency(value),
            12 if is("content-type") => self.media_type = media_type(value),
            13 if is("cache-control") => self.take_lifetime(value),
            13 if is("last-modified") => self.validator = true,
            14 if is("content-length") => self.length = true,
            16 if is("content-encoding") => {
                self.coding = match value.trim() {
                    gzip if gzip.eq_ignore_ascii_case("gzip") => Coding::Gzip,
                    identity if identity.eq_ignore_ascii_case("identity") => Coding::Identity,
                    _ => Coding::Other,
                }
            }
            27 if is("access-control-allow-origin") => self.cors = !value.trim().is_empty(),
            29 if is("access-control-expose-headers") => self.exposes_age = lists(value, "age"),
            _ => {}
        }
    }

    fn take_lifetime(&mut self, value: &str) {
        for directive in value.split(',').map(str::trim) {
            let seconds = |text: &str| text.trim_matches('"').parse().ok();
            match directive.split_once('=') {
                Some((name, text)) if name.eq_ignore_ascii_case("max-age") => self.max_age = seconds(text),
                Some((name, text)) if name.eq_ignore_ascii_case("s-maxage") => self.s_maxage = seconds(text),
                None if directive.eq_ignore_ascii_case("no-store") => self.no_store = true,
                None if directive.eq_ignore_ascii_case("no-cache") => self.no_store = true,
                _ => {}
            }
        }
    }

    /// How long a shared cache may keep the answer, in seconds; `None` if it is not said.
    pub fn shared_lifetime(&self) -> Option<u32> {
        if self.no_store {
            return Some(0);
        }
        self.s_maxage.or(self.max_age)
    }
}

fn lists(value: &str, wanted: &str) -> bool {
    value
        .split(',')
        .map(str::trim)
        .any(|item| item == "*" || item.eq_ignore_ascii_case(wanted))
}

fn media_type(value: &str) -> MediaType {
    let essence = value.split(';').next().unwrap_or("").trim();
    let is = |known: &str| essence.eq_ignore_ascii_case(known);
    if is("application/vnd.apple.mpegurl") || is("audio/mpegurl") {
        MediaType::Playlist
    } else if is("video/mp4") || is("audio/mp4") || is("application/mp4") {
        MediaType::Mp4
    } else {
        MediaType::Other
    }
}

fn urgency(value: &str) -> Option<u8> {
    let of = |item: &str| item.trim().strip_prefix("u=")?.parse().ok();
    value.split(',').find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new(true);
        lines.iter().for_each(|(name, value)| headers.take(name, value));
        headers
    }

    #[test]
    fn a_good_playlist_answer_is_read_whatever_the_case() {
        let headers = read(&[
            ("Content-Type", "application/vnd.apple.mpegurl; charset=utf-8"),
            ("VARY", "origin, Accept-Encoding"),
            ("content-encoding", "GZIP"),
            ("cache-control", "public, max-age=0, s-maxage=6"),
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "Date, Age"),
            ("priority", "u=1, i"),
            ("age", "3"),
            ("x-other", "y"),
        ]);
        assert_eq!(headers.media_type, MediaType::Playlist);
        assert_eq!(headers.coding, Coding::Gzip);
        assert!(headers.varies && headers.cors && headers.exposes_age);
        assert_eq!((headers.max_age, headers.shared_lifetime()), (Some(0), Some(6)));
        assert_eq!((headers.age, headers.urgency), (Some(3), Some(1)));
    }

    #[test]
    fn what_must_not_be_kept_lives_for_no_time() {
        assert_eq!(read(&[("cache-control", "no-store")]).shared_lifetime(), Some(0));
        assert_eq!(
            read(&[("cache-control", "private, no-cache")]).shared_lifetime(),
            Some(0)
        );
        assert_eq!(read(&[("cache-control", "max-age=x")]).shared_lifetime(), None);
        assert!(!read(&[("vary", "origin")]).varies);
    }
}
