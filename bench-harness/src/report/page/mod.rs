//! The report page: one HTML file with everything in it, for a browser without a network.
//!
//! ```text
//! results folders ─ folders.rs ─ data.rs ─► JSON ─┐
//! page.html, page.css, script/*.js ───────────────┴► one file; the script draws SVG from the JSON
//! ```
//!
//! What holds: nothing that comes from a result is ever read as markup or as a script. The JSON has no
//! `<`, so that no name ends its element, and the script only sets text. Should that ever fail, the
//! page's content security policy runs no script but its own and lets nothing be fetched.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::exit::Failure;
use crate::recorded::Recorded;

pub mod data;
pub mod folders;

use data::{Data, Run};
use folders::Named;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// One scope, in this order; a part knows those before it.
const SCRIPT: &str = concat!(
    "(() => {\n'use strict';\n",
    include_str!("script/element.js"),
    include_str!("script/words.js"),
    include_str!("script/scale.js"),
    include_str!("script/state.js"),
    include_str!("script/plot.js"),
    include_str!("script/legend.js"),
    include_str!("script/latency.js"),
    include_str!("script/throughput.js"),
    include_str!("script/bars.js"),
    include_str!("script/sweep.js"),
    include_str!("script/tables.js"),
    include_str!("script/difference.js"),
    include_str!("script/start.js"),
    "})();\n",
);

/// The page of these runs. Each is read, boiled down and dropped before the next: the histograms of a
/// long run take hundreds of MiB.
pub fn page(runs: &[Named]) -> Result<String, Failure> {
    let boiled = runs.iter().map(|named| {
        let recorded = Recorded::open(&named.folder)?;
        Ok(Run::of(&named.name, &recorded))
    });
    render(&Data::of(boiled.collect::<Result<_, Failure>>()?))
}

/// The file.
fn render(data: &Data) -> Result<String, Failure> {
    let json = serde_json::to_string(data)
        .map_err(|error| Failure::output(format!("the page's data: {error}")))?;
    let json = escaped(&json);
    // Not known to who names a folder, and the same for the same data.
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    let nonce = format!("{:016x}", hasher.finish());
    Ok(filled(HTML, |name| match name {
        "nonce" => &nonce,
        "style" => STYLE,
        "data" => &json,
        "script" => SCRIPT,
        _ => "",
    }))
}

/// JSON that can stand inside a `<script>` element: `<` occurs in JSON only inside strings, where it
/// may be written as an escape. The two line separators are no line ends in JSON, but were in
/// scripts.
fn escaped(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// `template` with every `{{name}}` replaced, in one pass: what is put in is not looked at again.
fn filled<'a>(template: &str, value: impl Fn(&str) -> &'a str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(value(name));
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
