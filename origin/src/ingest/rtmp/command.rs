//! What an encoder asks for: AMF0 messages → [`Command`]s and metadata hints. Pure.
//!
//! Before this: `rtmp/amf0.rs`. After this: `rtmp/session.rs`.

use super::amf0::{self, AmfError, Value};
use crate::ingest::{
    Announced,
    language::{Language, Languages},
};

/// Properties of `connect` by which Enhanced RTMP encoders say what they can ("Enhancing NetConnection connect command").
const ENHANCED: [&str; 4] = ["capsEx", "fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap"];

/// A command of an encoder (RTMP 1.0 section 7.2). `transaction` comes back in the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Connect {
        transaction: f64,
        app: String,
        /// The encoder speaks Enhanced RTMP and wants to know whether we do.
        enhanced: bool,
        tc_url: String,
    },
    /// `releaseStream`: answered, means nothing to us.
    ReleaseStream {
        transaction: f64,
    },
    /// `FCPublish`: announces a publish.
    FcPublish {
        transaction: f64,
        name: String,
    },
    CreateStream {
        transaction: f64,
    },
    /// The name is the key, perhaps with a query.
    Publish {
        name: String,
    },
    /// `FCUnpublish`, `closeStream` or `deleteStream`.
    Unpublish,
    Play,
    /// Anything else; answers and status messages among them.
    Other(String),
}

/// Why a command could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Amf(#[from] AmfError),
    #[error("command without a name")]
    NoName,
}

/// Reads a command message. `amf3_wrapped`: message type 17, whose AMF0 follows a zero byte.
pub fn parse(payload: &[u8], amf3_wrapped: bool) -> Result<Command, CommandError> {
    let values = amf0::decode(unwrap(payload, amf3_wrapped))?;
    let name = values.first().and_then(Value::as_str).ok_or(CommandError::NoName)?;
    let transaction = values.get(1).and_then(Value::as_number).unwrap_or(0.0);
    // The command object stands third, arguments follow it.
    let text = |at: usize| values.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let property = |name: &str| {
        let found = values.get(2).and_then(|object| object.get(name)?.as_str());
        found.unwrap_or_default().to_owned()
    };
    Ok(match name {
        "connect" => Command::Connect {
            transaction,
            app: property("app"),
            tc_url: property("tcUrl"),
            enhanced: values
                .get(2)
                .is_some_and(|object| ENHANCED.iter().any(|name| object.get(name).is_some())),
        },
        "releaseStream" => Command::ReleaseStream { transaction },
        "FCPublish" => Command::FcPublish {
            transaction,
            name: text(3),
        },
        "createStream" => Command::CreateStream { transaction },
        "publish" => Command::Publish { name: text(3) },
        "FCUnpublish" | "closeStream" | "deleteStream" => Command::Unpublish,
        "play" | "play2" => Command::Play,
        other => Command::Other(other.chars().take(64).collect()),
    })
}

/// Hints of an `onMetaData` message, with or without `@setDataFrame`. `None`: the message says something else.
pub fn parse_metadata(payload: &[u8], amf3_wrapped: bool) -> Result<Option<Announced>, CommandError> {
    let values = amf0::decode(unwrap(payload, amf3_wrapped))?;
    let mut rest = values.as_slice();
    if let [Value::String(name), after @ ..] = rest
        && name == "@setDataFrame"
    {
        rest = after;
    }
    match rest {
        [Value::String(name), object, ..] if name == "onMetaData" => Ok(Some(announced(object))),
        _ => Ok(None),
    }
}

fn announced(object: &Value) -> Announced {
    let number = |name: &str| {
        object
            .get(name)
            .and_then(Value::as_number)
            .filter(|n| n.is_finite() && *n > 0.0)
    };
    // FFmpeg describes all its tracks at once, so that what it leaves out is not there. Others send their metadata
    // several times, incomplete at first.
    let complete = object
        .get("encoder")
        .and_then(Value::as_str)
        .is_some_and(|encoder| encoder.starts_with("Lavf"));
    let has = |codec: &str, flag: &str| match (object.get(flag), object.get(codec)) {
        (Some(Value::Boolean(has)), _) => Some(*has),
        (_, Some(Value::Number(n))) => Some(*n != 0.0),
        (_, Some(Value::String(name))) => Some(!name.is_empty()),
        _ => complete.then_some(false),
    };
    // Both rates are in kbit/s.
    let bitrate = |name: &str| number(name).map(|kilobits| (kilobits * 1000.0) as u64);
    Announced {
        has_video: has("videocodecid", "hasVideo"),
        has_audio: has("audiocodecid", "hasAudio"),
        frame_rate: number("framerate").or_else(|| number("fps")),
        video_bitrate: bitrate("videodatarate"),
        audio_bitrate: bitrate("audiodatarate"),
        audio_languages: audio_languages(object),
    }
}

/// `language` of the tracks in `audioTrackIdInfoMap` (Enhanced RTMP v2, "Metadata"), whose keys are track numbers.
fn audio_languages(object: &Value) -> Languages {
    let mut languages = Languages::default();
    if let Some(Value::Object(tracks)) = object.get("audioTrackIdInfoMap") {
        for (number, track) in tracks {
            let language = track.get("language").and_then(Value::as_str).and_then(Language::parse);
            if let (Ok(number), Some(language)) = (number.parse(), language) {
                languages.set(number, language);
            }
        }
    }
    languages
}

fn unwrap(payload: &[u8], amf3_wrapped: bool) -> &[u8] {
    match payload {
        [0, rest @ ..] if amf3_wrapped => rest,
        _ => payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(properties: &[(&str, Value)]) -> Value {
        Value::Object(properties.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect())
    }

    #[test]
    fn commands_come_plain_or_wrapped() {
        let plain = amf0::encode(&[
            "publish".into(),
            5.0.into(),
            Value::Null,
            "show?t=1".into(),
            "live".into(),
        ]);
        let wanted = Ok(Command::Publish {
            name: "show?t=1".into(),
        });
        assert_eq!(parse(&plain, false), wanted);
        let wrapped = [&[0], &plain[..]].concat();
        assert_eq!(parse(&wrapped, true), wanted);
        assert_eq!(parse(&amf0::encode(&[1.0.into()]), false), Err(CommandError::NoName));
    }

    #[test]
    fn an_encoder_that_asks_for_enhanced_rtmp_is_heard() {
        for (property, wanted) in [("capsEx", true), ("fourCcList", true), ("flashVer", false)] {
            let connect = object(&[("app", "app".into()), (property, Value::Array(vec!["hvc1".into()]))]);
            let bytes = amf0::encode(&["connect".into(), 1.0.into(), connect]);
            let Ok(Command::Connect { app, enhanced, .. }) = parse(&bytes, false) else {
                panic!("{property}");
            };
            assert_eq!((app.as_str(), enhanced), ("app", wanted), "{property}");
        }
    }

    #[test]
    fn a_command_with_missing_arguments_is_no_trap() {
        for name in ["connect", "publish", "FCPublish", "releaseStream"] {
            assert!(parse(&amf0::encode(&[name.into()]), false).is_ok());
        }
    }

    #[test]
    fn metadata_says_what_it_says_and_no_more() {
        let incomplete = object(&[("videocodecid", 7.0.into()), ("framerate", 29.97.into())]);
        let bytes = amf0::encode(&["@setDataFrame".into(), "onMetaData".into(), incomplete.clone()]);
        let said = parse_metadata(&bytes, false).unwrap().unwrap();
        assert_eq!((said.has_video, said.has_audio), (Some(true), None));
        assert_eq!(said.frame_rate, Some(29.97));
        // Without @setDataFrame as well.
        let bytes = amf0::encode(&["onMetaData".into(), incomplete]);
        assert_eq!(parse_metadata(&bytes, false).unwrap(), Some(said));
        let cue = amf0::encode(&["onCuePoint".into(), Value::Null]);
        assert_eq!(parse_metadata(&cue, false), Ok(None));
    }

    #[test]
    fn audio_tracks_may_have_a_language() {
        let track = |language: &str| object(&[("language", language.into()), ("channels", 2.0.into())]);
        let tracks = [("1", track("de")), ("2", track("\"x")), ("x", track("fr"))];
        let said = announced(&object(&[("audioTrackIdInfoMap", object(&tracks))]));
        let of = |number| {
            said.audio_languages
                .of(number)
                .map(|language| language.as_str().to_owned())
        };
        assert_eq!(
            [of(1).as_deref(), of(2).as_deref(), of(0).as_deref()],
            [Some("de"), None, None]
        );
    }

    #[test]
    fn what_ffmpeg_leaves_out_is_not_there() {
        let said = announced(&object(&[
            ("encoder", "Lavf59.27.100".into()),
            ("audiocodecid", 10.0.into()),
            ("audiodatarate", 128.0.into()),
        ]));
        assert_eq!((said.has_video, said.has_audio), (Some(false), Some(true)));
        assert_eq!(said.audio_bitrate, Some(128_000));
    }
}
