//! Which events an endpoint wants.
//!
//! Pure. Before this: `api_webhooks.rs`. After this: `delivery/outbox.rs`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use super::Kind;

/// Which events an endpoint wants, as one entry of its list: `*`, a group like `stream.*`, or one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilterEntry(String);

/// A filter entry that matches no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected *, stream.*, broadcasting.*, recording.* or the type of an event")]
pub struct BadFilter;

impl FilterEntry {
    fn matches(&self, kind: Kind) -> bool {
        match self.0.strip_suffix('*') {
            Some(group) => kind.as_str().starts_with(group),
            None => self.0 == kind.as_str(),
        }
    }

    /// Every entry there is.
    fn all() -> Vec<String> {
        let groups = Kind::ALL
            .iter()
            .filter_map(|kind| Some(format!("{}.*", kind.as_str().split_once('.')?.0)));
        let mut all = vec!["*".to_owned()];
        for group in groups {
            if !all.contains(&group) {
                all.push(group);
            }
        }
        all.extend(Kind::ALL.iter().map(|kind| kind.as_str().to_owned()));
        all
    }
}

impl FromStr for FilterEntry {
    type Err = BadFilter;
    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let known = Self::all().iter().any(|entry| entry == text);
        known.then(|| Self(text.to_owned())).ok_or(BadFilter)
    }
}

impl TryFrom<String> for FilterEntry {
    type Error = BadFilter;
    fn try_from(text: String) -> Result<Self, BadFilter> {
        text.parse()
    }
}

impl From<FilterEntry> for String {
    fn from(entry: FilterEntry) -> Self {
        entry.0
    }
}

impl PartialSchema for FilterEntry {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("All events, a group of them, or one type."))
            .enum_values(Some(Self::all()))
            .into()
    }
}

impl ToSchema for FilterEntry {
    fn name() -> std::borrow::Cow<'static, str> {
        "EventFilter".into()
    }
}

/// The events an endpoint wants: those that match any entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Vec<FilterEntry>);

impl Filter {
    /// Every event, those included that later versions add.
    pub fn all() -> Self {
        Self(vec![FilterEntry("*".to_owned())])
    }

    /// Repetitions count once.
    pub fn new(entries: impl IntoIterator<Item = FilterEntry>) -> Self {
        let mut kept = Vec::new();
        for entry in entries {
            if !kept.contains(&entry) {
                kept.push(entry);
            }
        }
        Self(kept)
    }

    pub fn wants(&self, kind: Kind) -> bool {
        self.0.iter().any(|entry| entry.matches(kind))
    }

    pub fn entries(&self) -> &[FilterEntry] {
        &self.0
    }

    /// As the store keeps it: entries have no spaces.
    pub fn to_text(&self) -> String {
        let entries: Vec<_> = self.0.iter().map(|entry| entry.0.as_str()).collect();
        entries.join(" ")
    }

    /// What [`Filter::to_text`] wrote. Entries that this program does not know match nothing.
    pub fn from_text(text: &str) -> Self {
        Self(text.split(' ').filter_map(|entry| entry.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_all_a_group_or_one_kind() {
        let some = Filter::new(["recording.*", "stream.live", "stream.live"].map(|e| e.parse().unwrap()));
        assert!(some.wants(Kind::RecordingFailed) && some.wants(Kind::StreamLive));
        assert!(!some.wants(Kind::StreamEnded));
        assert_eq!(some.to_text(), "recording.* stream.live");
        assert_eq!(Filter::from_text(&some.to_text()), some);
        assert!(Filter::all().wants(Kind::BroadcastingFailed));
        for bad in [
            "",
            "stream",
            "stream*",
            "strea.*",
            ".*",
            "**",
            "stream.live ",
            "Stream.live",
        ] {
            assert_eq!(bad.parse::<FilterEntry>(), Err(BadFilter), "{bad:?}");
        }
    }
}
