//! The results of the checks, as lines for people and as JSON. Pure.

use std::fmt::Write as _;

use serde::Serialize;

/// The subject of a check, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStage {
    /// The configuration is valid.
    Configuration,
    /// The files of secrets and the keys can be used.
    Keys,
    /// The clocks of the platform and the store agree with this machine's.
    Clock,
    /// Names have addresses, and each address takes connections.
    Dns,
    /// The proxy opens connections.
    Proxy,
    /// The certificate of a server is trusted.
    Tls,
    /// The platform exchanges a JWT for a token.
    Grant,
    /// The platform gives the address of a socket.
    Start,
    /// The web socket opens.
    Socket,
    /// The bot answers a message.
    Say,
    /// The history can be read.
    History,
    /// The store answers, and has the rights and settings that the bridge needs.
    Store,
    /// The receivers of webhooks can be reached.
    Webhooks,
}

impl CheckStage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Keys => "keys",
            Self::Clock => "clock",
            Self::Dns => "dns",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Grant => "grant",
            Self::Start => "start",
            Self::Socket => "socket",
            Self::Say => "say",
            Self::History => "history",
            Self::Store => "store",
            Self::Webhooks => "webhooks",
        }
    }
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    /// It works.
    Ok,
    /// It works, but an operator should look at it.
    Warning,
    /// It does not work.
    Failed,
}

impl FindingLevel {
    /// Returns the word of a line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One result, with the next step if there is something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The subject.
    pub check: CheckStage,
    /// The result.
    pub level: FindingLevel,
    /// The bot, host or server of the check; `None` for the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// The result in words.
    pub message: String,
    /// The next step of an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The results of an examination.
#[derive(Debug, Clone, Default)]
pub struct DoctorReport(Vec<CheckReport>);

#[derive(Serialize)]
struct ReportDocument<'a> {
    level: FindingLevel,
    failed: usize,
    warnings: usize,
    findings: Vec<&'a CheckReport>,
}

impl DoctorReport {
    /// Adds a result.
    pub fn add(&mut self, finding: CheckReport) {
        self.0.push(finding);
    }

    /// Adds a result that needs no step.
    pub fn ok(&mut self, check: CheckStage, about: impl Into<String>, message: impl Into<String>) {
        let about = Some(about.into()).filter(|about| !about.is_empty());
        self.add(CheckReport { check, level: FindingLevel::Ok, about, message: message.into(), next: None });
    }

    /// Adds a result with the next step.
    pub fn problem(
        &mut self,
        level: FindingLevel,
        check: CheckStage,
        about: impl Into<String>,
        message: impl Into<String>,
        next: impl Into<String>,
    ) {
        let about = Some(about.into()).filter(|about| !about.is_empty());
        self.add(CheckReport { check, level, about, message: message.into(), next: Some(next.into()) });
    }

    /// Adds a failure with the next step.
    pub fn failed(
        &mut self,
        check: CheckStage,
        about: impl Into<String>,
        message: impl Into<String>,
        next: impl Into<String>,
    ) {
        self.problem(FindingLevel::Failed, check, about, message, next);
    }

    /// Adds a warning with the next step.
    pub fn warning(
        &mut self,
        check: CheckStage,
        about: impl Into<String>,
        message: impl Into<String>,
        next: impl Into<String>,
    ) {
        self.problem(FindingLevel::Warning, check, about, message, next);
    }

    /// Returns the results in the order of the checks.
    pub fn findings(&self) -> Vec<&CheckReport> {
        let mut findings: Vec<&CheckReport> = self.0.iter().collect();
        findings.sort_by_key(|finding| finding.check);
        findings
    }

    /// Returns the worst result.
    pub fn level(&self) -> FindingLevel {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(FindingLevel::Ok)
    }

    fn count(&self, level: FindingLevel) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// Returns a line for each result, with its level first, and a summary.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for CheckReport { check, level, about, message, next } in self.findings() {
            let about = about.as_ref().map(|about| format!(" {about}")).unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = write!(text, "{:<8} {}{about}: {message}", level.as_str(), check.as_str());
            let _ = match next {
                Some(next) => writeln!(text, ". Next: {next}"),
                None => writeln!(text),
            };
        }
        let (failed, warnings) = (self.count(FindingLevel::Failed), self.count(FindingLevel::Warning));
        let s = |count: usize| if count == 1 { "" } else { "s" };
        let checks = self.0.len();
        let _ =
            writeln!(text, "{checks} check{}, {failed} failed, {warnings} warning{}", s(checks), s(warnings));
        text
    }

    /// Returns the results as one JSON object.
    pub fn to_json(&self) -> String {
        let document = ReportDocument {
            level: self.level(),
            failed: self.count(FindingLevel::Failed),
            warnings: self.count(FindingLevel::Warning),
            findings: self.findings(),
        };
        // Writing JSON fails for keys that are no strings, which the structs above lack.
        serde_json::to_string(&document).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> DoctorReport {
        let mut report = DoctorReport::default();
        report.failed(CheckStage::Grant, "support", "the platform answered 401", "check client_secret");
        report.ok(CheckStage::Configuration, "", "1 bot");
        report.warning(CheckStage::Clock, "platform", "61 s ahead", "run an NTP client");
        report
    }

    #[test]
    fn lines_follow_the_order_of_the_checks() {
        assert_eq!(
            report().to_text(),
            "ok       configuration: 1 bot\n\
             warning  clock platform: 61 s ahead. Next: run an NTP client\n\
             failed   grant support: the platform answered 401. Next: check client_secret\n\
             3 checks, 1 failed, 1 warning\n"
        );
    }

    #[test]
    fn json_has_the_same_results() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!(
            (&json["level"], &json["failed"], &json["warnings"]),
            (&"failed".into(), &1.into(), &1.into())
        );
        assert_eq!(
            json["findings"][0],
            serde_json::json!({"check": "configuration", "level": "ok", "message": "1 bot"})
        );
        assert_eq!(json["findings"][2]["next"], "check client_secret");
        assert_eq!(DoctorReport::default().level(), FindingLevel::Ok);
    }
}
