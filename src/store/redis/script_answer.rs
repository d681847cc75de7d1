//! The answer of a script: a word, the store's time, and values that depend on the word.

use std::vec::IntoIter;

use deadpool_redis::redis::Value;

use super::codec::{CorruptData, number};
use crate::domain::Timestamp;
use crate::store::{StoreError, StoreRefusal};

/// The answer. Its bytes are moved, never copied.
#[derive(Debug)]
pub(super) struct ScriptAnswer {
    word: Vec<u8>,
    now: Timestamp,
    rest: AnswerValues,
}

impl ScriptAnswer {
    pub(super) fn read(value: Value) -> Result<Self, CorruptData> {
        let mut values = AnswerValues::of(value)?;
        let word = values.bytes()?;
        let now = values.time()?;
        Ok(Self { word, now, rest: values })
    }

    /// Returns the store's time.
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns whether the answer has this word.
    pub(super) fn is(&self, word: &str) -> bool {
        self.word == word.as_bytes()
    }

    /// Returns the time and the values for this word. The refusals of an owner become errors.
    pub(super) fn expect(self, word: &str) -> Result<(Timestamp, AnswerValues), StoreError> {
        if self.is(word) {
            return Ok((self.now, self.rest));
        }
        let refused = str::from_utf8(&self.word).ok().and_then(refusal);
        Err(refused.unwrap_or_else(|| CorruptData("a script's answer").into()))
    }

    /// Returns the word and its values.
    pub(super) fn parts(self) -> (Vec<u8>, AnswerValues) {
        (self.word, self.rest)
    }
}

/// Returns the error that a word of a script stands for.
pub(super) fn refusal(word: &str) -> Option<StoreError> {
    match word {
        "FENCED" => Some(StoreError::Fenced),
        "LOST" => Some(StoreError::Lost),
        "OUTOFSTEP" => Some(StoreError::OutOfStep),
        _ => None,
    }
}

/// A sequence of values.
#[derive(Debug)]
pub(super) struct AnswerValues(IntoIter<Value>);

const SHAPE: CorruptData = CorruptData("the shape of a script's answer");

impl AnswerValues {
    fn of(value: Value) -> Result<Self, CorruptData> {
        match value {
            Value::Array(values) | Value::Set(values) => Ok(Self(values.into_iter())),
            _ => Err(SHAPE),
        }
    }

    /// Returns whether no value is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Takes the next value as bytes.
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, CorruptData> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            Some(Value::SimpleString(text)) => Ok(text.into_bytes()),
            _ => Err(SHAPE),
        }
    }

    /// Takes the next value as text.
    pub(super) fn text(&mut self) -> Result<String, CorruptData> {
        String::from_utf8(self.bytes()?).map_err(|_| SHAPE)
    }

    /// Takes the next value as a number, which scripts return as such or in digits.
    pub(super) fn number(&mut self) -> Result<u64, CorruptData> {
        match self.0.next() {
            Some(Value::Int(number)) => u64::try_from(number).map_err(|_| SHAPE),
            Some(Value::BulkString(digits)) => number(&digits),
            _ => Err(SHAPE),
        }
    }

    /// Takes the next value as a time.
    pub(super) fn time(&mut self) -> Result<Timestamp, CorruptData> {
        self.number().map(Timestamp::from_millis)
    }

    /// Takes the next value as a number; an empty one is `None`.
    pub(super) fn number_or_none(&mut self) -> Result<Option<u64>, CorruptData> {
        match self.0.as_slice().first() {
            Some(Value::BulkString(digits)) if digits.is_empty() => {
                self.0.next();
                Ok(None)
            }
            _ => self.number().map(Some),
        }
    }

    /// Takes the next value as a time; an empty one is `None`.
    pub(super) fn time_or_none(&mut self) -> Result<Option<Timestamp>, CorruptData> {
        Ok(self.number_or_none()?.map(Timestamp::from_millis))
    }

    /// Takes the next value as a list.
    pub(super) fn values(&mut self) -> Result<Self, CorruptData> {
        self.0.next().ok_or(SHAPE).and_then(Self::of)
    }

    /// Takes the rest as texts.
    pub(super) fn texts(mut self) -> impl Iterator<Item = Result<String, CorruptData>> {
        std::iter::from_fn(move || (self.0.len() > 0).then(|| self.text()))
    }

    /// Takes the rest as bytes.
    pub(super) fn all(mut self) -> impl Iterator<Item = Result<Vec<u8>, CorruptData>> {
        std::iter::from_fn(move || (self.0.len() > 0).then(|| self.bytes()))
    }

    /// Takes the rest as lists.
    pub(super) fn lists(mut self) -> impl Iterator<Item = Result<Self, CorruptData>> {
        std::iter::from_fn(move || (self.0.len() > 0).then(|| self.values()))
    }

    /// Takes the rest as pairs of field and value.
    pub(super) fn pairs(mut self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), CorruptData>> {
        std::iter::from_fn(move || (self.0.len() > 0).then(|| Ok((self.bytes()?, self.bytes()?))))
    }
}

impl From<CorruptData> for StoreError {
    /// Logs the error, because the caller only learns that the store is not available.
    fn from(corrupt: CorruptData) -> Self {
        tracing::error!(error = %corrupt, "the store holds unreadable data");
        Self::Unavailable(StoreRefusal::Unexpected)
    }
}
