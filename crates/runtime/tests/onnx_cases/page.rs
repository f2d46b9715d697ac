//! `docs/operators.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use isobit_graph::restated;
use isobit_ops::all;
use isobit_runtime::CONTROL_FLOW;

/// The page: `cases` has passed and all cases by `domain::operator`.
pub(crate) fn page(cases: &BTreeMap<String, (usize, usize)>, lines: &str) -> String {
    let types = types(lines);
    let mut rows: BTreeMap<(&str, String), (String, String)> = BTreeMap::new();
    for def in all() {
        rows.insert((def.domain, def.name.to_owned()), (format!("1 to {}", def.since), "kernel".into()));
    }
    for op in CONTROL_FLOW {
        rows.insert(("", op.to_owned()), ("1 to 25".into(), "runtime".into()));
    }
    for (domain, op) in restated() {
        rows.entry((domain, op.to_owned())).or_insert_with(|| ("every".into(), "restated".into()));
    }
    let mut text = String::from(
        "# Operators\n\nMade from the code by `ISOBIT_UPDATE=1 cargo test -p isobit-runtime --test onnx_cases`; CI compares.\n\n\
         *Versions*: the forms of the operator that are accepted, up to the newest it has. *How*: `kernel` is an operator of \
         its own; `runtime` runs graphs; `restated` becomes a graph of other operators when a model is opened, and \
         takes the types that these take. *Types*: those for which cases of `conformance.toml` give results, where it has any. *Cases*: passed \
         of all single-operator cases that ONNX (`node`), ONNX Runtime (`ml`, `microsoft`), Pillow (`image`) and, \
         in other element types, ONNX's reference implementation (`types`) give; \
         whatever does not pass is in `testdata/onnx-cases.txt` with its reason.\n",
    );
    let domains: BTreeSet<&str> = rows.keys().map(|(d, _)| *d).collect();
    for domain in domains {
        let title = if domain.is_empty() { "ai.onnx" } else { domain };
        let own = rows.iter().filter(|((d, _), _)| *d == domain);
        let _ = write!(text, "\n## {title}\n\n{} operators.\n\n", own.clone().count());
        text += "| operator | versions | how | types | cases |\n| --- | --- | --- | --- | ---: |\n";
        for ((_, op), (versions, how)) in own {
            let name = if domain.is_empty() { op.clone() } else { format!("{domain}::{op}") };
            let types = types.get(&name).map_or_else(String::new, |t| t.join(", "));
            let (passed, of) = cases.get(&name).copied().unwrap_or_default();
            let cases = if of == 0 { String::new() } else { format!("{passed} of {of}") };
            let _ = writeln!(text, "| {op} | {versions} | {how} | {types} | {cases} |");
        }
    }
    text
}

/// The types of each operator with results, from the lines of `conformance.toml`: `"Add float32" = [990, ..]`.
fn types(lines: &str) -> BTreeMap<String, Vec<&str>> {
    let mut types: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in lines.lines() {
        let Some((name, rest)) = line.strip_prefix('"').and_then(|l| l.split_once("\" = [")) else {
            continue;
        };
        let some = rest.split(',').next().is_some_and(|ok| ok != "0");
        if let Some((op, dtype)) = name.split_once(' ').filter(|_| some) {
            types.entry(op.to_owned()).or_default().push(dtype);
        }
    }
    types
}
