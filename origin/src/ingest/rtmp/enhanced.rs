//! What we can do of Enhanced RTMP, as the answer to `connect` says it ("Enhancing NetConnection connect command"). Pure.
//!
//! Used by `rtmp/reply.rs`; the abilities themselves are in `ingest/flv.rs`.

use super::amf0::Value;
use crate::ingest::flv;

/// FourCcInfoMask: taken from the encoder and passed on.
const CAN_FORWARD: f64 = 4.0;
/// CapsExMask: several tracks, modifiers, and the nanosecond modifier. Not: being told to reconnect.
const CAPS_EX: f64 = (0x02 | 0x04 | 0x08) as f64;

/// Properties for the server's object, by both the old list and the newer maps: clients know one or the other.
pub(super) fn capabilities() -> Vec<(String, Value)> {
    let map = |codecs: &[&str]| {
        let codecs = codecs.iter().map(|codec| ((*codec).to_owned(), CAN_FORWARD.into()));
        Value::Object(codecs.collect())
    };
    let every = flv::VIDEO_CODECS.iter().chain(&flv::AUDIO_CODECS);
    vec![
        (
            "fourCcList".to_owned(),
            Value::Array(every.map(|codec| (*codec).into()).collect()),
        ),
        ("videoFourCcInfoMap".to_owned(), map(&flv::VIDEO_CODECS)),
        ("audioFourCcInfoMap".to_owned(), map(&flv::AUDIO_CODECS)),
        ("capsEx".to_owned(), CAPS_EX.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_told_in_both_forms() {
        let told = Value::Object(capabilities());
        let Some(Value::Array(list)) = told.get("fourCcList") else {
            panic!("{told:?}");
        };
        assert_eq!(list.len(), 5);
        assert_eq!(
            told.get("videoFourCcInfoMap")
                .and_then(|map| map.get("hvc1")?.as_number()),
            Some(4.0)
        );
        assert_eq!(
            told.get("audioFourCcInfoMap")
                .and_then(|map| map.get("Opus")?.as_number()),
            Some(4.0)
        );
        assert_eq!(told.get("capsEx").and_then(Value::as_number), Some(14.0));
    }
}
