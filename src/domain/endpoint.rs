//! The endpoints of bots: their names, and whether they work.

use std::fmt;

use super::{BotName, Timestamp};

/// The name of an endpoint over all bots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    /// The bot.
    pub bot: BotName,
    /// The name among the endpoints of the bot, in the form of a bot's name.
    pub name: Box<str>,
}

impl EndpointId {
    /// Parses the `Display` form.
    pub fn parse(text: &str) -> Option<Self> {
        let (bot, name) = text.split_once('/')?;
        let name = BotName::new(name).ok()?;
        Some(Self { bot: BotName::new(bot).ok()?, name: name.as_str().into() })
    }
}

/// Writes `BOT/NAME`.
impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bot, self.name)
    }
}

/// The state of an endpoint, as all replicas share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointState {
    /// Set while the endpoint is switched off.
    pub off: Option<EndpointOutage>,
    /// The last time at which it took a delivery.
    pub last_success_at: Option<Timestamp>,
    /// The last time at which it did not take one.
    pub last_failure_at: Option<Timestamp>,
    /// The error of that failure.
    pub last_error: Option<Box<str>>,
    /// The first failure since the last success, or since the endpoint was switched on.
    pub failing_since: Option<Timestamp>,
}

/// The time and the reason of a switch-off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOutage {
    /// The time.
    pub since: Timestamp,
    /// The reason.
    pub reason: Box<str>,
}

impl EndpointState {
    /// Adds the attempts of one replica.
    pub fn record(&mut self, report: &EndpointReport) {
        if report.last_success_at > self.last_success_at {
            self.last_success_at = report.last_success_at;
        }
        if self.failing_since.is_some_and(|since| Some(since) <= self.last_success_at) {
            self.failing_since = None;
        }
        if let Some((at, error)) = &report.last_failure
            && Some(*at) > self.last_failure_at
        {
            (self.last_failure_at, self.last_error) = (Some(*at), Some(error.clone()));
        }
        if let Some(first) = report.first_failure_at.filter(|first| Some(*first) > self.last_success_at) {
            self.failing_since = Some(self.failing_since.map_or(first, |since| since.min(first)));
        }
    }
}

/// The attempts of one replica since its last report, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointReport {
    /// The last success.
    pub last_success_at: Option<Timestamp>,
    /// The first failure after it.
    pub first_failure_at: Option<Timestamp>,
    /// The last failure, with its error.
    pub last_failure: Option<(Timestamp, Box<str>)>,
}

impl EndpointReport {
    /// Adds an attempt that the receiver took.
    pub fn add_success(&mut self, at: Timestamp) {
        (self.last_success_at, self.first_failure_at) = (Some(at), None);
    }

    /// Adds an attempt that failed.
    pub fn add_failure(&mut self, at: Timestamp, error: Box<str>) {
        self.first_failure_at.get_or_insert(at);
        self.last_failure = Some((at, error));
    }

    /// Adds the attempts of an earlier report, which did not arrive.
    pub fn add_earlier(&mut self, earlier: Self) {
        if self.last_success_at.is_none() {
            self.last_success_at = earlier.last_success_at;
            self.first_failure_at = earlier.first_failure_at.or(self.first_failure_at);
        }
        if self.last_failure.is_none() {
            self.last_failure = earlier.last_failure;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn endpoint_fails_since_its_first_failure_after_a_success() {
        let mut state = EndpointState::default();
        let mut report = EndpointReport::default();
        report.add_failure(at(1), "first".into());
        report.add_success(at(2));
        report.add_failure(at(3), "second".into());
        report.add_failure(at(4), "third".into());
        state.record(&report);
        assert_eq!((state.last_success_at, state.failing_since), (Some(at(2)), Some(at(3))));
        assert_eq!((state.last_failure_at, state.last_error.as_deref()), (Some(at(4)), Some("third")));
        state.record(&report);
        assert_eq!(state.failing_since, Some(at(3)), "a repeat changes nothing");
        // Another replica saw an earlier failure, and then a success.
        let mut other = EndpointReport::default();
        other.add_failure(at(1), "early".into());
        state.record(&other);
        assert_eq!(state.failing_since, Some(at(3)), "it is from before the success");
        other = EndpointReport::default();
        other.add_success(at(5));
        state.record(&other);
        assert_eq!((state.failing_since, state.last_success_at), (None, Some(at(5))));
        assert_eq!(state.last_error.as_deref(), Some("third"));
    }

    #[test]
    fn lost_report_is_added_to_the_next_one() {
        let mut lost = EndpointReport::default();
        lost.add_success(at(1));
        lost.add_failure(at(2), "x".into());
        let mut next = EndpointReport::default();
        next.add_failure(at(3), "y".into());
        next.add_earlier(lost.clone());
        assert_eq!((next.last_success_at, next.first_failure_at), (Some(at(1)), Some(at(2))));
        assert_eq!(next.last_failure, Some((at(3), "y".into())));
        let mut next = EndpointReport::default();
        next.add_success(at(4));
        next.add_earlier(lost);
        assert_eq!((next.last_success_at, next.first_failure_at), (Some(at(4)), None));
        assert_eq!(next.last_failure, Some((at(2), "x".into())));
    }

    #[test]
    fn endpoint_id_is_read_as_written() {
        let id = EndpointId { bot: BotName::sandbox(), name: "crm.eu".into() };
        assert_eq!(EndpointId::parse(&id.to_string()), Some(id));
        for text in ["", "sandbox", "sandbox/", "/crm", "sandbox/a/b", "sandbox/a b"] {
            assert_eq!(EndpointId::parse(text), None, "{text}");
        }
    }
}
