//! What a script answered, taken apart: a word, the store's time, and what belongs to that word.

use std::vec::IntoIter;

use deadpool_redis::redis::Value;

use super::codec::{Corrupt, number};
use crate::domain::Timestamp;
use crate::store::{StoreError, StoreRefusal};

/// What follows the word and the time, taken one by one. Bytes are moved, never copied.
#[derive(Debug)]
pub(super) struct Answer {
    word: Vec<u8>,
    now: Timestamp,
    rest: Values,
}

impl Answer {
    pub(super) fn read(value: Value) -> Result<Self, Corrupt> {
        let mut values = Values::of(value)?;
        let word = values.bytes()?;
        let now = values.time()?;
        Ok(Self { word, now, rest: values })
    }

    /// Whether this is how it went.
    pub(super) fn is(&self, word: &str) -> bool {
        self.word == word.as_bytes()
    }

    /// The time, and what belongs to this word; an owner's refusals as the errors they are.
    pub(super) fn expect(self, word: &str) -> Result<(Timestamp, Values), StoreError> {
        match self.word.as_slice() {
            told if told == word.as_bytes() => Ok((self.now, self.rest)),
            b"FENCED" => Err(StoreError::Fenced),
            b"LOST" => Err(StoreError::Lost),
            b"OUTOFSTEP" => Err(StoreError::OutOfStep),
            _ => Err(Corrupt("a script's answer").into()),
        }
    }

    /// The word, and what belongs to it.
    pub(super) fn parts(self) -> (Vec<u8>, Values) {
        (self.word, self.rest)
    }
}

/// Values, one after the other.
#[derive(Debug)]
pub(super) struct Values(IntoIter<Value>);

const SHAPE: Corrupt = Corrupt("the shape of a script's answer");

impl Values {
    fn of(value: Value) -> Result<Self, Corrupt> {
        match value {
            Value::Array(values) | Value::Set(values) => Ok(Self(values.into_iter())),
            _ => Err(SHAPE),
        }
    }

    /// The next, as bytes.
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Corrupt> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            Some(Value::SimpleString(text)) => Ok(text.into_bytes()),
            _ => Err(SHAPE),
        }
    }

    /// The next, as text.
    pub(super) fn text(&mut self) -> Result<String, Corrupt> {
        String::from_utf8(self.bytes()?).map_err(|_| SHAPE)
    }

    /// The next, as a number, which scripts give as one or as its digits.
    pub(super) fn number(&mut self) -> Result<u64, Corrupt> {
        match self.0.next() {
            Some(Value::Int(number)) => u64::try_from(number).map_err(|_| SHAPE),
            Some(Value::BulkString(digits)) => number(&digits),
            _ => Err(SHAPE),
        }
    }

    /// The next, as a time.
    pub(super) fn time(&mut self) -> Result<Timestamp, Corrupt> {
        self.number().map(Timestamp::from_millis)
    }

    /// The next, as a time; none where it is empty.
    pub(super) fn time_or_none(&mut self) -> Result<Option<Timestamp>, Corrupt> {
        match self.0.as_slice().first() {
            Some(Value::BulkString(digits)) if digits.is_empty() => {
                self.0.next();
                Ok(None)
            }
            _ => self.time().map(Some),
        }
    }

    /// The next, as values of its own.
    pub(super) fn values(&mut self) -> Result<Self, Corrupt> {
        self.0.next().ok_or(SHAPE).and_then(Self::of)
    }

    /// What is left, as texts.
    pub(super) fn texts(mut self) -> impl Iterator<Item = Result<String, Corrupt>> {
        std::iter::from_fn(move || (self.0.len() > 0).then(|| self.text()))
    }

    /// What is left, as lists.
    pub(super) fn lists(mut self) -> impl Iterator<Item = Result<Self, Corrupt>> {
        std::iter::from_fn(move || (self.0.len() > 0).then(|| self.values()))
    }

    /// What is left, as fields and what they hold.
    pub(super) fn pairs(mut self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), Corrupt>> {
        std::iter::from_fn(move || (self.0.len() > 0).then(|| Ok((self.bytes()?, self.bytes()?))))
    }
}

impl From<Corrupt> for StoreError {
    /// Logged here: the caller is only told that the store is not available.
    fn from(corrupt: Corrupt) -> Self {
        tracing::error!(error = %corrupt, "the store holds something that cannot be read");
        Self::Unavailable(StoreRefusal::Unexpected)
    }
}
