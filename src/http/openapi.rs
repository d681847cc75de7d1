//! The OpenAPI document and the page made from it.
//!
//! The document is written by hand (`openapi.json`), because what it describes is: responses are written
//! straight from domain types that know nothing of HTTP, and bodies are read field by field. Tests hold it to
//! the route table, the problem table and real resources.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::Value;

use crate::domain::ProblemKind;

const SOURCE: &str = include_str!("openapi.json");

/// The look of all pages.
pub(super) const STYLE: &str = "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;\
padding:0 1rem;color:#222}code,pre{font-family:ui-monospace,monospace;font-size:.9em}pre{background:#f4f4f4;\
padding:.8rem;overflow:auto}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;\
padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd}</style>";

/// The document of this version.
pub(super) fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> =
        LazyLock::new(|| SOURCE.replace("\"VERSION\"", concat!("\"", env!("CARGO_PKG_VERSION"), "\"")));
    &DOCUMENT
}

/// The document for people.
pub(super) fn page() -> &'static str {
    static PAGE: LazyLock<String> =
        LazyLock::new(|| render(&serde_json::from_str(document()).unwrap_or_default()));
    &PAGE
}

fn render(document: &Value) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>rtm-bridge</title>{STYLE}\
         <h1>{} {}</h1><p>{}</p><p>For machines: <a href=\"/openapi.json\">openapi.json</a></p>",
        text(document, "/info/title"),
        text(document, "/info/version"),
        text(document, "/info/description"),
    );
    for (path, operations) in members(document, "/paths") {
        for (method, operation) in members(operations, "") {
            if operation.get("responses").is_some() {
                render_operation(&mut page, document, &method.to_uppercase(), path, operation);
            }
        }
    }
    page.push_str("<h2>Resources</h2>");
    for (name, schema) in members(document, "/components/schemas") {
        let _ = write!(page, "<h3>{}</h3><p>{}</p>", escape(name), text(schema, "/description"));
        render_properties(&mut page, schema);
    }
    page.push_str("<h2>Problems</h2><table><tr><th>slug<th>status<th>title");
    for kind in ProblemKind::ALL {
        let (slug, status, title) = (kind.slug(), kind.status(), kind.title());
        let _ = write!(page, "<tr><td><a href=\"/problems/{slug}\">{slug}</a><td>{status}<td>{title}");
    }
    page.push_str("</table></html>");
    page
}

fn render_operation(page: &mut String, document: &Value, method: &str, path: &str, operation: &Value) {
    let _ = write!(
        page,
        "<h2><code>{method} {}</code></h2><p>{}</p><p>{}</p><table><tr><th>parameter<th>in<th>meaning",
        escape(path),
        text(operation, "/summary"),
        text(operation, "/description"),
    );
    for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let parameter = resolve(document, parameter);
        let (name, place) = (text(parameter, "/name"), text(parameter, "/in"));
        let _ = write!(page, "<tr><td><code>{name}</code><td>{place}<td>{}", text(parameter, "/description"));
    }
    page.push_str("</table><table><tr><th>status<th>meaning");
    for (status, response) in members(operation, "/responses") {
        let response = resolve(document, response);
        let _ = write!(page, "<tr><td>{}<td>{}", escape(status), text(response, "/description"));
    }
    page.push_str("</table>");
    for (_, media) in members(operation, "/requestBody/content") {
        if let Some(example) = media.get("example") {
            let _ = write!(page, "<pre>{}</pre>", escape(&format!("{example:#}")));
        }
    }
}

fn render_properties(page: &mut String, schema: &Value) {
    page.push_str("<table>");
    for (name, property) in members(schema, "/properties") {
        let _ = write!(page, "<tr><td><code>{}</code><td>{}", escape(name), text(property, "/description"));
    }
    page.push_str("</table>");
}

/// What a `$ref` into the document points to; anything else as it is.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = value.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
    target.and_then(|target| document.pointer(target)).unwrap_or(value)
}

fn members<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flatten()
}

fn text(value: &Value, pointer: &str) -> String {
    escape(value.pointer(pointer).and_then(Value::as_str).unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
