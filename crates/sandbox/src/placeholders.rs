//! The values that stand for `${…}` in a script's texts, and its chance.

use regex::Captures;
use serde_json::Value;

use super::message_elements;
use super::random_sequence::RandomSequence;

/// Values of a message that replace `${…}` in a script's texts.
#[derive(Debug, Default)]
pub(super) struct Placeholders<'a> {
    pub(super) text: &'a str,
    pub(super) user: &'a str,
    /// Groups of the rule's patterns.
    pub(super) groups: Vec<Captures<'a>>,
    /// Chance of the steps that leave something to it.
    pub(super) random: RandomSequence,
}

impl Placeholders<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        let group = self.groups.iter().find_map(|groups| match name.parse::<usize>() {
            Ok(number) => groups.get(number),
            Err(_) => groups.name(name),
        });
        match (group, name) {
            (Some(group), _) => Some(group.as_str()),
            (None, "text") => Some(self.text),
            (None, "user") => Some(self.user),
            _ => None,
        }
    }

    /// Replaces each known `${name}`. Others stay as they are.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            filled.push_str(before);
            let known = behind.split_once('}').and_then(|(name, after)| Some((self.value(name)?, after)));
            let (value, after) = known.unwrap_or(("${", behind));
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    pub(super) fn fill_all(&self, elements: &[Value]) -> Vec<Value> {
        elements
            .iter()
            .map(|element| message_elements::with_strings(element, &|text| self.fill(text)))
            .collect()
    }
}
