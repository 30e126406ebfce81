//! How long an object of somebody else's server may be kept (RFC 9111 section 4.2). Pure.
//!
//! Before this: an answer by way of a static route. After this: `cache/entry.rs`.

use std::time::Duration;

use http::{HeaderMap, header};

/// What a playlist lists does not change while it is listed (section 6.2.1), whatever its server says of caching: it is
/// kept for at least six target durations of 10 s (rule HT-13).
const LISTED: Duration = Duration::from_secs(60);
/// What nobody vouches for and whose server says nothing.
const UNTOLD: Duration = Duration::from_secs(1);
/// Names are used again some day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Zero: only those who ask at the same time share it.
pub(super) fn lifetime(headers: &HeaderMap, listed: bool) -> Duration {
    let told = told(headers);
    if listed {
        return told.unwrap_or(LISTED).clamp(LISTED, LONGEST);
    }
    // An answer that depends on who asks is not kept for others, unless it depends on the encoding only: one was asked for.
    let varies = headers.get_all(header::VARY).iter().any(|vary| {
        vary.to_str().is_ok_and(|names| {
            let mut names = names.split(',').map(str::trim);
            names.any(|name| !name.eq_ignore_ascii_case("accept-encoding") && !name.eq_ignore_ascii_case("origin"))
        })
    });
    if varies || headers.contains_key(header::SET_COOKIE) {
        return Duration::ZERO;
    }
    told.unwrap_or(UNTOLD).min(LONGEST)
}

/// What the server says, as a shared cache reads it; its own `Age` is taken off.
fn told(headers: &HeaderMap) -> Option<Duration> {
    let (mut shared, mut private) = (None, None);
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',').map(str::trim) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = || value.trim_matches('"').parse::<u64>().ok();
            match name.to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "private" => return Some(Duration::ZERO),
                "s-maxage" => shared = seconds(),
                "max-age" => private = seconds(),
                _ => {}
            }
        }
    }
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok());
    let age = age.and_then(|age| age.parse::<u64>().ok()).unwrap_or(0);
    let seconds = shared.or(private)?;
    Some(Duration::from_secs(seconds.saturating_sub(age)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn seconds(listed: bool, lines: &[(&'static str, &'static str)]) -> u64 {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        lifetime(&headers, listed).as_secs()
    }

    #[test]
    fn what_is_listed_is_kept_whatever_its_server_says() {
        for said in ["no-store", "private, no-cache", "max-age=0", "nonsense"] {
            assert_eq!(seconds(true, &[("cache-control", said)]), 60, "{said}");
        }
        assert_eq!(seconds(true, &[("cache-control", "max-age=3600")]), 3600);
        assert_eq!(seconds(true, &[("cache-control", "max-age=99999999999")]), 86400);
    }

    #[test]
    fn of_the_rest_its_server_decides() {
        assert_eq!(seconds(false, &[]), 1);
        for (said, expected) in [
            ("max-age=5", 5),
            ("max-age=5, s-maxage=\"9\"", 9),
            ("public, MAX-AGE=5", 5),
            ("no-store, max-age=5", 0),
            ("private", 0),
            ("max-age=x", 1),
        ] {
            assert_eq!(seconds(false, &[("cache-control", said)]), expected, "{said}");
        }
        let aged = [("cache-control", "max-age=9"), ("age", "4")];
        assert_eq!(seconds(false, &aged), 5);
        for (name, value) in [("vary", "cookie"), ("vary", "*"), ("set-cookie", "a=1")] {
            assert_eq!(
                seconds(false, &[("cache-control", "max-age=9"), (name, value)]),
                0,
                "{name}: {value}"
            );
        }
        assert_eq!(
            seconds(
                false,
                &[("cache-control", "max-age=9"), ("vary", "Origin, Accept-Encoding")]
            ),
            9
        );
    }
}
