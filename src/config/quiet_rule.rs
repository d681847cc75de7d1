//! `bots.quiet` and its companions: when silence ends a turn.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::BotConfig;
use super::config_value::ConfigValue;
use super::defaults::UNLEARNED_QUIET;
use super::parse::{self, InvalidValue, ParseResult, invalid, quoted, show_duration};
use super::section::Section;
use crate::domain::{QuietSource, QuietWait};

/// The quiet times that may be configured.
const QUIET: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_mins(1);
/// The shares of early cuts that may be configured, in percent.
const EARLY_CUTS: RangeInclusive<f64> = 0.01..=5.0;

/// The rule for the quiet time of a turn whose caller sets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuietRule {
    /// The same time after each reply.
    Fixed(Duration),
    /// A time that follows the rhythm of the bot.
    Auto,
}

impl BotConfig {
    /// Returns the quiet time as long as the rhythm of the bot is unknown.
    pub fn unlearned_quiet(&self) -> QuietWait {
        match self.quiet {
            QuietRule::Fixed(wait) => QuietWait { wait, by: QuietSource::Configured },
            QuietRule::Auto => {
                let wait = UNLEARNED_QUIET.min(self.quiet_max).max(self.quiet_min);
                QuietWait { wait, by: QuietSource::Default }
            }
        }
    }
}

/// Parses a duration or `auto`.
pub(super) fn quiet_rule(value: &ConfigValue) -> ParseResult<QuietRule> {
    match value.as_text() {
        Some(text) if text.trim() == "auto" => Ok(QuietRule::Auto),
        _ => quiet_limit(value)
            .map(QuietRule::Fixed)
            .map_err(|InvalidValue(what)| InvalidValue(format!("{what}, or \"auto\""))),
    }
}

/// Parses a limit of the quiet time.
pub(super) fn quiet_limit(value: &ConfigValue) -> ParseResult<Duration> {
    parse::duration(QUIET)(value)
}

/// Parses a share in percent, such as `0.1%`. Returns it as a part of one.
pub(super) fn early_cuts(value: &ConfigValue) -> ParseResult<f64> {
    if let ConfigValue::Integer(number) = value {
        return invalid(format!("{number} has no unit; write \"{number}%\""));
    }
    let text = parse::as_text(value, "\"0.1%\"")?;
    let percent = text
        .strip_suffix('%')
        .map(str::trim_end)
        // The library also reads other forms, such as `1e-1` and `inf`.
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
        .and_then(|digits| digits.parse::<f64>().ok());
    match percent {
        Some(percent) if EARLY_CUTS.contains(&percent) => Ok(percent / 100.0),
        Some(_) => invalid(format!(
            "{} is not within {}% to {}%",
            quoted(text),
            EARLY_CUTS.start(),
            EARLY_CUTS.end()
        )),
        None => invalid(format!("{} is no share such as 0.1% or 2%", quoted(text))),
    }
}

/// Checks the quiet time of a bot against its limits and its deadline.
pub(super) fn check(section: &mut Section<'_>, bot: &BotConfig) {
    let shortest = match bot.quiet {
        QuietRule::Fixed(wait) => ("quiet", wait),
        QuietRule::Auto => ("quiet_min", bot.quiet_min),
    };
    check_below_deadline(section, bot, shortest);
    if bot.quiet == QuietRule::Auto {
        // A deadline below the default of quiet_max only ends turns first.
        let max = section.key("quiet_max");
        if section.diagnostics.was_given(&max) && bot.quiet_min < bot.deadline {
            check_below_deadline(section, bot, ("quiet_max", bot.quiet_max));
        }
        if bot.quiet_min > bot.quiet_max {
            let (min, max) = (show_duration(bot.quiet_min), show_duration(bot.quiet_max));
            let low = format!("{min} should be at most quiet_max, {max}");
            let high = format!("{max} should be at least quiet_min, {min}");
            section.relation_error(("quiet_min", low), ("quiet_max", high));
        }
        return;
    }
    for key in ["quiet_min", "quiet_max", "early_cuts"] {
        let path = section.key(key);
        if section.diagnostics.was_given(&path) {
            section.diagnostics.warn(&path, "has no effect without quiet = \"auto\"");
        }
    }
}

fn check_below_deadline(section: &mut Section<'_>, bot: &BotConfig, (key, wait): (&str, Duration)) {
    if wait >= bot.deadline {
        let (wait, deadline) = (show_duration(wait), show_duration(bot.deadline));
        let low = format!("{wait} should be less than deadline, {deadline}");
        let high = format!("{deadline} should be more than {key}, {wait}");
        section.relation_error((key, low), ("deadline", high));
    }
}
