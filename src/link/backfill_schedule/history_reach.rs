//! Whether history reaches back to the start of a gap, judged by its pages.

/// Which records of a page may belong to the gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageTrust {
    /// All records behind the last known one.
    All,
    /// No record: the page did not begin at the requested message.
    None,
    /// Records that are not older than the gap.
    Newer,
    /// The same, and history does not reach back to the gap. That is journaled first.
    Short,
}

/// Whether history reaches back to the start of the gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryReach {
    Unknown,
    /// No page showed it. The newest page is read next.
    Doubtful,
    /// The newest page held no known message: the bot said much since, or history forgot the start.
    Suspect,
    /// History forgot the start. That is to be journaled, and only the newest page is left.
    Gone,
    /// The loss is journaled.
    Short,
    Shown,
}

impl HistoryReach {
    /// Returns the state after the newest page if that holds no known message.
    pub(super) const fn after_newest_page(self, is_empty: bool) -> (Self, PageTrust) {
        match self {
            Self::Short => (Self::Short, PageTrust::Newer),
            Self::Gone => (Self::Short, PageTrust::Short),
            _ if is_empty => (Self::Short, PageTrust::Short),
            _ => (Self::Suspect, PageTrust::None),
        }
    }

    /// Returns the state after a page that shows that history is too short. The newest page shows it if it lacks the start
    /// of a gap without a known reply. An empty page shows it if the page before it promised more for the second time.
    pub(super) const fn after_short_page(self) -> (Self, PageTrust) {
        (Self::Short, if matches!(self, Self::Short) { PageTrust::All } else { PageTrust::Short })
    }

    /// Returns the state after a page that is empty or began elsewhere.
    pub(super) const fn after_other_page(self) -> Self {
        if matches!(self, Self::Suspect) { Self::Gone } else { Self::Doubtful }
    }

    /// Returns whether another read is needed to decide.
    pub(super) const fn is_undecided(self) -> bool {
        matches!(self, Self::Doubtful | Self::Suspect | Self::Gone)
    }

    /// Returns whether the newest page is read next.
    pub(super) const fn wants_newest_page(self) -> bool {
        matches!(self, Self::Doubtful | Self::Gone | Self::Short)
    }
}
