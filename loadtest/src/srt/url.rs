//! `srt://host:port?streamid=…`: where to call, and how. Pure.

use std::str::FromStr;

use url::Url;
use weir_shared::config::Secret;

/// What most encoders take.
const LATENCY_MS: u16 = 120;
/// Bytes of an encryption key.
const KEY_BYTES: usize = 16;
const PASSPHRASE_CHARACTERS: std::ops::RangeInclusive<usize> = 10..=79;

/// Why a URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("an SRT push URL begins with srt:// and names host and port: srt://127.0.0.1:9000")]
    Address,
    #[error("latency is 0 to 65535 milliseconds")]
    Latency,
    #[error("a passphrase has 10 to 79 characters")]
    Passphrase,
    #[error("pbkeylen is 16, 24 or 32")]
    KeyLength,
    #[error("not known in an SRT push URL: {0} (streamid, passphrase, pbkeylen, latency and mode=caller are)")]
    Option(String),
}

/// A parsed push URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishUrl {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub stream_id: Option<String>,
    pub passphrase: Option<Secret>,
    /// Of the encryption key: 16, 24 or 32.
    pub key_bytes: usize,
    pub latency_ms: u16,
}

impl FromStr for PublishUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|_| UrlError::Address)?;
        let (Some(host), Some(port), "srt") = (url.host_str(), url.port(), url.scheme()) else {
            return Err(UrlError::Address);
        };
        let mut parsed = Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            stream_id: None,
            passphrase: None,
            key_bytes: KEY_BYTES,
            latency_ms: LATENCY_MS,
        };
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "streamid" => parsed.stream_id = Some(value.into_owned()),
                "latency" => parsed.latency_ms = value.parse().map_err(|_| UrlError::Latency)?,
                "passphrase" if !PASSPHRASE_CHARACTERS.contains(&value.chars().count()) => {
                    return Err(UrlError::Passphrase);
                }
                "passphrase" => parsed.passphrase = Some(Secret::new(value)),
                "pbkeylen" => {
                    let length = value.parse().ok().filter(|length| matches!(length, 16 | 24 | 32));
                    parsed.key_bytes = length.ok_or(UrlError::KeyLength)?;
                }
                "mode" if value == "caller" => {}
                _ => return Err(UrlError::Option(format!("{name}={value}"))),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_s_url_is_understood() {
        let url = "srt://h:9000?streamid=%23!::r=show,m=publish&passphrase=correct-horse&pbkeylen=32&latency=500";
        let url: PublishUrl = url.parse().unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.latency_ms, url.key_bytes),
            ("h", 9000, 500, 32)
        );
        assert_eq!(url.stream_id.as_deref(), Some("#!::r=show,m=publish"));
        assert_eq!(url.passphrase.unwrap().reveal(), "correct-horse");
        let v6: PublishUrl = "srt://[::1]:9000".parse().unwrap();
        assert_eq!((v6.host.as_str(), v6.stream_id), ("::1", None));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (url, error) in [
            ("rtmp://h:9000/app", UrlError::Address),
            ("srt://h", UrlError::Address),
            ("srt://h:1?latency=65536", UrlError::Latency),
            ("srt://h:1?passphrase=short", UrlError::Passphrase),
            ("srt://h:1?pbkeylen=17", UrlError::KeyLength),
            ("srt://h:1?mode=listener", UrlError::Option("mode=listener".to_owned())),
        ] {
            assert_eq!(url.parse::<PublishUrl>(), Err(error), "{url}");
        }
    }
}
