//! What people and machines read.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints one JSON document on standard output.
pub(crate) fn json(value: &serde_json::Value) {
    line(&value.to_string());
}

/// Prints a line on standard output; a reader that has gone away (`| head`) ends the program quietly.
pub(crate) fn line(text: &str) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Prints an error with its causes on standard error, or as JSON on standard output.
pub(crate) fn error(error: &anyhow::Error, as_json: bool) {
    if as_json {
        json(&serde_json::json!({ "error": format!("{error:#}") }));
    } else {
        eprintln!("error: {error:#}");
    }
}

/// Something that went wrong and does not matter to the result.
pub(crate) fn warning(text: &str) {
    eprintln!("warning: {text}");
}

/// A progress bar of `len` pieces, drawn only on a terminal and not beside JSON.
pub(crate) fn progress(len: u64, message: &'static str, as_json: bool) -> ProgressBar {
    let target = if as_json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(len), target);
    let style = ProgressStyle::with_template("{msg} [{bar:32}] {pos}/{len} {per_sec} eta {eta}")
        .expect("the template is valid");
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A table with columns as wide as their widest cell; the first row is the head.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let numeric = |c: usize| {
        let cells = rows.iter().skip(1).filter_map(|r| r.get(c)).filter(|s| !s.is_empty());
        cells.clone().count() > 0 && cells.clone().all(|s| s.starts_with(|ch: char| ch.is_ascii_digit()))
    };
    let right: Vec<bool> = (0..columns).map(numeric).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(c, s)| {
            let pad = " ".repeat(widths[c] - s.chars().count());
            if right[c] { format!("{pad}{s}") } else { format!("{s}{pad}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(super::thousands(n), text);
        }
    }

    #[test]
    fn tables_align() {
        let rows = [["op", "count"], ["Conv", "3"], ["Relu", "12"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|s| s.to_string()).collect()).collect();
        assert_eq!(super::table(&rows), "op    count\nConv      3\nRelu     12\n");
    }
}
