//! Reads a script: the apps, bots and faults of a simulated platform, as YAML (docs/sandbox.md).

use std::collections::HashSet;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::SecretString;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::SandboxOptions;
use super::assertion::{AppKey, AppRules, ClientApp};
use super::behaviour::Behaviour;
use super::fault_spec::FaultSpec;
use super::script_mistake::ScriptMistake;
use super::script_values::optional_span;
use super::scripted_bot::ScriptedBot;

/// A script for the simulated platform.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BotScript {
    /// Apps that may ask for grants. Without any, there is `cs-sandbox` with the secret `sandbox-secret`.
    #[serde(default)]
    apps: Vec<AppSpec>,
    /// The bots.
    #[cfg_attr(test, schemars(length(min = 1)))]
    bots: Vec<ScriptedBot>,
    /// Faults of requests, planned at the start.
    #[serde(default)]
    faults: Vec<FaultSpec>,
    /// Switches of the platform.
    #[serde(default)]
    behaviour: Behaviour,
    /// Life of an access token.
    #[serde(default, deserialize_with = "optional_span")]
    #[cfg_attr(test, schemars(with = "Option<crate::script_values::SpanText>"))]
    token_ttl: Option<Duration>,
    /// Life of an assertion that the helper `/users/sts` signs.
    #[serde(default, deserialize_with = "optional_span")]
    #[cfg_attr(test, schemars(with = "Option<crate::script_values::SpanText>"))]
    assertion_ttl: Option<Duration>,
    /// Most messages of a user in any 60 s. 0: no limit.
    #[serde(default)]
    rate_per_minute: Option<u32>,
}

/// An app that may ask for grants. It has a secret or a public key.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AppSpec {
    /// Id of the app (`cs-…`).
    #[cfg_attr(test, schemars(with = "String"))]
    id: Spanned<String>,
    /// Shared secret, for HS256 and HS512.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    secret: Option<SecretText>,
    /// Public RSA key in PEM, for RS256 and RS512.
    #[serde(default)]
    public_key: Option<String>,
    /// Accepted algorithms. Without any, all that fit the key.
    #[serde(default)]
    algorithms: Vec<AlgorithmName>,
    /// Whether an assertion needs a `jti`.
    #[serde(default)]
    enforce_jti: bool,
    /// Whether an assertion has to be encrypted. Then every grant is refused.
    #[serde(default)]
    enforce_jwe: bool,
    /// API key for `platform/websdk`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    api_key: Option<SecretText>,
}

/// A secret of a script.
#[derive(Debug, Clone)]
struct SecretText(SecretString);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// Name of an algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum AlgorithmName {
    HS256,
    HS512,
    RS256,
    RS512,
}

impl AlgorithmName {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::HS256 => Algorithm::HS256,
            Self::HS512 => Algorithm::HS512,
            Self::RS256 => Algorithm::RS256,
            Self::RS512 => Algorithm::RS512,
        }
    }

    fn needs_secret(self) -> bool {
        matches!(self, Self::HS256 | Self::HS512)
    }
}

impl BotScript {
    /// The JSON Schema of a script, for editors.
    pub const SCHEMA: &str = include_str!("../bot-script.schema.json");

    /// Reads a script.
    ///
    /// # Errors
    /// The mistakes of the script. A script that is no YAML, or has an unknown or unreadable member, has one.
    pub fn parse(yaml: &str) -> Result<Self, Vec<ScriptMistake>> {
        // Answers such as `Yes` are texts.
        let options = serde_saphyr::options! { strict_booleans: true };
        let script: Self = serde_saphyr::from_str_with_options(yaml, options)
            .map_err(|error| vec![ScriptMistake::of(&error)])?;
        let mistakes = script.mistakes();
        if mistakes.is_empty() { Ok(script) } else { Err(mistakes) }
    }

    fn mistakes(&self) -> Vec<ScriptMistake> {
        let mut mistakes = Vec::new();
        if self.bots.is_empty() {
            let message = "bots is empty; a script needs at least one bot".to_owned();
            mistakes.push(ScriptMistake { line: 1, column: 1, message });
        }
        let mut ids = HashSet::new();
        let ids_of_bots = self.bots.iter().map(|bot| &bot.id);
        for id in self.apps.iter().map(|app| &app.id).chain(ids_of_bots) {
            if id.value.is_empty() {
                mistakes.push(ScriptMistake::at(id, "an id is not empty".to_owned()));
            } else if !ids.insert(id.value.as_str()) {
                mistakes.push(ScriptMistake::at(id, format!("the id {} is given twice", id.value)));
            }
        }
        for app in &self.apps {
            mistakes.extend(app.mistake().map(|message| ScriptMistake::at(&app.id, message)));
        }
        for name in self.bots.iter().flat_map(ScriptedBot::unknown_dialogs) {
            mistakes.push(ScriptMistake::at(name, format!("this bot has no dialog {}", name.value)));
        }
        mistakes
    }

    /// Puts the script into the options of a sandbox.
    pub fn apply(self, options: &mut SandboxOptions) {
        if !self.apps.is_empty() {
            options.apps = self.apps.into_iter().map(AppSpec::app).collect();
        }
        options.bots = self.bots.iter().map(|bot| bot.id.value.clone()).collect();
        options.scripted_bots = self.bots.into();
        options.faults = self.faults.iter().map(|spec| (spec.endpoint, spec.times, spec.fault())).collect();
        options.behaviour = self.behaviour;
        options.token_ttl = self.token_ttl.unwrap_or(options.token_ttl);
        options.assertion_ttl = self.assertion_ttl.unwrap_or(options.assertion_ttl);
        options.rate_per_minute = self.rate_per_minute.unwrap_or(options.rate_per_minute);
    }
}

impl AppSpec {
    fn mistake(&self) -> Option<String> {
        let id = &self.id.value;
        match (&self.secret, &self.public_key) {
            (None, None) => return Some(format!("the app {id} needs a secret or a publicKey")),
            (Some(_), Some(_)) => {
                return Some(format!("the app {id} has a secret and a publicKey; it needs one"));
            }
            (None, Some(pem)) if DecodingKey::from_rsa_pem(pem.as_bytes()).is_err() => {
                return Some(format!("the publicKey of the app {id} is no RSA key in PEM"));
            }
            _ => {}
        }
        let misfit = self.algorithms.iter().find(|name| name.needs_secret() != self.secret.is_some())?;
        Some(format!("{misfit:?} does not fit the key of the app {id}"))
    }

    fn app(self) -> ClientApp {
        let key = match self.secret {
            Some(secret) => AppKey::Secret(secret.0),
            None => AppKey::RsaPublicPem(self.public_key.unwrap_or_default()),
        };
        let rules = AppRules {
            algorithms: self.algorithms.into_iter().map(AlgorithmName::algorithm).collect(),
            enforce_jti: self.enforce_jti,
            enforce_jwe: self.enforce_jwe,
            api_key: self.api_key.map(|key| key.0),
        };
        ClientApp { id: self.id.value, key, rules }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(yaml: &str) -> Vec<(u64, u64, String)> {
        let mistakes = BotScript::parse(yaml).expect_err("the script has a mistake");
        mistakes.into_iter().map(|mistake| (mistake.line, mistake.column, mistake.message)).collect()
    }

    /// Asserts that a script has one mistake, at this place, whose message contains a text.
    #[track_caller]
    fn mistake(yaml: &str, line: u64, column: u64, message: &str) {
        let found = mistakes(yaml);
        let [(at_line, at_column, text)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((*at_line, *at_column), (line, column), "{text}");
        assert!(text.contains(message) && !text.contains('\n'), "{text}");
    }

    #[test]
    fn mistake_is_told_with_its_place() {
        mistake("bots:\n  - id: st-1\n    rulez: []\n", 3, 5, "rulez");
        mistake("bots:\n  - id: st-1\n    rules:\n      - text: '(a'\n", 4, 15, "unclosed group");
        mistake("bots:\n  - id: st-1\n    welcome:\n      - wait: soon\n", 4, 9, "300ms");
        mistake("bots:\n  - id: st-1\n    welcome:\n      - {close: 1006}\n", 4, 17, "do: drop");
        mistake("bots:\n  - id: st-1\n    welcome:\n      - shape: nope\n", 4, 16, "quick_replies");
        mistake("bots:\n  - id: st-1\n    welcome:\n      - dance: x\n", 4, 9, "dance");
        mistake("bots: [{id: st-1}]\nbehaviour:\n  pongs: true\n", 3, 3, "pongs");
        mistake("bots: [\n", 1, 7, "unclosed");
        mistake("bots: []", 1, 1, "at least one bot");
    }

    #[test]
    fn contradictions_are_all_told() {
        let script = "\
apps:
  - {id: cs-1, secret: s, algorithms: [RS256]}
  - {id: cs-1, secret: s, publicKey: p}
  - {id: cs-2}
  - {id: cs-3, publicKey: p}
bots:
  - id: st-1
    rules:
      - {text: a, goto: nowhere}
    dialogs:
      there: [{goto: elsewhere}, {goto: there}]
";
        let found: Vec<_> = mistakes(script)
            .into_iter()
            .map(|(line, column, text)| format!("{line}:{column} {text}"))
            .collect();
        assert_eq!(
            found,
            [
                "3:10 the id cs-1 is given twice",
                "2:10 RS256 does not fit the key of the app cs-1",
                "3:10 the app cs-1 has a secret and a publicKey; it needs one",
                "4:10 the app cs-2 needs a secret or a publicKey",
                "5:10 the publicKey of the app cs-3 is no RSA key in PEM",
                "9:25 this bot has no dialog nowhere",
                "11:22 this bot has no dialog elsewhere",
            ]
        );
    }

    #[test]
    fn script_sets_the_options() {
        let public = include_str!("tests/rsa_public.pem").replace('\n', "\n      ");
        let script = format!(
            "apps:\n  - id: cs-1\n    publicKey: |\n      {public}\n    algorithms: [RS512]\n    enforceJti: true\n    apiKey: ek-1\n\
             bots: [{{id: st-1}}, {{id: st-2, name: Two}}]\ntokenTtl: 5m\nassertionTtl: 3s\nratePerMinute: 0\n\
             behaviour: {{agentDesk: vendor, ack: after, thinking: 1s, clockLead: -30}}\n\
             faults: [{{endpoint: start, times: 2, fault: hang}}]\n"
        );
        let mut options = SandboxOptions::default();
        BotScript::parse(&script).unwrap().apply(&mut options);
        assert_eq!(options.bots, ["st-1", "st-2"]);
        assert_eq!(options.scripted_bot("st-2").unwrap().name(), "Two");
        assert_eq!(
            (options.token_ttl, options.assertion_ttl),
            (Duration::from_mins(5), Duration::from_secs(3))
        );
        assert_eq!((options.rate_per_minute, options.faults.len()), (0, 1));
        let rules = &options.apps[0].rules;
        assert_eq!((rules.algorithms.as_slice(), rules.enforce_jti), (&[Algorithm::RS512][..], true));
        let behaviour = &options.behaviour;
        assert_eq!((behaviour.thinking, behaviour.clock_lead.as_secs()), (Duration::from_secs(1), -30));
        assert!(behaviour.pong, "switches that the script leaves out keep their defaults");
    }

    /// The schema in the repository is the one of the reader's types. `UPDATE_SCHEMA=1` writes it.
    #[test]
    fn schema_for_editors_is_the_readers() {
        let mut schema = schemars::schema_for!(BotScript);
        schema.insert("title".to_owned(), "A script for rtm-bridge sandbox --script".into());
        let mut text = serde_json::to_string_pretty(&schema).unwrap();
        text.push('\n');
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/bot-script.schema.json");
            return std::fs::write(path, &text).unwrap();
        }
        assert!(
            text == BotScript::SCHEMA,
            "UPDATE_SCHEMA=1 cargo test -p rtm-sandbox schema_for_editors writes the schema"
        );
    }
}
