//! JSON objects that the bridge forwards, with their text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::InvalidMessage;

/// The largest `customData` or `metaTags`, in bytes of JSON. A frame repeats `customData` in three places.
pub const CONTEXT_MAX_BYTES: usize = 64 * 1024;

/// A JSON object that the bridge forwards unread.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct JsonObject(Box<RawValue>);

impl JsonObject {
    /// Checks that the text is an object.
    ///
    /// # Errors
    /// [`InvalidMessage::NotAnObject`].
    pub fn new(raw: Box<RawValue>) -> Result<Self, InvalidMessage> {
        if raw.get().starts_with('{') { Ok(Self(raw)) } else { Err(InvalidMessage::NotAnObject) }
    }

    /// Returns the object's original text.
    pub fn raw(&self) -> &RawValue {
        &self.0
    }

    /// Returns the object with the members of `defaults` that it lacks. Its own members keep their text.
    pub fn with_defaults(&self, defaults: &Self) -> Cow<'_, RawValue> {
        let (own, added) = (self.0.get(), defaults.0.get());
        // Both are objects, so reading their keys fails for no text.
        let known: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(own).unwrap_or_default();
        let mut added: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(added).unwrap_or_default();
        added.retain(|key, _| !known.contains_key(key));
        if added.is_empty() {
            return Cow::Borrowed(&self.0);
        }
        let Ok(mut text) = serde_json::to_string(&added) else { return Cow::Borrowed(&self.0) };
        if !known.is_empty() {
            text.pop();
            text.push(',');
            text.push_str(own.get(1..).unwrap_or_default());
        }
        RawValue::from_string(text).map_or(Cow::Borrowed(&*self.0), Cow::Owned)
    }
}

impl PartialEq for JsonObject {
    /// Compares the texts.
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for JsonObject {}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Box::<RawValue>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> JsonObject {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn json_other_than_an_object_is_refused() {
        assert!(serde_json::from_str::<JsonObject>(r#" {"a": [1 ]} "#).is_ok());
        assert!(serde_json::from_str::<JsonObject>("[1]").is_err());
        assert!(serde_json::from_str::<JsonObject>("\"{\"").is_err());
    }

    #[test]
    fn defaults_fill_in_the_members_that_are_missing() {
        for (own, defaults, expected) in [
            ("{}", "{}", "{}"),
            (r#"{"a": 1.50}"#, "{ }", r#"{"a": 1.50}"#),
            ("{ }", r#"{"b":2}"#, r#"{"b":2}"#),
            (r#"{"a": 1.50}"#, r#"{"b":2}"#, r#"{"b":2,"a": 1.50}"#),
            (r#"{"a":1}"#, r#"{"a":2,"c":{"d":[3]}}"#, r#"{"c":{"d":[3]},"a":1}"#),
            (r#"{"\u0061":1}"#, r#"{"a":2}"#, r#"{"\u0061":1}"#),
            (r#"{"a":null}"#, r#"{"a":2}"#, r#"{"a":null}"#),
        ] {
            assert_eq!(object(own).with_defaults(&object(defaults)).get(), expected, "{own} over {defaults}");
        }
    }
}
