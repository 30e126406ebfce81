//! Signed policies, minted as a site's own backend would: HMAC-SHA256 over `<stream key>.<policy as sent>`. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use url::Url;

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
    let signature = sign(secret, key, &policy);
    (policy, signature)
}

/// Whether `signature` belongs to `policy`. For made-up origins only: not hardened.
pub fn is_signed(secret: &str, key: &str, policy: &str, signature: &str) -> bool {
    sign(secret, key, policy) == signature
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

fn sign(secret: &str, key: &str, policy: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(key.as_bytes());
    mac.update(b".");
    mac.update(policy.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
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

    #[test]
    fn a_known_signature() {
        // Python: hmac.new(b"k", b"show.eyJ1cmxfZXhwaXJlIjo0MTAyNDQ0ODAwMDAwfQ", "sha256")
        let policy = "eyJ1cmxfZXhwaXJlIjo0MTAyNDQ0ODAwMDAwfQ";
        assert_eq!(sign("k", "show", policy), "-3PVbX9r70pJry4dEpEs-rnKnMSiW6rjCFCv3Ryfk04");
    }
}
