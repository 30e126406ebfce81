//! Signed policies, minted as a site's own backend would ([`weir_shared::playback::ticket`]), each with a field of its own. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use url::Url;
use weir_shared::{directory::PlaybackSecret, playback::ticket};

use crate::moment::Moment;

/// The stream key in a playback URL: the step after `app`, or else the last directory.
pub fn stream_key(url: &Url) -> Option<&str> {
    let steps: Vec<_> = url.path_segments()?.collect();
    let after_app = steps
        .iter()
        .position(|step| *step == "app")
        .and_then(|n| steps.get(n + 1));
    after_app
        .or_else(|| steps.len().checked_sub(2).and_then(|n| steps.get(n)))
        .copied()
}

/// `policy` and `signature` for `key`, good until `expires`. `viewer` makes it one viewer's own.
pub fn mint(secret: &str, key: &str, expires: Moment, viewer: u64) -> (String, String) {
    let policy =
        serde_json::json!({ "url_expire": expires.0 / 1000, "stream_expire": expires.0 / 1000, "viewer": viewer });
    let policy = URL_SAFE_NO_PAD.encode(policy.to_string());
    // A key that no stream can have, or an empty secret: what is refused anyway is sent without a signature.
    let signed = key
        .parse()
        .ok()
        .and_then(|key| ticket::sign(&key, &PlaybackSecret::new(secret), policy.clone()).ok());
    let signature = signed.map(|ticket| ticket.signature).unwrap_or_default();
    (policy, signature)
}

/// Whether `signature` belongs to `policy`, whatever that says: for made-up origins, which know no time.
pub fn is_signed(secret: &str, key: &str, policy: &str, signature: &str) -> bool {
    let secrets = [PlaybackSecret::new(secret)];
    key.parse()
        .is_ok_and(|key| ticket::verify(&key, &secrets, policy, signature).is_ok())
}

/// `url` with a ticket of its own.
pub fn ticketed(url: &Url, secret: &str, expires: Moment, viewer: u64) -> Url {
    let mut url = url.clone();
    let key = stream_key(&url).unwrap_or("").to_owned();
    let (policy, signature) = mint(secret, &key, expires, viewer);
    url.query_pairs_mut()
        .append_pair("policy", &policy)
        .append_pair("signature", &signature);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_signed_for_its_stream_and_its_viewer() {
        let url = Url::parse("http://h/app/show/index.m3u8").unwrap();
        assert_eq!(stream_key(&url), Some("show"));
        let one = ticketed(&url, "secret", Moment(1_795_000_000_000_000), 1);
        let two = ticketed(&url, "secret", Moment(1_795_000_000_000_000), 2);
        assert_ne!(one, two);
        let pair = |name: &str| one.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
        let (policy, signature) = (pair("policy"), pair("signature"));
        assert_eq!(signature.len(), 43);
        assert!(is_signed("secret", "show", &policy, &signature));
        assert!(!is_signed("other", "show", &policy, &signature));
        assert!(!is_signed("secret", "shop", &policy, &signature));
    }
}
