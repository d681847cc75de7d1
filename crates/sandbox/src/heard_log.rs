//! Log of the clients' actions, in order, for `GET /sandbox/heard`. Its memory is bounded, so it drops its oldest entries.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::Value;

use super::clock;
use super::platform_state::{BotUser, locked};

/// Most entries of one page.
const PAGE: usize = 1000;

/// Memory of an entry beside its text.
const OVERHEAD: usize = 128;

/// The log.
pub(super) struct HeardLog {
    /// Most bytes of its entries; 0: no log.
    limit: usize,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    entries: VecDeque<HeardEntry>,
    bytes: usize,
    /// Number of the newest entry.
    last: u64,
    /// Number of the newest entry that a reset removed.
    cleared: u64,
}

struct HeardEntry {
    number: u64,
    bot: Box<str>,
    user: Box<str>,
    json: Box<str>,
}

impl HeardEntry {
    fn bytes(&self) -> usize {
        OVERHEAD + self.bot.len() + self.user.len() + self.json.len()
    }
}

/// Part of the log that a test asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HeardSelection {
    pub(super) user: Option<String>,
    pub(super) bot: Option<String>,
    /// Number of the last entry that the test knows.
    pub(super) after: u64,
}

impl HeardSelection {
    fn wants(&self, entry: &HeardEntry) -> bool {
        entry.number > self.after
            && self.user.as_deref().is_none_or(|user| *entry.user == *user)
            && self.bot.as_deref().is_none_or(|bot| *entry.bot == *bot)
    }
}

/// Selected entries.
#[derive(Debug, PartialEq)]
pub(super) struct HeardPage {
    pub(super) events: Vec<Value>,
    /// Number to ask after next.
    pub(super) after: u64,
    /// Whether entries after the known one were dropped.
    pub(super) dropped: bool,
}

impl HeardLog {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Adds an entry, and returns whether there is a log.
    #[expect(clippy::indexing_slicing, reason = "the value is an object")]
    pub(super) fn push(&self, user: &BotUser, kind: &str, fields: impl FnOnce() -> Value) -> bool {
        if self.limit == 0 {
            return false;
        }
        let mut event = fields();
        let (bot, user) = (user.bot.as_deref().unwrap_or_default(), user.user.as_str());
        event["kind"] = kind.into();
        event["at"] = clock::rfc3339(clock::now()).into();
        event["bot"] = bot.into();
        event["user"] = user.into();
        let mut state = locked(&self.state);
        state.last += 1;
        event["seq"] = state.last.into();
        let entry = HeardEntry {
            number: state.last,
            bot: bot.into(),
            user: user.into(),
            json: event.to_string().into(),
        };
        state.bytes += entry.bytes();
        state.entries.push_back(entry);
        while state.bytes > self.limit
            && let Some(oldest) = state.entries.pop_front()
        {
            state.bytes -= oldest.bytes();
        }
        true
    }

    /// Returns whether there is a selected entry.
    pub(super) fn has(&self, selection: &HeardSelection) -> bool {
        locked(&self.state).entries.iter().rev().any(|entry| selection.wants(entry))
    }

    /// Returns the selected entries, oldest first.
    pub(super) fn page(&self, selection: &HeardSelection) -> HeardPage {
        let state = locked(&self.state);
        let mut found = state.entries.iter().filter(|entry| selection.wants(entry));
        let chosen: Vec<&HeardEntry> = found.by_ref().take(PAGE).collect();
        let after = match (found.next(), chosen.last()) {
            (Some(_), Some(last)) => last.number,
            _ => state.last.max(selection.after),
        };
        let oldest = state.entries.front().map_or(state.last + 1, |entry| entry.number);
        HeardPage {
            events: chosen.iter().filter_map(|entry| serde_json::from_str(&entry.json).ok()).collect(),
            after,
            dropped: selection.after.max(state.cleared) + 1 < oldest,
        }
    }

    /// Drops all entries, and returns the number of the newest. Numbers go on rising.
    pub(super) fn clear(&self) -> u64 {
        let mut state = locked(&self.state);
        state.entries.clear();
        state.bytes = 0;
        state.cleared = state.last;
        state.last
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(log: &HeardLog, user: Option<&str>, after: u64) -> (Vec<String>, u64, bool) {
        let page = log.page(&HeardSelection { user: user.map(str::to_owned), bot: None, after });
        let texts = page.events.iter().map(|event| event["text"].as_str().unwrap().to_owned()).collect();
        (texts, page.after, page.dropped)
    }

    fn heard(log: &HeardLog, user: &str, text: &str) {
        assert!(log.push(&BotUser::from(("st-1", user)), "frame", || json!({"text": text})));
    }

    #[test]
    fn entries_are_selected_by_user_and_number() {
        let log = HeardLog::new(1 << 20);
        for (user, text) in [("ann", "a"), ("bob", "b"), ("ann", "c")] {
            heard(&log, user, text);
        }
        assert_eq!(texts(&log, None, 0), (vec!["a".into(), "b".into(), "c".into()], 3, false));
        assert_eq!(texts(&log, Some("ann"), 1), (vec!["c".into()], 3, false));
        assert_eq!(texts(&log, Some("ann"), 3), (vec![], 3, false));
        assert_eq!(log.clear(), 3);
        heard(&log, "ann", "d");
        assert_eq!(texts(&log, None, 0), (vec!["d".into()], 4, false), "a reset drops on purpose");
    }

    #[test]
    fn full_log_drops_its_oldest_and_says_so() {
        let log = HeardLog::new(1000);
        for n in 0..20 {
            heard(&log, "ann", &n.to_string());
        }
        let (texts_left, after, dropped) = texts(&log, None, 0);
        assert!((2..20).contains(&texts_left.len()) && dropped, "{texts_left:?}");
        assert_eq!((texts_left.last().unwrap().as_str(), after), ("19", 20));
        assert!(!texts(&log, None, 19).2);
        assert!(!HeardLog::new(0).push(&BotUser::from("ann"), "frame", || json!({})));
    }

    #[test]
    fn long_page_goes_on_at_its_end() {
        let log = HeardLog::new(1 << 24);
        for n in 0..=PAGE {
            heard(&log, "ann", &n.to_string());
        }
        let (first, after, _) = texts(&log, None, 0);
        assert_eq!((first.len(), after), (PAGE, PAGE as u64));
        assert_eq!(texts(&log, None, after).0, [PAGE.to_string()]);
    }
}
