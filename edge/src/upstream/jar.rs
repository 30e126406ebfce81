//! The cookies of one upstream: to it, an edge is one visitor. No viewer's cookie reaches it, none of its own reaches a
//! viewer.
//!
//! Before this: `upstream/client.rs`. Attributes other than `Max-Age=0` (which takes a cookie away) are passed over: a
//! jar belongs to one server, and an edge that forgets one is given another.

use http::{HeaderValue, header::GetAll};
use parking_lot::Mutex;

/// Cookies kept, and the longest one, in bytes.
const MAX_COOKIES: usize = 16;
const COOKIE_BYTES: usize = 4096;

/// Names and values.
#[derive(Debug, Default)]
pub struct Jar(Mutex<Vec<(String, String)>>);

impl Jar {
    /// Takes over what an answer sets.
    pub(super) fn keep(&self, set: GetAll<'_, HeaderValue>) {
        for cookie in set.iter().filter_map(|value| value.to_str().ok()) {
            let mut attributes = cookie.split(';').map(str::trim);
            let Some((name, value)) = attributes.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            let gone = attributes.any(|a| a.eq_ignore_ascii_case("max-age=0"));
            let mut jar = self.0.lock();
            jar.retain(|(known, _)| known != name);
            if !gone && name.len() + value.len() <= COOKIE_BYTES {
                if jar.len() >= MAX_COOKIES {
                    jar.remove(0);
                }
                jar.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// The request header; `None` without cookies.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let jar = self.0.lock();
        let pairs: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty())
            .then(|| HeaderValue::try_from(pairs.join("; ")).ok())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header::SET_COOKIE};

    use super::*;

    fn keep(jar: &Jar, cookie: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(SET_COOKIE, HeaderValue::try_from(cookie).unwrap());
        jar.keep(headers.get_all(SET_COOKIE));
    }

    #[test]
    fn cookies_are_kept_replaced_taken_away_and_bounded() {
        let jar = Jar::default();
        assert_eq!(jar.header(), None);
        keep(&jar, "session=a; Path=/; HttpOnly");
        keep(&jar, "check=1");
        keep(&jar, "session=b");
        assert_eq!(jar.header().unwrap(), "check=1; session=b");
        keep(&jar, "check=; Max-Age=0");
        assert_eq!(jar.header().unwrap(), "session=b");
        keep(&jar, &format!("large={}", "x".repeat(COOKIE_BYTES)));
        keep(&jar, "nonsense");
        assert_eq!(jar.header().unwrap(), "session=b");
        for n in 0..100 {
            keep(&jar, &format!("c{n}=1"));
        }
        assert_eq!(jar.header().unwrap().to_str().unwrap().split("; ").count(), MAX_COOKIES);
    }
}
