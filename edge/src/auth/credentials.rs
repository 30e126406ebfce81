//! What a request says for itself: a ticket in its path, or a signature in its query. Pure.
//!
//! Before this: `target.rs`, and the raw query. After this: `verify.rs`.

use weir_shared::playback::Invalid;

use crate::target::Target;

const POLICY: &str = "policy";
const SIGNATURE: &str = "signature";
const TOKEN: &str = "token";

/// A signature in a query, as it was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    Policy { policy: &'a str, signature: &'a str },
    Token(&'a str),
}

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Given<'a> {
    /// A path segment. It counts alone: whatever stands in the query, too.
    Session(&'a str),
    Query(Credentials<'a>),
    Nothing,
}

impl<'a> Credentials<'a> {
    /// Reads them. Two of a kind, or two kinds, are none: which of them would be checked and which be used?
    pub(super) fn of(target: &'a Target, query: Option<&'a str>) -> Result<Given<'a>, Invalid> {
        if let Some(ticket) = target.ticket() {
            return Ok(Given::Session(ticket.as_str()));
        }
        let (mut policy, mut signature, mut token) = (None, None, None);
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                POLICY => &mut policy,
                SIGNATURE => &mut signature,
                TOKEN => &mut token,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(Invalid::Malformed);
            }
        }
        match (policy, signature, token) {
            (None, None, None) => Ok(Given::Nothing),
            (Some(policy), Some(signature), None) => Ok(Given::Query(Self::Policy { policy, signature })),
            (None, None, Some(token)) => Ok(Given::Query(Self::Token(token))),
            _ => Err(Invalid::Malformed),
        }
    }
}

/// The rest of a query, as it was. `None`: nothing is left.
pub(super) fn without_credentials(query: Option<&str>) -> Option<String> {
    let kept = query?.split('&').filter(|pair| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        !pair.is_empty() && ![POLICY, SIGNATURE, TOKEN].contains(&name)
    });
    let kept: Vec<_> = kept.collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_alone_and_doubles_not_at_all() {
        let plain = Target::parse("/app/show/d/video.m3u8").unwrap();
        let ticketed = Target::parse("/app/show/~t/d/video.m3u8").unwrap();
        let read = |query| Credentials::of(&plain, query);
        let pair = Credentials::Policy {
            policy: "p",
            signature: "s",
        };
        assert!(read(None) == Ok(Given::Nothing));
        assert!(read(Some("_HLS_msn=1&xpolicy=1")) == Ok(Given::Nothing));
        assert!(read(Some("a&policy=p&_HLS_msn=1&signature=s")) == Ok(Given::Query(pair)));
        assert!(read(Some("token=x")) == Ok(Given::Query(Credentials::Token("x"))));
        for bad in [
            "policy=p",
            "signature=s",
            "policy=p&policy=p&signature=s",
            "policy=p&signature=s&token=x",
            "token=x&token=x",
        ] {
            assert!(read(Some(bad)) == Err(Invalid::Malformed), "{bad}");
        }
        let given = Credentials::of(&ticketed, Some("policy=p&signature=s"));
        assert!(given == Ok(Given::Session("t")));
    }

    #[test]
    fn directives_outlive_the_credentials() {
        let rest = |query| without_credentials(Some(query));
        let kept = rest("_HLS_msn=7&policy=p&_HLS_part=1&signature=s");
        assert_eq!(kept.as_deref(), Some("_HLS_msn=7&_HLS_part=1"));
        assert_eq!(rest("token=x"), None);
        assert_eq!(rest(""), None);
    }
}
