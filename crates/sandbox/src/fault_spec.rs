//! Planned faults as a script and the control API write them down (docs/sandbox.md).

use serde::Deserialize;

use super::faults::{Endpoint, Fault, RetryAfter};
use super::script_values::{HttpStatusNumber, SpanText};

/// A fault of requests.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FaultSpec {
    /// The endpoint.
    pub(super) endpoint: Endpoint,
    /// Number of requests that fail. Without it, each request fails until the faults are cleared.
    #[serde(default)]
    pub(super) times: Option<usize>,
    /// Effect on these requests.
    fault: FaultKind,
}

/// Effect of a fault.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
enum FaultKind {
    /// This status with the platform's error envelope.
    Status(HttpStatusNumber),
    /// This status, code and message.
    Error(ErrorSpec),
    /// 429, with `Retry-After` in seconds, or null to leave it out.
    RateLimited(Option<u64>),
    /// A proxy's HTML page with this status.
    Html(HttpStatusNumber),
    /// This status with this body.
    Body(BodySpec),
    /// The right answer after a delay.
    Slow(SpanText),
    /// 200 with `{}`.
    Empty,
    /// The token is refused as expired.
    TokenExpired,
    /// No answer, ever.
    Hang,
    /// The connection closes without an answer.
    Drop,
}

/// An answer with the platform's error envelope.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ErrorSpec {
    /// HTTP status.
    status: HttpStatusNumber,
    /// `errors[0].code`; digits become a number.
    code: String,
    /// `errors[0].msg`.
    msg: String,
}

/// An answer with any body.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BodySpec {
    /// HTTP status.
    status: HttpStatusNumber,
    /// The body, sent as JSON.
    body: String,
}

impl FaultSpec {
    pub(super) fn fault(&self) -> Fault {
        match &self.fault {
            FaultKind::Status(status) => Fault::Status(status.0),
            FaultKind::Error(ErrorSpec { status, code, msg }) => {
                Fault::Error { status: status.0, code: code.clone(), msg: msg.clone() }
            }
            FaultKind::RateLimited(seconds) => {
                Fault::RateLimited(seconds.map_or(RetryAfter::Missing, RetryAfter::Seconds))
            }
            FaultKind::Html(status) => Fault::Html(status.0),
            FaultKind::Body(BodySpec { status, body }) => Fault::Body(status.0, body.clone()),
            FaultKind::Slow(span) => Fault::Slow(span.0),
            FaultKind::Empty => Fault::Empty,
            FaultKind::TokenExpired => Fault::TokenExpired,
            FaultKind::Hang => Fault::Hang,
            FaultKind::Drop => Fault::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_can_be_written() {
        for (fault, means) in [
            (r#"{"status": 503}"#, Fault::Status(503)),
            (
                r#"{"error": {"status": 400, "code": "4002", "msg": "m"}}"#,
                Fault::Error { status: 400, code: "4002".into(), msg: "m".into() },
            ),
            (r#"{"rateLimited": 7}"#, Fault::RateLimited(RetryAfter::Seconds(7))),
            (r#"{"rateLimited": null}"#, Fault::RateLimited(RetryAfter::Missing)),
            (r#"{"html": 502}"#, Fault::Html(502)),
            (r#"{"body": {"status": 200, "body": "[]"}}"#, Fault::Body(200, "[]".into())),
            (r#"{"slow": "2s"}"#, Fault::Slow(std::time::Duration::from_secs(2))),
            (r#""empty""#, Fault::Empty),
            (r#""tokenExpired""#, Fault::TokenExpired),
            (r#""hang""#, Fault::Hang),
            (r#""drop""#, Fault::Drop),
        ] {
            let spec = format!(r#"{{"endpoint": "grant", "times": 1, "fault": {fault}}}"#);
            let spec: FaultSpec = serde_json::from_str(&spec).unwrap();
            assert_eq!((spec.endpoint, spec.times, spec.fault()), (Endpoint::Grant, Some(1), means));
        }
    }
}
