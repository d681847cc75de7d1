//! How far a search goes on, and how its texts are written.

use std::borrow::Cow;

use super::html_entities::unescape;

/// Most levels of a search: twice the depth of any known shape.
const MAX_DEPTH: u8 = 12;

/// Settings of one level of a search.
#[derive(Clone, Copy)]
pub(super) struct ReadDepth {
    /// Remaining levels.
    levels: u8,
    /// Whether texts still carry HTML entities. False once the JSON around them is unescaped.
    is_escaped: bool,
    /// Whether a text may be a message written as JSON.
    pub(super) opens_texts: bool,
    /// Whether attached files are read.
    pub(super) reads_files: bool,
}

impl ReadDepth {
    pub(super) const MESSAGE: Self =
        Self { levels: MAX_DEPTH, is_escaped: true, opens_texts: true, reads_files: true };
    /// A piece of a stream is part of a text, so JSON syntax in it has no meaning.
    pub(super) const PIECE: Self = Self { opens_texts: false, ..Self::MESSAGE };
    /// The words of a user are compared with the text that was sent.
    pub(super) const USER: Self = Self { reads_files: false, ..Self::MESSAGE };

    /// Returns the next level, or `None` at the end.
    pub(super) fn down(self) -> Option<Self> {
        Some(Self { levels: self.levels.checked_sub(1)?, ..self })
    }

    /// Returns the level within a text whose entities are unescaped.
    pub(super) const fn unescaped(self) -> Self {
        Self { is_escaped: false, ..self }
    }

    /// Returns a text as the bot meant it. Entities are unescaped once.
    pub(super) fn plain(self, text: &str) -> Cow<'_, str> {
        if self.is_escaped { unescape(text) } else { Cow::Borrowed(text) }
    }

    /// Does the same with a text that may be owned.
    pub(super) fn plain_cow(self, text: Cow<'_, str>) -> Cow<'_, str> {
        match text {
            Cow::Borrowed(text) => self.plain(text),
            Cow::Owned(text) => Cow::Owned(self.plain(&text).into_owned()),
        }
    }
}
