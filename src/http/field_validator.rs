//! Validation of a JSON body, field by field, with all errors at once.
//!
//! Pure. It looks at one level of an object at a time and keeps values as text until they are needed. Derived readers
//! would guess: they take an array for a struct. Every error has its pointer. `null` means absent.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;
use serde_json::value::RawValue;

use super::api_error::FieldErrors;
use super::canonical_json::{self, JsonText};

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A validator of one body.
pub(super) struct FieldValidator<'m> {
    errors: &'m mut FieldErrors,
    failed: bool,
}

impl FieldValidator<'_> {
    /// Validates a body with `read`. Returns `None` if the body has an error.
    pub(super) fn validate<'m, T>(
        body: &[u8],
        errors: &'m mut FieldErrors,
        read: impl FnOnce(&mut FieldValidator<'m>, &str) -> Option<T>,
    ) -> Option<T> {
        // Editors and older clients write a byte order mark, which carries no meaning (RFC 8259, 8.1).
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let Ok(body) = std::str::from_utf8(body) else {
            errors.add("", "must be UTF-8");
            return None;
        };
        let mut check = FieldValidator { errors, failed: false };
        let read = read(&mut check, body);
        if check.failed { None } else { read }
    }

    /// Adds an error.
    pub(super) fn add(
        &mut self,
        pointer: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.failed = true;
        self.errors.add(pointer, detail);
    }

    /// Returns the value, or adds the error and returns `None`.
    pub(super) fn record<T, E: Into<Cow<'static, str>>>(
        &mut self,
        at: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.add(at.to_owned(), error)).ok()
    }

    /// Returns the values of these members by name. Other members are errors. The reading stops if the answer has room for
    /// no further error.
    pub(super) fn object<'a, const N: usize>(
        &mut self,
        at: &str,
        text: &'a str,
        names: [&str; N],
    ) -> Option<[Option<&'a RawValue>; N]> {
        self.open_object(at, text, names, |check, key, _| {
            check.add(pointer(at, &key), format!("is unknown; known members: {}", names.join(", ")));
        })
    }

    /// Returns the values of these members by name, and gives the other members to `other`. The reading stops if the answer
    /// has room for no further error.
    pub(super) fn open_object<'a, const N: usize>(
        &mut self,
        at: &str,
        text: &'a str,
        names: [&str; N],
        mut other: impl FnMut(&mut Self, Cow<'a, str>, &'a RawValue),
    ) -> Option<[Option<&'a RawValue>; N]> {
        let (mut values, mut seen) = ([None; N], [false; N]);
        let read = canonical_json::visit_object(text, |key, value| {
            let mut known = names.iter().zip(values.iter_mut().zip(&mut seen));
            match known.find(|(name, _)| **name == key) {
                None => other(self, key, value),
                Some((_, (_, true))) => self.add(pointer(at, &key), "must occur only once"),
                Some((_, (slot, seen))) => {
                    *seen = true;
                    *slot = (value.get() != "null").then_some(value);
                }
            }
            if self.errors.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match read {
            Ok(()) => Some(values),
            Err(error) if error.is_data() => {
                self.add(at.to_owned(), "must be a JSON object");
                None
            }
            Err(error) => {
                self.add(at.to_owned(), format!("is not valid JSON: {error}"));
                None
            }
        }
    }

    /// Returns a required value.
    pub(super) fn required<'a>(&mut self, at: &str, value: Option<&'a RawValue>) -> Option<&'a RawValue> {
        if value.is_none() {
            self.add(at.to_owned(), "is required");
        }
        value
    }

    /// Reads a string.
    pub(super) fn string(&mut self, at: &str, value: &RawValue) -> Option<Box<str>> {
        match serde_json::from_str::<JsonText<'_>>(value.get()) {
            Ok(JsonText(text)) => Some(text.into()),
            Err(_) if value.get().starts_with('"') => {
                self.add(at.to_owned(), "must be valid Unicode; it has an invalid escape");
                None
            }
            Err(_) => {
                self.add(at.to_owned(), "must be a string");
                None
            }
        }
    }

    /// Reads one word of an enum; `choices` describes the valid words.
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

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self, at: &'static str, value: &RawValue) -> Option<bool> {
        self.record(at, value.get().parse().map_err(|_| "must be true or false"))
    }
}

/// Extends a JSON pointer by a key (RFC 6901).
pub(super) fn pointer(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}
