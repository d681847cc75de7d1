//! The pages of one read, and how many there may be.

/// The most pages with new replies in one read, each with about ten messages. The next read continues behind them.
pub(super) const MAX_NEW_PAGES: u8 = 10;
/// The most pages of one read. A busy conversation has pages of known replies before and behind the gap.
pub(super) const MAX_PAGES: u8 = 50;

/// The pages of the current read.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub(super) struct ReadPages {
    pub(super) count: u8,
    /// The number of pages with new replies.
    new: u8,
    /// The message behind which the next page begins.
    pub(super) cursor: Option<Box<str>>,
    /// The user's last message on these pages.
    pub(super) user_message: Option<UserRecord>,
    /// Whether the last page reaches back to the start of the gap.
    pub(super) reaches_start: bool,
    /// Whether the requested page is the newest one.
    pub(super) is_newest: bool,
    /// Whether the owner of a record is not clear yet.
    pub(super) has_unclear: bool,
    /// Whether a record may be older than the gap.
    pub(super) has_doubtful: bool,
}

/// A message of the user by its `clientMessageId`, if that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserRecord(pub(crate) Option<u64>);

/// The facts of a page beyond its records.
#[derive(Debug, Default)]
pub(crate) struct PageSummary {
    /// Its last message if other pages of the gap follow.
    pub(crate) next: Option<Box<str>>,
    /// The user's last message up to its end.
    pub(crate) user_message: Option<UserRecord>,
    /// Whether it holds a reply that was not known.
    pub(crate) has_new: bool,
    /// Whether the owner of a record is not clear yet.
    pub(crate) has_unclear: bool,
    /// Whether nothing tells of a record if it is older than the gap.
    pub(crate) has_doubtful: bool,
}

impl ReadPages {
    /// Adds a page.
    pub(super) fn add(&mut self, page: &PageSummary) {
        self.count += 1;
        self.new += u8::from(page.has_new);
        self.user_message = page.user_message;
        self.has_unclear |= page.has_unclear;
        self.has_doubtful |= page.has_doubtful;
    }

    /// Returns whether the read stops here.
    pub(super) const fn are_full(&self) -> bool {
        self.new >= MAX_NEW_PAGES || self.count >= MAX_PAGES
    }
}
