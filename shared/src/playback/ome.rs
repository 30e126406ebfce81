//! Signed policies in OvenMediaEngine's form: HMAC-SHA1 over the whole address as the viewer was given it, its port
//! written out, its query in order and only the signature left out. Pure.
//!
//! Before this: a query, and the address under which viewers know this edge. After this: [`policy`](super::policy).
//!
//! A proxy in front changes scheme, host and port: operators say which ones were signed. What OvenMediaEngine gets wrong is
//! not copied: every object is checked, masks and IPv6 work, an empty policy is refused.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use super::{
    Invalid, TEXT_MAX,
    policy::{Policy, Times},
};
use crate::directory::PlaybackSecret;

/// Base64url of 20 bytes.
pub const SIGNATURE_LEN: usize = 27;

/// The name of the pair that is left out of what is signed.
const SIGNATURE: &str = "signature";

/// An address as it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedAddress<'a> {
    /// Scheme, host and port, always written out: `https://edge.example.com:443`.
    pub origin: &'a str,
    /// Raw, undecoded.
    pub path: &'a str,
    /// Raw, with the signature in it.
    pub query: &'a str,
}

impl SignedAddress<'_> {
    /// What the signature is made of.
    pub fn text(&self) -> String {
        let mut text = format!("{}{}", self.origin, self.path);
        let kept = self.query.split('&').filter(|pair| name(pair) != SIGNATURE);
        for (n, pair) in kept.enumerate() {
            text.push(if n == 0 { '?' } else { '&' });
            text.push_str(pair);
        }
        text
    }
}

fn name(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// The policy, if one of the stream's secrets signed this address. Compares in constant time.
pub fn verify(
    secrets: &[PlaybackSecret],
    address: SignedAddress<'_>,
    policy: &str,
    signature: &str,
) -> Result<Policy, Invalid> {
    if policy.len() > TEXT_MAX || address.query.len() > 2 * TEXT_MAX || signature.len() != SIGNATURE_LEN {
        return Err(Invalid::Malformed);
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Invalid::Malformed)?;
    let text = address.text();
    let signed = secrets.iter().map(|s| s.reveal().as_bytes()).any(|secret| {
        let mac = Hmac::<Sha1>::new_from_slice(secret).ok().filter(|_| !secret.is_empty());
        mac.is_some_and(|mac| mac.chain_update(&text).verify_slice(&signature).is_ok())
    });
    match signed {
        true => Policy::decode(policy, Times::Milliseconds),
        false => Err(Invalid::Signature),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::Caller;

    const POLICY_2: &str = "eyJ1cmxfZXhwaXJlIjo0MTAyNDQ0ODAwMDAwfQ";
    const NOW: u64 = 1_795_000_000_000;

    struct Vector {
        key: &'static str,
        origin: &'static str,
        path: &'static str,
        /// `{}` stands for the policy.
        query: &'static str,
        policy: String,
        signature: &'static str,
    }

    impl Vector {
        fn check(&self, change: impl FnOnce(&mut Self)) -> Result<Policy, Invalid> {
            let mut vector = Self {
                policy: self.policy.clone(),
                ..*self
            };
            change(&mut vector);
            let query = format!(
                "{}&signature={}",
                vector.query.replace("{}", &vector.policy),
                vector.signature
            );
            let address = SignedAddress {
                origin: vector.origin,
                path: vector.path,
                query: &query,
            };
            verify(
                &[PlaybackSecret::new(vector.key)],
                address,
                &vector.policy,
                vector.signature,
            )
        }
    }

    fn vectors() -> Vec<Vector> {
        let third = r#"{"url_activate":1700000000000,"url_expire":4102444800000,"stream_expire":4102448400000,"allow_ip":"192.168.100.0/24","real_ip":"203.0.113.0/24"}"#;
        let rows = [
            (
                "1kU^b6",
                "ws://192.168.0.100:3333",
                "/app/stream",
                "policy={}",
                "eyJ1cmxfZXhwaXJlIjoxMzk5NzIxNTgxfQ".to_owned(),
                "dvVdBpoxAeCPl94Kt5RoiqLI0YE",
            ),
            (
                "aKq#1kj",
                "https://edge.example.com:443",
                "/app/hkr_abc123/llhls.m3u8",
                "policy={}",
                POLICY_2.to_owned(),
                "hP-XZgyyxflsTb7NfsY9N2lxL8s",
            ),
            (
                "aKq#1kj",
                "https://edge.example.com:443",
                "/app/hkr_abc123/master.m3u8",
                "policy={}",
                URL_SAFE_NO_PAD.encode(third),
                "TkV_cC3rhv3RP-jD61eQgjoLtpw",
            ),
            (
                "ome_is_the_best",
                "http://127.0.0.1:3333",
                "/app/stream/llhls.m3u8",
                "_HLS_legacy=YES&policy={}",
                POLICY_2.to_owned(),
                "vHjf-jLHGoZQwWjUB4VGORcvmBY",
            ),
            (
                "k",
                "https://h:443",
                "/a/s/llhls.m3u8",
                "policy={}",
                "eyJ1cmxfZXhwaXJlIjo0MTAyNDQ0ODAwMDAwLCJ4Ijoifn4_Pz4-In0".to_owned(),
                "tTpOGHLDuUdh7U9yT9Sie-GkKW0",
            ),
        ];
        rows.map(|(key, origin, path, query, policy, signature)| Vector {
            key,
            origin,
            path,
            query,
            policy,
            signature,
        })
        .into()
    }

    #[test]
    fn addresses_signed_for_ovenmediaengine_are_verified() {
        let read: Vec<_> = vectors().iter().map(|vector| vector.check(|_| ()).unwrap()).collect();
        let viewer = Caller {
            peer: "192.168.100.9".parse().unwrap(),
            real: "203.0.113.9".parse().unwrap(),
        };
        let admitted: Vec<_> = read.iter().map(|policy| policy.admits(NOW, viewer)).collect();
        assert_eq!(admitted, [Err(Invalid::Expired), Ok(()), Ok(()), Ok(()), Ok(())]);
        assert_eq!(read[2].stream_expire, Some(4_102_448_400_000));
        let stranger = Caller::peer("8.8.8.8".parse().unwrap());
        assert_eq!(read[2].admits(NOW, stranger), Err(Invalid::Address));
    }

    #[test]
    fn an_empty_policy_is_refused_though_its_signature_is_right() {
        let empty = Vector {
            key: "k",
            origin: "https://h:443",
            path: "/a/s/llhls.m3u8",
            query: "policy={}",
            policy: String::new(),
            signature: "dahfa1MxDsXOLsimK2hKtgaabkE",
        };
        assert_eq!(empty.check(|_| ()), Err(Invalid::Malformed));
        assert_eq!(
            empty.check(|v| v.key = "other"),
            Err(Invalid::Signature),
            "the vector itself is right"
        );
    }

    #[test]
    fn scheme_host_port_path_query_and_secret_are_all_signed() {
        let vector = &vectors()[3];
        for change in [
            (|v| v.origin = "https://127.0.0.1:3333") as fn(&mut Vector),
            |v| v.origin = "http://127.0.0.2:3333",
            |v| v.origin = "http://127.0.0.1",
            |v| v.path = "/app/stream2/llhls.m3u8",
            |v| v.query = "policy={}&_HLS_legacy=YES",
            |v| v.query = "policy={}",
            |v| v.key = "ome_is_the_worst",
            |v| v.policy = "eyJ1cmxfZXhwaXJlIjo5MTAyNDQ0ODAwMDAwfQ".to_owned(),
        ] {
            assert_eq!(vector.check(change), Err(Invalid::Signature));
        }
        assert_eq!(
            vector.check(|v| v.signature = "vHjf-jLHGoZQwWjUB4VGORcvmB"),
            Err(Invalid::Malformed)
        );
        assert!(
            vector.check(|v| v.signature = "vHjf-jLHGoZQwWjUB4VGORcvmBZ").is_err(),
            "spare bits"
        );
    }
}
