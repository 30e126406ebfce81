//! What callers send about a stream, checked all at once.
//!
//! The limits stand in the schema as well, so that a client generated from the OpenAPI document knows them.

use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use weir_shared::id::StreamKey;

use super::problem::{FieldError, Problem};
use crate::control::{
    model::{
        DVR_SECONDS_MAX, DVR_SECONDS_MIN, METADATA_BYTES, NAME_CHARS, OnRotate, Protocol, Quality, RecordType,
        Settings, URI_CHARS,
    },
    number::optional_whole,
    service::{NewStream, Patch},
};

/// What may be set. Left out or null: the default when creating, unchanged when patching; null clears `uri` and
/// `clientUserId`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct StreamSettings {
    #[schema(max_length = 200, pattern = "^[^\\u0000]*$")]
    pub name: Option<String>,
    /// The stream's public name; made up when left out. It can't be changed later.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-]+$")]
    pub stream_key: Option<String>,
    #[schema(max_items = 4)]
    pub protocols: Option<Vec<Protocol>>,
    /// Renditions to transcode to; empty: the broadcaster's own picture only.
    #[schema(max_items = 5)]
    pub qualities: Option<Vec<Quality>>,
    pub dvr_enabled: Option<bool>,
    /// Seconds of the past that stay seekable. The project's plan may allow less.
    #[serde(deserialize_with = "optional_whole")]
    #[schema(value_type = Option<u32>, minimum = 30, maximum = 86400)]
    pub dvr_duration: Option<u32>,
    pub vod_enabled: Option<bool>,
    pub record_type: Option<RecordType>,
    /// Whether viewers need a signed address.
    pub signed_playback: Option<bool>,
    /// Whether to let publishers in; false also cuts one that is connected.
    pub active: Option<bool>,
    /// Whether broadcasts start unseen, until `go-live`.
    pub backstage: Option<bool>,
    pub on_rotate: Option<OnRotate>,
    /// Let whoever knows the key push, without a password or a token. Viewers know the key: for tests, and behind a webhook
    /// that has a say.
    pub allow_key_only: Option<bool>,
    pub pull: Option<bool>,
    /// What to pull: an HLS, RTMP or SRT address.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 2048, pattern = "^(https?|rtmps?|srt)://[!-~]+$")]
    pub uri: Option<Option<String>>,
    /// Your own name for whoever owns the stream.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 200, pattern = "^[^\\u0000]*$")]
    pub client_user_id: Option<Option<String>>,
    /// Whatever you want to keep with the stream: at most 64 KiB of JSON. Replaced as a whole.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl StreamSettings {
    /// A stream to create.
    pub(super) fn create(self) -> Result<NewStream, Problem> {
        self.check()?;
        let key = self.stream_key.as_deref().map(str::parse::<StreamKey>).transpose();
        let key = key.map_err(|error| Problem::invalid(vec![FieldError::new("streamKey", &error.to_string())]))?;
        Ok(NewStream {
            key,
            active: self.active.unwrap_or(true),
            backstage: self.backstage.unwrap_or(false),
            settings: self.over(&Settings::default()),
        })
    }

    /// A change, judged in itself; against the stream it is judged later.
    pub(super) fn patch(self) -> Result<Self, Problem> {
        self.check()?;
        Ok(self)
    }

    /// This change, for a stream with these settings.
    pub(super) fn patch_of(&self, settings: &Settings) -> Patch {
        Patch {
            settings: Some(self.clone().over(settings)),
            active: self.active,
            backstage: self.backstage,
        }
    }

    fn over(self, base: &Settings) -> Settings {
        let base = base.clone();
        Settings {
            name: self.name.unwrap_or(base.name),
            protocols: self.protocols.map_or(base.protocols, distinct),
            qualities: self.qualities.map_or(base.qualities, distinct),
            dvr_enabled: self.dvr_enabled.unwrap_or(base.dvr_enabled),
            dvr_duration: self.dvr_duration.unwrap_or(base.dvr_duration),
            vod_enabled: self.vod_enabled.unwrap_or(base.vod_enabled),
            record_type: self.record_type.unwrap_or(base.record_type),
            signed_playback: self.signed_playback.unwrap_or(base.signed_playback),
            pull: self.pull.unwrap_or(base.pull),
            uri: self.uri.unwrap_or(base.uri),
            client_user_id: self.client_user_id.unwrap_or(base.client_user_id),
            metadata: self.metadata.unwrap_or(base.metadata),
            on_rotate: self.on_rotate.unwrap_or(base.on_rotate),
            allow_key_only: self.allow_key_only.unwrap_or(base.allow_key_only),
        }
    }

    fn check(&self) -> Result<(), Problem> {
        let mut wrong = Vec::new();
        let mut expect = |holds: bool, field: &str, expected: &str| {
            if !holds {
                wrong.push(FieldError::new(field, expected));
            }
        };
        let user = self.client_user_id.as_ref().and_then(Option::as_ref);
        for (field, text) in [("name", self.name.as_ref()), ("clientUserId", user)] {
            expect(
                text.is_none_or(|t| t.chars().count() <= NAME_CHARS && !t.contains('\0')),
                field,
                "at most 200 characters, none of them NUL",
            );
        }
        expect(
            self.stream_key
                .as_ref()
                .is_none_or(|key| key.parse::<StreamKey>().is_ok()),
            "streamKey",
            "1 to 128 characters of A-Z, a-z, 0-9, '_' and '-'",
        );
        expect(
            self.protocols.as_ref().is_none_or(|list| list.len() <= 4),
            "protocols",
            "at most 4 items",
        );
        expect(
            self.qualities.as_ref().is_none_or(|list| list.len() <= 5),
            "qualities",
            "at most 5 items",
        );
        expect(
            self.dvr_duration
                .is_none_or(|s| (DVR_SECONDS_MIN..=DVR_SECONDS_MAX).contains(&s)),
            "dvrDuration",
            "30 to 86400 seconds",
        );
        expect(
            self.uri
                .as_ref()
                .and_then(Option::as_ref)
                .is_none_or(|uri| is_pull_address(uri)),
            "uri",
            "an address that begins with http://, https://, rtmp://, rtmps:// or srt://, of at most 2048 printable ASCII \
             characters",
        );
        if !wrong.is_empty() {
            return Err(Problem::invalid(wrong));
        }
        let metadata = self
            .metadata
            .as_ref()
            .map_or(0, |map| serde_json::to_string(map).map_or(0, |t| t.len()));
        match metadata > METADATA_BYTES {
            true => Err(Problem::field_too_large("metadata", METADATA_BYTES)),
            false => Ok(()),
        }
    }
}

fn distinct<T: PartialEq>(list: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(list.len());
    for item in list {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn is_pull_address(uri: &str) -> bool {
    let schemes = ["http://", "https://", "rtmp://", "rtmps://", "srt://"];
    let rest = schemes.iter().find_map(|scheme| uri.strip_prefix(scheme));
    uri.len() <= URI_CHARS && rest.is_some_and(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wrong_fields_are_told_at_once() {
        let body: StreamSettings =
            serde_json::from_str(r#"{"name": "a\u0000", "dvrDuration": 29, "uri": "file:///etc/passwd"}"#).unwrap();
        let problem = body.create().unwrap_err();
        let fields: Vec<_> = problem.errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!((problem.status, fields), (422, vec!["name", "dvrDuration", "uri"]));
    }

    #[test]
    fn null_clears_and_absence_keeps() {
        let base = Settings {
            uri: Some("srt://a".into()),
            client_user_id: Some("anna".into()),
            ..Settings::default()
        };
        let body: StreamSettings = serde_json::from_str(r#"{"uri": null, "name": null}"#).unwrap();
        let after = body.over(&base);
        assert_eq!((after.uri, after.client_user_id.as_deref()), (None, Some("anna")));
    }

    #[test]
    fn metadata_over_64_kib_is_too_large() {
        let body = StreamSettings {
            metadata: Some(
                [("a".to_owned(), "x".repeat(METADATA_BYTES).into())]
                    .into_iter()
                    .collect(),
            ),
            ..StreamSettings::default()
        };
        assert_eq!(body.create().unwrap_err().status, 413);
    }
}
