//! Whole numbers of JSON: `30` and `30.0` are the same integer (JSON Schema, "integer"), so both are taken.

use serde::{Deserialize, Deserializer, de::Error as _};

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u32),
    Decimal(f64),
}

impl Number {
    fn whole<E: serde::de::Error>(self) -> Result<u32, E> {
        match self {
            Self::Whole(n) => Ok(n),
            // Every u32 is exact as f64, so the way back is too.
            Self::Decimal(n) if n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n) => Ok(n as u32),
            Self::Decimal(_) => Err(E::custom("expected a whole number")),
        }
    }
}

/// For `#[serde(deserialize_with)]` on a `u32`.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    optional_whole(deserializer)?.ok_or_else(|| D::Error::custom("expected a whole number"))
}

/// For `#[serde(deserialize_with)]` on an `Option<u32>`.
pub(super) fn optional_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number: Option<Number> =
        Option::deserialize(deserializer).map_err(|_| D::Error::custom("expected a whole number, not below 0"))?;
    number.map(Number::whole).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sample {
        #[serde(deserialize_with = "whole")]
        n: u32,
    }

    #[test]
    fn thirty_is_thirty_however_it_is_written() {
        for (text, wanted) in [
            ("30", Some(30)),
            ("30.0", Some(30)),
            ("3e1", Some(30)),
            ("4294967295", Some(u32::MAX)),
            ("30.5", None),
            ("-1", None),
            ("-0.5", None),
            ("4294967296", None),
            ("1e300", None),
            ("\"30\"", None),
            ("null", None),
        ] {
            let read = serde_json::from_str::<Sample>(&format!("{{\"n\": {text}}}"));
            assert_eq!(read.map(|s| s.n).ok(), wanted, "{text}");
        }
    }
}
