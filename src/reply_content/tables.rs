//! Tables and charts: a line for the names of the columns, and one for each row (protocol.md 7.3).

use serde_json::value::RawValue;

use super::content_draft::ContentDraft;
use super::json_members::JsonMembers;
use super::labels::{TITLES, cell, first_label};
use super::read_depth::ReadDepth;
use crate::domain::lenient_json::elements;

/// Members that name the columns.
const COLUMNS: [&str; 4] = ["columns", "X_axis", "x_axis", "headers"];
/// Members of an element that hold the cells of its row, in the order of preference.
const CELLS: [&str; 4] = ["displayValues", "Values", "rowData", "cells"];
/// A member that holds cells, or items.
const CELLS_OR_ITEMS: [&str; 1] = ["values"];

const SEPARATOR: &str = " | ";

/// Returns whether a list has the cells of a row, not a list of objects.
fn is_row(raw: &RawValue) -> bool {
    elements(raw)
        .is_some_and(|cells| !cells.is_empty() && cells.iter().all(|cell| !cell.get().starts_with('{')))
}

impl ContentDraft {
    /// Reads the names of the columns, and the rows that stand beside them.
    pub(super) fn read_table(&mut self, table: &JsonMembers<'_>, depth: ReadDepth) {
        let Some(depth) = depth.down() else { return };
        if let Some(columns) = table.of(&COLUMNS).filter_map(elements).find(|columns| !columns.is_empty()) {
            let is_layout = |raw: &&RawValue| {
                JsonMembers::read(raw.get()).is_some_and(|column| column.has_any(&["items"]))
            };
            if columns.iter().any(is_layout) {
                for column in columns {
                    self.read_value(column, None, depth);
                }
                return;
            }
            let names: Vec<String> = columns.into_iter().map(|raw| cell(raw, depth)).collect();
            self.push_line(&names, SEPARATOR);
        }
        for row in table.get("rows").and_then(elements).unwrap_or_default() {
            if self.is_full() {
                return;
            }
            if row.get().starts_with('[') {
                self.read_row(None, row, depth);
            } else if row.get().starts_with('{') {
                self.read_item(row, true, depth);
            }
        }
    }

    /// Reads the row of an element. Returns false if it is none.
    pub(super) fn read_cells(&mut self, element: &JsonMembers<'_>, depth: ReadDepth) -> bool {
        if let Some(primary) = element.get("primary").filter(|raw| is_row(raw)) {
            self.read_row(None, primary, depth);
            for row in element.get("additional").and_then(elements).unwrap_or_default() {
                self.read_row(None, row, depth);
            }
            return true;
        }
        let is_list = |raw: &&RawValue| elements(raw).is_some_and(|cells| !cells.is_empty());
        let cells = element.of(&CELLS).find(is_list);
        let cells = cells.or_else(|| element.of(&CELLS_OR_ITEMS).find(|raw| is_row(raw)));
        let Some(cells) = cells else { return false };
        let title = first_label(element, &TITLES, depth);
        self.read_row(title, cells, depth);
        true
    }

    /// Reads a row of cells, behind its title if it has one. A row of dashes is a rule and has no words.
    pub(super) fn read_row(&mut self, title: Option<String>, cells: &RawValue, depth: ReadDepth) {
        let cells = elements(cells).unwrap_or_default();
        let words = cells.iter().map(|raw| cell(raw, depth));
        let words: Vec<String> = title.into_iter().chain(words).collect();
        if words.iter().all(|word| word.chars().all(|c| c == '-')) {
            return;
        }
        self.push_line(&words, SEPARATOR);
        for raw in cells {
            // A cell may be a button: its words, its kind, and what it does.
            let parts = elements(raw).unwrap_or_default();
            if let Some(action) = parts.iter().find(|part| part.get().starts_with('{')) {
                self.read_action(action, Some(&cell(raw, depth)), depth);
            }
        }
    }
}
