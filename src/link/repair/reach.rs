//! Whether history reaches back to the beginning of a gap, as its pages show.

/// What of a page may belong to the gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// All that stands behind what was known before.
    All,
    /// Nothing: the platform did not begin where it was asked to.
    None,
    /// What is not older than the gap.
    Newer,
    /// The same, and history does not reach back to the gap's beginning: that is to be said before.
    Short,
}

/// Whether history reaches back to the gap's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Unknown,
    /// It answered, and nothing showed it: the newest page is to be read.
    Doubtful,
    /// Nothing on that was known: either much was said, and stands behind the beginning, or that is forgotten.
    Suspect,
    /// It is forgotten: that is to be said, and the newest page is what there is.
    Gone,
    /// That is said.
    Short,
    Shown,
}

impl Reach {
    /// After the newest page, where nothing on it was known before.
    pub(super) const fn of_newest(self, is_empty: bool) -> (Self, Trust) {
        match self {
            Self::Short => (Self::Short, Trust::Newer),
            Self::Gone => (Self::Short, Trust::Short),
            _ if is_empty => (Self::Short, Trust::Short),
            _ => (Self::Suspect, Trust::None),
        }
    }

    /// After a page that did not begin where it was asked to, or holds nothing. `goes_on` says that the last one of the
    /// same read ended where it was to begin.
    pub(super) const fn of_other(self, is_empty: bool, goes_on: bool) -> Self {
        match self {
            Self::Suspect => Self::Gone,
            // A read that found something finds it again, unless its beginning is not known for the moment.
            Self::Shown if is_empty && goes_on => Self::Shown,
            _ => Self::Doubtful,
        }
    }
}
