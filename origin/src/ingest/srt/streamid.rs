//! What a stream id asks for (draft-sharabayko-srt-01, section 3.2.1.3 and appendix B): stream and credentials out of the
//! forms that encoders are given. Pure.
//!
//! | form | example |
//! |---|---|
//! | name | `show`, `show/backup`, `show/2` |
//! | application and name | `app/show` |
//! | with credentials | `app/show?user=anna&pass=secret`, `show?t=token` |
//! | URL | `srt://host:9000/app/show?t=token` |
//! | access control | `#!::r=show,m=publish,u=anna,pass=secret`, `#!::r=app/show,token=token` |
//!
//! Any of them may come percent-encoded.
//!
//! Before this: `srt/handshake.rs`. After this: `ingest/admission.rs`, which knows what a name may be.

use std::borrow::Cow;

use super::reject::Reject;
use crate::ingest::{
    admission::{APP, claims::Claims},
    secret::Secret,
};

/// What an access control id begins with.
const ACCESS_CONTROL: &str = "#!::";
/// Pairs of an access control id that are looked at.
const PAIRS_MAX: usize = 32;

/// What a caller wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// `show`, `show/backup`, `show/2`; empty: the stream that the port belongs to.
    pub name: String,
    pub claims: Claims,
}

impl Wish {
    pub fn parse(id: &[u8]) -> Result<Self, Reject> {
        let id = str::from_utf8(id).map_err(|_| Reject::BadRequest)?;
        let plain = if id.starts_with(ACCESS_CONTROL) {
            Cow::Borrowed(id)
        } else {
            decode(id)?
        };
        match plain.strip_prefix(ACCESS_CONTROL) {
            Some(pairs) => Self::from_pairs(pairs),
            None if plain.starts_with("#!:") => Err(Reject::BadRequest),
            None => Ok(Self::from_path(&plain)),
        }
    }

    fn from_pairs(pairs: &str) -> Result<Self, Reject> {
        let mut wish = Self::default();
        let mut own = Claims::default();
        for pair in pairs.split(',').take(PAIRS_MAX) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match name {
                "r" => wish = Self::from_path(&value),
                "u" => own.user = Some(value.into_owned()),
                "pass" => own.password = Some(Secret::new(value)),
                "token" => own.token = Some(Secret::new(value)),
                "m" if value != "publish" => return Err(Reject::BadMode),
                "t" if value != "stream" => return Err(Reject::BadRequest),
                _ => {}
            }
        }
        // A user name alone proves nothing and spoils nothing: many encoders always send one.
        if own.password.is_none() {
            own.user = None;
        }
        if !own.is_empty() {
            wish.claims = own;
        }
        Ok(wish)
    }

    fn from_path(text: &str) -> Self {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let path = match path.strip_prefix("srt://") {
            Some(rest) => rest.split_once('/').map_or("", |(_host, path)| path),
            None => path,
        };
        let path = path.trim_start_matches('/');
        let name = match path.split_once('/') {
            Some((APP, name)) => name,
            _ => path,
        };
        Self {
            name: name.to_owned(),
            claims: Claims::from_query(query),
        }
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, Reject> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Reject::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(id: &str) -> Result<String, Reject> {
        let wish = Wish::parse(id.as_bytes())?;
        let mut said = wish.name;
        for (mark, text) in [
            ('u', wish.claims.user.as_deref()),
            ('p', wish.claims.password.as_ref().map(Secret::expose)),
            ('t', wish.claims.token.as_ref().map(Secret::expose)),
        ] {
            if let Some(text) = text {
                said.push_str(&format!(" {mark}:{text}"));
            }
        }
        Ok(said)
    }

    #[test]
    fn thirty_ids_that_encoders_send() {
        let table = [
            // Names.
            ("show", "show"),
            ("show/backup", "show/backup"),
            ("show/2", "show/2"),
            ("app/show", "show"),
            ("/app/show", "show"),
            ("app/show/backup", "show/backup"),
            ("app", "app"),
            ("", ""),
            ("live/show", "live/show"),
            // With credentials.
            ("show?t=abc", "show t:abc"),
            ("app/show?user=anna&pass=pw", "show u:anna p:pw"),
            ("show/backup?t=a&x=y", "show/backup t:a"),
            // URLs.
            ("srt://host:9000/app/show", "show"),
            ("srt://host:9000/app/show?t=abc", "show t:abc"),
            ("srt://host:9000/show/2", "show/2"),
            ("srt://host", ""),
            // Access control.
            ("#!::r=show", "show"),
            ("#!::r=show,m=publish", "show"),
            ("#!::m=publish,r=app/show", "show"),
            ("#!::r=show,u=anna,m=publish", "show"),
            ("#!::r=show,u=anna,pass=pw,m=publish", "show u:anna p:pw"),
            ("#!::r=show,token=abc,t=stream", "show t:abc"),
            ("#!::h=host,s=1,r=/app/show?t=abc,m=publish", "show t:abc"),
            ("#!::u=anna,pass=pw,r=show/backup", "show/backup u:anna p:pw"),
            ("#!::m=publish", ""),
            // Percent-encoded.
            ("app%2Fshow", "show"),
            ("show%3Ft%3Dabc", "show t:abc"),
            ("%23%21%3A%3Ar%3Dshow%2Cm%3Dpublish", "show"),
            ("#!::r=app%2Fshow,m=publish", "show"),
            ("srt%3A%2F%2Fhost%3A9000%2Fapp%2Fshow", "show"),
        ];
        assert_eq!(table.len(), 30);
        for (id, wanted) in table {
            assert_eq!(read(id).as_deref(), Ok(wanted), "{id}");
        }
    }

    #[test]
    fn who_wants_to_play_or_makes_no_sense_is_told_so() {
        for (id, reject) in [
            ("#!::r=show,m=request", Reject::BadMode),
            ("#!::r=show,m=bidirectional", Reject::BadMode),
            ("#!::r=show,t=file", Reject::BadRequest),
            ("#!:{r: show}", Reject::BadRequest),
            ("show%FF", Reject::BadRequest),
        ] {
            assert_eq!(read(id), Err(reject), "{id}");
        }
        assert_eq!(Wish::parse(b"\xff\xfe"), Err(Reject::BadRequest));
    }
}
