//! The encoding of the ends of turns.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CorruptData, id};
use crate::domain::{EndedBy, MessageId, Problem, ProblemKind, QuietSource, QuietWait, TurnOutcome};

const WHAT: CorruptData = CorruptData("the end of a turn");

#[derive(Serialize, Deserialize)]
struct StoredOutcome<'a> {
    #[serde(rename = "m", borrow)]
    message: Cow<'a, str>,
    #[serde(rename = "a", borrow, default, skip_serializing_if = "Option::is_none")]
    answered: Option<Cow<'a, str>>,
    /// The quiet time of a turn that it ended, in milliseconds.
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    quiet_ms: Option<u64>,
    /// The source of the quiet time.
    #[serde(rename = "b", borrow, default, skip_serializing_if = "Option::is_none")]
    quiet_by: Option<Cow<'a, str>>,
    #[serde(rename = "p", borrow, default, skip_serializing_if = "Option::is_none")]
    problem: Option<StoredProblem<'a>>,
    /// Whether the message asked for the end of the session.
    #[serde(rename = "c", default, skip_serializing_if = "is_false")]
    closes: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredProblem<'a> {
    #[serde(rename = "k", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "d", borrow)]
    detail: Cow<'a, str>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Encodes an end. `closes` says whether the message asked for the end of the session.
pub(super) fn write(
    message: MessageId,
    outcome: &TurnOutcome,
    closes: bool,
    into: &mut Vec<u8>,
) -> Result<(), CorruptData> {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let message = Cow::Owned(message.to_string());
    let stored = match outcome {
        TurnOutcome::Answered(by) => StoredOutcome {
            message,
            answered: Some(Cow::Borrowed(by.as_str())),
            quiet_ms: by.quiet().map(QuietWait::millis),
            quiet_by: by.quiet().map(|quiet| Cow::Borrowed(quiet.by.as_str())),
            problem: None,
            closes,
        },
        TurnOutcome::Failed(problem) => {
            let problem = StoredProblem {
                kind: Cow::Borrowed(problem.kind.slug()),
                detail: Cow::Borrowed(&problem.detail),
                retry_after_ms: problem.retry_after.map(millis),
            };
            StoredOutcome {
                message,
                answered: None,
                quiet_ms: None,
                quiet_by: None,
                problem: Some(problem),
                closes,
            }
        }
    };
    serde_json::to_writer(into, &stored).map_err(|_| WHAT)
}

/// Returns the quiet time of an end. An earlier version stored none, and a later one may know another source.
fn quiet_wait(millis: Option<u64>, by: Option<&str>) -> Option<QuietWait> {
    let by = QuietSource::ALL.into_iter().find(|source| Some(source.as_str()) == by)?;
    Some(QuietWait { wait: Duration::from_millis(millis?), by })
}

/// Decodes an end: its message, its outcome, and whether the message asked for the end of the session.
pub(super) fn read(bytes: &[u8]) -> Result<(MessageId, TurnOutcome, bool), CorruptData> {
    let stored: StoredOutcome<'_> = serde_json::from_slice(bytes).map_err(|_| WHAT)?;
    let outcome = match (stored.answered, stored.problem) {
        (Some(word), None) => {
            let by = EndedBy::ALL.into_iter().find(|by| by.as_str() == word).ok_or(WHAT)?;
            TurnOutcome::Answered(match by {
                EndedBy::Quiet(_) => EndedBy::Quiet(quiet_wait(stored.quiet_ms, stored.quiet_by.as_deref())),
                by => by,
            })
        }
        (None, Some(stored)) => {
            let kind = ProblemKind::from_slug(&stored.kind).ok_or(WHAT)?;
            let mut problem = Problem::new(kind, stored.detail.into_owned());
            problem.retry_after = stored.retry_after_ms.map(Duration::from_millis);
            TurnOutcome::Failed(problem)
        }
        _ => return Err(WHAT),
    };
    Ok((id(&stored.message)?, outcome, stored.closes))
}
