//! What an encoder shows of itself: queries and userinfo → [`Claims`]. Pure.
//!
//! Values are taken as they are: `+`, `/` and `=` are sent raw, and nothing that we hand out needs percent signs.
//!
//! Before this: `rtmp/session.rs`. After this: `admission/judge.rs`.

use weir_shared::id::StreamKey;

use crate::ingest::{Refusal, Slot, secret::Secret};

/// Longest application name, publish name or tcUrl that is looked at, in bytes.
pub const TEXT_MAX: usize = 2048;
/// Pairs of a query that are looked at.
const PAIRS_MAX: usize = 32;
/// The application of every push: `rtmp://host/app`.
pub const APP: &str = "app";
/// The application that never asks for a password at connect: for encoders with credentials in the key.
pub const QUIET_APP: &str = "key";
/// An instance name that stands for none.
const DEFAULT_INSTANCE: &str = "_definst_";
/// Highest number of a publish: `<key>/1` to `<key>/16`.
pub const VARIANT_MAX: u8 = 16;

/// Everything said in one place. All `None`: nothing was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub token: Option<Secret>,
}

impl Claims {
    pub fn from_query(query: &str) -> Self {
        let pairs = Pairs(query);
        let secret = |name| pairs.get(name).map(Secret::new);
        Self {
            user: pairs.get("user").map(str::to_owned),
            password: secret("pass"),
            token: secret("t"),
        }
    }

    /// `rtmp://user:pass@host/…`.
    pub fn from_url(url: &str) -> Self {
        let userinfo = || {
            let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
            authority.rsplit_once('@')?.0.split_once(':')
        };
        match userinfo() {
            Some((user, password)) => Self {
                user: Some(user.to_owned()),
                password: Some(Secret::new(password)),
                token: None,
            },
            None => Self::default(),
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.user.is_none() && self.password.is_none() && self.token.is_none()
    }
}

/// `a=1&b=2`.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a>(pub(super) &'a str);

impl<'a> Pairs<'a> {
    /// The first value of this name.
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.0.split('&').take(PAIRS_MAX);
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The query without what only we may know: for a webhook.
    pub(super) fn without_secrets(self) -> String {
        const OURS: [&str; 5] = ["pass", "response", "challenge", "opaque", "authmod"];
        let kept: Vec<_> = self
            .iter()
            .filter(|(name, _)| !OURS.contains(name) && !name.is_empty())
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        kept.join("&")
    }
}

/// A `connect` command's application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct App {
    /// [`QUIET_APP`] and not [`APP`].
    pub(super) quiet: bool,
    /// `app/<instance>`: the key, where the publish name is only a number.
    pub(super) instance: Option<String>,
    pub(super) query: String,
}

impl App {
    pub(super) fn parse(app: &str) -> Result<Self, Refusal> {
        let (path, query) = split_query(bounded(app)?);
        let path = path.trim_matches('/');
        let (name, instance) = path.split_once('/').unwrap_or((path, ""));
        let quiet = match name {
            APP => false,
            QUIET_APP => true,
            _ => return Err(Refusal::UnknownApp),
        };
        let instance = (!instance.is_empty() && instance != DEFAULT_INSTANCE).then(|| instance.to_owned());
        Ok(Self {
            quiet,
            instance,
            query: query.to_owned(),
        })
    }
}

/// What a publish name asks for: `<key>`, `<key>/backup`, `<key>/2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) key: StreamKey,
    /// `<key>/backup` or `<key>/primary`; credentials that open one slot only go first.
    pub(super) slot: Option<Slot>,
    /// `<key>/1`, `<key>/2`, …: one of several publishes of the stream.
    pub(super) variant: Option<u8>,
    pub(super) query: String,
}

impl Name {
    /// `context`: the key that the connection stands for, by its application's instance or its port. The publish name may
    /// then be just `2` or `backup`.
    pub(super) fn parse(text: &str, instance: Option<&str>, own: Option<&StreamKey>) -> Result<Self, Refusal> {
        let (path, query) = split_query(bounded(text)?);
        let path = path.trim_end_matches('/');
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let by_port = own.filter(|own| own.as_str() != first).map(StreamKey::as_str);
        let (key, suffix) = match instance.or(by_port) {
            Some(key) if rest.is_empty() && Suffix::parse(first).is_some() => (key, first),
            // `app/<key>` with the key once more as the name.
            Some(key) if instance.is_some() && key != first => return Err(Refusal::BadName),
            _ => (first, rest),
        };
        let key = key.parse().map_err(|_| Refusal::BadName)?;
        let (slot, variant) = match Suffix::parse(suffix) {
            _ if suffix.is_empty() => (None, None),
            Some(Suffix::Slot(slot)) => (Some(slot), None),
            Some(Suffix::Variant(number)) => (None, Some(number)),
            None => return Err(Refusal::BadName),
        };
        Ok(Self {
            key,
            slot,
            variant,
            query: query.to_owned(),
        })
    }
}

enum Suffix {
    Slot(Slot),
    Variant(u8),
}

impl Suffix {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "primary" => Some(Self::Slot(Slot::Primary)),
            "backup" => Some(Self::Slot(Slot::Backup)),
            number => {
                let canonical = !number.starts_with(['0', '+']);
                let number = number.parse().ok().filter(|n| (1..=VARIANT_MAX).contains(n));
                number.filter(|_| canonical).map(Self::Variant)
            }
        }
    }
}

fn bounded(text: &str) -> Result<&str, Refusal> {
    if text.len() <= TEXT_MAX {
        Ok(text)
    } else {
        Err(Refusal::BadName)
    }
}

/// What stands before the first `?`, and what after it.
fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_user_password_and_token_raw() {
        let claims = Claims::from_query("user=anna&pass=a+b/c==&t=&x");
        assert_eq!(claims.user.as_deref(), Some("anna"));
        assert_eq!(claims.password.unwrap().expose(), "a+b/c==");
        assert_eq!(claims.token.unwrap().expose(), "");
        assert!(Claims::from_query("").is_empty());
        assert!(Claims::from_query("utm_source=x").is_empty());
    }

    #[test]
    fn userinfo_stands_before_the_host_and_nowhere_else() {
        let claims = Claims::from_url("rtmp://anna:pa:ss@host:1935/app");
        assert_eq!(claims.user.as_deref(), Some("anna"));
        assert_eq!(claims.password.unwrap().expose(), "pa:ss");
        for url in [
            "rtmp://host/app",
            "rtmp://host/app?x=a:b@c",
            "anna:pass@host",
            "rtmp://anna@host/app",
            "",
        ] {
            assert!(Claims::from_url(url).is_empty(), "{url}");
        }
    }

    #[test]
    fn the_application_is_app_or_key_however_it_is_dressed() {
        for text in ["app", "/app", "app/", "app/?t=1", "app?t=1", "app/_definst_"] {
            let app = App::parse(text).unwrap();
            assert_eq!((app.quiet, app.instance), (false, None), "{text}");
        }
        assert!(App::parse("key?x=y").unwrap().quiet);
        assert_eq!(App::parse("app/show").unwrap().instance.as_deref(), Some("show"));
        for text in ["", "live", "App", "apps", "?app"] {
            assert_eq!(App::parse(text), Err(Refusal::UnknownApp), "{text}");
        }
    }

    #[test]
    fn names_carry_slots_numbers_and_queries() {
        let own: StreamKey = "show".parse().unwrap();
        let read = |text, instance, own| {
            Name::parse(text, instance, own).map(|name| (name.key.as_str().to_owned(), name.slot, name.variant))
        };
        let show = |slot, variant| Ok(("show".to_owned(), slot, variant));
        let long = "x".repeat(3000);
        assert_eq!(read("show", None, None), show(None, None));
        assert_eq!(read("show/", None, None), show(None, None));
        assert_eq!(read("show/backup?t=1", None, None), show(Some(Slot::Backup), None));
        assert_eq!(read("show/2", None, None), show(None, Some(2)));
        // A bare number is a key of its own, unless the connection says which stream it is about.
        assert_eq!(read("2", None, None).unwrap().0, "2");
        assert_eq!(read("2", Some("show"), None), show(None, Some(2)));
        assert_eq!(read("2", None, Some(&own)), show(None, Some(2)));
        assert_eq!(read("show/2", None, Some(&own)), show(None, Some(2)));
        assert_eq!(read("other", None, Some(&own)).unwrap().0, "other");
        for text in ["", "?t=1", "show/17", "show/02", "show/x", "show/1/2", "a b", &long] {
            assert_eq!(read(text, None, None), Err(Refusal::BadName), "{text}");
        }
        assert_eq!(read("other", Some("show"), None), Err(Refusal::BadName));
    }

    #[test]
    fn a_webhook_sees_no_password() {
        let query = "user=anna&pass=opensesame&lang=de&response=r&opaque=o&challenge=c&authmod=adobe&t=x";
        assert_eq!(Pairs(query).without_secrets(), "user=anna&lang=de&t=x");
    }
}
