//! Ends of turns.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Corrupt, id};
use crate::domain::{EndedBy, MessageId, Problem, ProblemKind, TurnOutcome};

const WHAT: Corrupt = Corrupt("the end of a turn");

#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    #[serde(rename = "m", borrow)]
    message: Cow<'a, str>,
    #[serde(rename = "a", borrow, default, skip_serializing_if = "Option::is_none")]
    answered: Option<Cow<'a, str>>,
    #[serde(rename = "p", borrow, default, skip_serializing_if = "Option::is_none")]
    problem: Option<KeptProblem<'a>>,
    /// Whether the message asked for the session's end.
    #[serde(rename = "c", default, skip_serializing_if = "is_false")]
    closes: bool,
}

#[derive(Serialize, Deserialize)]
struct KeptProblem<'a> {
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

/// Writes an end; `closes` says whether of a message that asks for the session's end.
pub(super) fn write(
    message: MessageId,
    outcome: &TurnOutcome,
    closes: bool,
    into: &mut Vec<u8>,
) -> Result<(), Corrupt> {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let message = Cow::Owned(message.to_string());
    let kept = match outcome {
        TurnOutcome::Answered(by) => {
            Kept { message, answered: Some(Cow::Borrowed(by.as_str())), problem: None, closes }
        }
        TurnOutcome::Failed(problem) => {
            let problem = KeptProblem {
                kind: Cow::Borrowed(problem.kind.slug()),
                detail: Cow::Borrowed(&problem.detail),
                retry_after_ms: problem.retry_after.map(millis),
            };
            Kept { message, answered: None, problem: Some(problem), closes }
        }
    };
    serde_json::to_writer(into, &kept).map_err(|_| WHAT)
}

/// Reads an end, whose it is, and whether that message asked for the session's end.
pub(super) fn read(bytes: &[u8]) -> Result<(MessageId, TurnOutcome, bool), Corrupt> {
    let kept: Kept<'_> = serde_json::from_slice(bytes).map_err(|_| WHAT)?;
    let outcome = match (kept.answered, kept.problem) {
        (Some(word), None) => {
            let by = EndedBy::ALL.into_iter().find(|by| by.as_str() == word).ok_or(WHAT)?;
            TurnOutcome::Answered(by)
        }
        (None, Some(kept)) => {
            let kind = ProblemKind::from_slug(&kept.kind).ok_or(WHAT)?;
            let mut problem = Problem::new(kind, kept.detail.into_owned());
            problem.retry_after = kept.retry_after_ms.map(Duration::from_millis);
            TurnOutcome::Failed(problem)
        }
        _ => return Err(WHAT),
    };
    Ok((id(&kept.message)?, outcome, kept.closes))
}
