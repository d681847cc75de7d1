//! Checking a body field by field, so that all errors are told at once.
//!
//! Pure. It looks at one level of an object at a time and leaves values as text until they are asked for: nothing is
//! guessed (derived readers take an array for a struct), and every mistake has its pointer. `null` means absent.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;
use serde_json::value::RawValue;

use super::api_error::FieldErrors;
use super::canonical_json::{self, JsonText};

/// A body that is being checked.
pub(super) struct FieldValidator<'m> {
    errors: &'m mut FieldErrors,
    failed: bool,
}

impl FieldValidator<'_> {
    /// What a body says, as `read` reads it; none where something is wrong with it, which is noted.
    pub(super) fn validate<'m, T>(
        body: &[u8],
        errors: &'m mut FieldErrors,
        read: impl FnOnce(&mut FieldValidator<'m>, &str) -> Option<T>,
    ) -> Option<T> {
        let Ok(body) = std::str::from_utf8(body) else {
            errors.add("", "must be UTF-8");
            return None;
        };
        let mut check = FieldValidator { errors, failed: false };
        let read = read(&mut check, body);
        if check.failed { None } else { read }
    }

    /// Notes a mistake.
    pub(super) fn add(
        &mut self,
        pointer: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.failed = true;
        self.errors.add(pointer, detail);
    }

    /// The value, or none with its mistake noted.
    pub(super) fn record<T, E: Into<Cow<'static, str>>>(
        &mut self,
        at: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.add(at.to_owned(), error)).ok()
    }

    /// The values of these members, by name; others are errors.
    pub(super) fn object<'a, const N: usize>(
        &mut self,
        at: &str,
        text: &'a str,
        names: [&str; N],
    ) -> Option<[Option<&'a RawValue>; N]> {
        let members = match canonical_json::object(text) {
            Ok(members) => members,
            Err(error) if error.is_data() => {
                self.add(at.to_owned(), "must be a JSON object");
                return None;
            }
            Err(error) => {
                self.add(at.to_owned(), format!("is not valid JSON: {error}"));
                return None;
            }
        };
        let mut values = [None; N];
        for (index, (key, value)) in members.iter().enumerate() {
            let known = names.iter().zip(values.iter_mut()).find(|(name, _)| *name == key);
            if members.iter().take(index).any(|(earlier, _)| earlier == key) {
                self.add(pointer(at, key), "stands more than once");
            } else if let Some((_, slot)) = known {
                *slot = (value.get() != "null").then_some(*value);
            } else {
                self.add(pointer(at, key), format!("is not known; known here are: {}", names.join(", ")));
            }
        }
        Some(values)
    }

    /// A value that must be there.
    pub(super) fn required<'a>(&mut self, at: &str, value: Option<&'a RawValue>) -> Option<&'a RawValue> {
        if value.is_none() {
            self.add(at.to_owned(), "is required");
        }
        value
    }

    /// A string.
    pub(super) fn string(&mut self, at: &str, value: &RawValue) -> Option<Box<str>> {
        match serde_json::from_str::<JsonText<'_>>(value.get()) {
            Ok(JsonText(text)) => Some(text.into()),
            Err(_) if value.get().starts_with('"') => {
                self.add(at.to_owned(), "must be valid Unicode; it has an escape that is none");
                None
            }
            Err(_) => {
                self.add(at.to_owned(), "must be a string");
                None
            }
        }
    }

    /// One of some words; `choices` says which.
    pub(super) fn choice<T: for<'de> Deserialize<'de>>(
        &mut self,
        at: &str,
        value: &RawValue,
        choices: &'static str,
    ) -> Option<T> {
        let word = serde_json::from_str::<JsonText<'_>>(value.get()).ok();
        let chosen = word.and_then(|JsonText(word)| {
            let word: StrDeserializer<'_, serde::de::value::Error> = word.as_ref().into_deserializer();
            T::deserialize(word).ok()
        });
        self.record(at, chosen.ok_or(choices))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, at: &'static str, value: &RawValue) -> Option<bool> {
        self.record(at, value.get().parse().map_err(|_| "must be true or false"))
    }
}

/// A JSON pointer one step further (RFC 6901).
pub(super) fn pointer(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}
