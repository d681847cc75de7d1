//! The types of events that a reader wants: `?types=reply,message.answered`.

use crate::domain::{EntryWithMessage, EventKind};

/// The types that a reader named. A reader that names no type gets all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EventFilter {
    /// One bit for each named type; `None` without names.
    named: Option<u8>,
}

impl EventFilter {
    /// Parses names with commas between them.
    ///
    /// # Errors
    /// An unknown name. The text lists the known ones.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut named = 0;
        for name in text.split(',') {
            let kind = EventKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
                let known = EventKind::ALL.map(EventKind::as_str).join(", ");
                format!("must be types of events with commas between them; the types are {known}")
            })?;
            named |= bit(kind);
        }
        Ok(Self { named: Some(named) })
    }

    /// Returns whether the reader wants events of this type.
    pub(super) fn covers(self, kind: EventKind) -> bool {
        self.named.is_none_or(|named| named & bit(kind) != 0)
    }

    /// Returns whether the reader named this type. Live events of the platform are for such readers only.
    pub(super) fn names(self, kind: EventKind) -> bool {
        self.named.is_some() && self.covers(kind)
    }

    /// Returns whether the reader named types.
    pub(super) const fn is_partial(self) -> bool {
        self.named.is_some()
    }

    /// Returns whether the reader gets an event for this entry.
    pub(super) fn covers_entry(self, item: &EntryWithMessage) -> bool {
        EventKind::of(&item.entry.body).is_some_and(|kind| self.covers(kind))
    }
}

const fn bit(kind: EventKind) -> u8 {
    1 << kind as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_types_are_covered_and_no_others() {
        for kind in EventKind::ALL {
            let only = EventFilter::parse(kind.as_str()).unwrap();
            let covered: Vec<_> = EventKind::ALL.into_iter().filter(|&other| only.covers(other)).collect();
            assert_eq!(covered, [kind]);
            assert!(only.names(kind) && EventFilter::default().covers(kind));
            assert!(!EventFilter::default().names(kind), "no type is named");
        }
        let two = EventFilter::parse("gap,reply,gap").unwrap();
        assert!(two.covers(EventKind::Gap) && two.covers(EventKind::Reply) && !two.covers(EventKind::Chunk));
    }

    #[test]
    fn unknown_type_is_refused_with_the_known_ones() {
        for bad in ["replies", "Reply", "reply,", ",reply", "reply, gap", "typing", "message"] {
            let detail = EventFilter::parse(bad).unwrap_err();
            for kind in EventKind::ALL {
                assert!(detail.contains(kind.as_str()), "{bad}: {detail}");
            }
        }
    }
}
