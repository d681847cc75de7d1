//! Templates of customers: lists, objects and values under names that no document has (protocol.md 7.3).

use serde_json::value::RawValue;

use super::choices::CHOICES;
use super::content_draft::ContentDraft;
use super::json_members::JsonMembers;
use super::labels::label;
use super::read_depth::ReadDepth;
use super::templates::{ITEMS, TABLE, WORDS, WRAPPERS};
use crate::domain::MediaKind;
use crate::domain::lenient_json::{string, string_or_number};

/// Templates whose members are known here (protocol.md 7.3). Lists of other names in them are not shown at once.
const DOCUMENTED: [&str; 39] = [
    "button",
    "quick_replies",
    "quick_replies_welcome",
    "list",
    "carousel",
    "table",
    "mini_table",
    "tableList",
    "piechart",
    "linechart",
    "barchart",
    "form_template",
    "multi_select",
    "advanced_multi_select",
    "dropdown_template",
    "dateTemplate",
    "daterange",
    "clockTemplate",
    "feedbackTemplate",
    "like_dislike",
    "listView",
    "listWidget",
    "cardTemplate",
    "custom_table",
    "advancedListTemplate",
    "advancedMultiListTemplate",
    "radioOptionTemplate",
    "checkListTemplate",
    "taskPickerTemplate",
    "miniTableChartTemplate",
    "miniTableHorizontalTemplate",
    "live_agent",
    "answerTemplate",
    "otpValidationTemplate",
    "resetPinTemplate",
    "articleTemplate",
    "search",
    "SYSTEM",
    "wait_for_response",
];
/// Names of values that are no words, in lower case, and ends of such names.
const TECHNICAL: [&str; 12] = [
    "id", "key", "view", "format", "lang", "language", "size", "width", "height", "version", "class",
    "action",
];
const TECHNICAL_ENDS: [&str; 11] =
    ["type", "_id", "color", "icon", "style", "styles", "shape", "alignment", "align", "layout", "url"];

impl ContentDraft {
    /// Reads the members of a template that have none of the known names. Those were read already. `is_bare` says that
    /// they had no lists, and `is_silent` that they had no words either.
    ///
    /// A documented template with lists tells no others: its window shows them after a click.
    pub(super) fn read_unknown(
        &mut self,
        object: &JsonMembers<'_>,
        template: &str,
        is_bare: bool,
        is_silent: bool,
        depth: ReadDepth,
    ) {
        let before = self.mark();
        let is_documented = DOCUMENTED.contains(&template);
        if !is_bare && is_documented {
            return;
        }
        let has_no_words = self.words().trim().is_empty();
        for (_, raw) in object.iter().filter(|(name, _)| !is_style(name) && !is_known(name)) {
            if raw.get().starts_with('{') {
                if is_bare {
                    self.read_unknown_object(raw, depth);
                }
            } else if let Some(text) = string(raw) {
                // A template without words may show the page of an address.
                let is_address = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
                if is_bare && has_no_words && is_address {
                    self.push_media(MediaKind::Link, Some(depth.plain(&text).trim()), None, true);
                }
            } else {
                self.read_items(raw, false, depth);
            }
        }
        if is_silent && !is_documented && self.mark() == before {
            self.read_values(object, depth);
        }
    }

    fn read_unknown_object(&mut self, raw: &RawValue, depth: ReadDepth) {
        let before = self.mark();
        self.read_value(raw, None, depth);
        if self.mark() == before
            && let Some(object) = JsonMembers::read(raw.get())
        {
            self.read_values(&object, depth);
        }
    }

    /// Reads the values of an object without known names as one line, as far as they may be words.
    pub(super) fn read_values(&mut self, object: &JsonMembers<'_>, depth: ReadDepth) {
        let values = object.iter().filter(|(name, _)| !is_technical(name)).map(|(_, raw)| raw);
        let values = values.filter(|raw| string_or_number(raw).is_some());
        let words: Vec<String> =
            values.filter_map(|raw| label(raw, depth)).filter(|text| is_wording(text)).collect();
        self.push_line(&words, " – ");
    }
}

fn is_style(name: &str) -> bool {
    name.ends_with("tyles") || name.ends_with("ayout")
}

fn is_known(name: &str) -> bool {
    ["payload", "attachments", "default_action"].contains(&name)
        || WORDS.contains(&name)
        || WRAPPERS.contains(&name)
        || ITEMS.contains(&name)
        || CHOICES.contains(&name)
        || TABLE.contains(&name)
}

fn is_technical(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TECHNICAL.contains(&&*name) || TECHNICAL_ENDS.iter().any(|end| name.ends_with(end))
}

/// Returns whether a text is neither an address, a colour, nor JSON.
fn is_wording(text: &str) -> bool {
    !text.contains("://") && !text.starts_with(['#', '/', '{', '[']) && !text.starts_with("data:")
}
