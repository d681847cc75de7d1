//! The members of one JSON object, by name.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::domain::lenient_json::{JsonMember, entries, string};

/// The members of an object whose names are an open set.
pub(super) struct JsonMembers<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> JsonMembers<'a> {
    /// Reads an object, or returns `None` for any other value.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        entries(json).map(Self)
    }

    /// Returns the member of this name, the last one if it is doubled. `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> JsonMember<'a> {
        let (_, raw) = self.0.iter().rfind(|(known, _)| known == name)?;
        (raw.get() != "null").then_some(*raw)
    }

    /// Returns the members of these names, in the order of the names.
    pub(super) fn of<'s>(&'s self, names: &'s [&str]) -> impl Iterator<Item = &'a RawValue> + 's {
        names.iter().filter_map(|name| self.get(name))
    }

    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        self.of(names).next().is_some()
    }

    /// Returns the text of this name if it is a string that is not empty.
    pub(super) fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).and_then(string).filter(|text| !text.is_empty())
    }

    /// Returns the kind that the object gives itself. History calls it `cT`.
    pub(super) fn kind(&self) -> Option<Cow<'a, str>> {
        ["type", "cT", "fileType", "contentType", "content_type", "mimeType"]
            .iter()
            .find_map(|name| self.string(name))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, raw)| (&**name, *raw))
    }
}
