//! Canonical JSON: what of RFC 8785 an object needs, so that equal content is equal bytes. Keys in byte order, no white
//! space, unsigned integers, strings with only `"`, `\` and control characters escaped.

use std::collections::BTreeMap;
use std::fmt::Display;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Int(u64),
    Text(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    pub(crate) fn text(s: impl Display) -> Self {
        Json::Text(s.to_string())
    }

    pub(crate) fn object<const N: usize>(entries: [(&str, Json); N]) -> Self {
        Json::Object(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(m) => m.get(key),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Json::Text(s) => Some(s),
            _ => None,
        }
    }

    pub(crate) fn as_u64(&self) -> Option<u64> {
        match self {
            Json::Int(n) => Some(*n),
            _ => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Json]> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Json::Int(n) => out.push_str(&n.to_string()),
            Json::Text(s) => write_text(s, out),
            Json::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Json::Object(entries) => {
                out.push('{');
                for (i, (k, v)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_text(k, out);
                    out.push(':');
                    v.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Reads what [`Json::encode`] writes, and nothing else.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let json = Self::from_serde(&value, 0)?;
        (json.encode().as_bytes() == bytes).then_some(json)
    }

    fn from_serde(value: &serde_json::Value, depth: usize) -> Option<Self> {
        use serde_json::Value;
        if depth > MAX_DEPTH {
            return None;
        }
        Some(match value {
            Value::Number(n) => Json::Int(n.as_u64()?),
            Value::String(s) => Json::Text(s.clone()),
            Value::Array(items) => {
                Json::Array(items.iter().map(|v| Self::from_serde(v, depth + 1)).collect::<Option<_>>()?)
            }
            Value::Object(m) => Json::Object(
                m.iter()
                    .map(|(k, v)| Some((k.clone(), Self::from_serde(v, depth + 1)?)))
                    .collect::<Option<_>>()?,
            ),
            Value::Null | Value::Bool(_) => return None,
        })
    }
}

fn write_text(s: &str, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_is_read() {
        let json = Json::object([("b", Json::Int(1)), ("a", Json::Array(vec![Json::text("x\"\n\u{1}ü")]))]);
        let text = json.encode();
        assert_eq!(text, "{\"a\":[\"x\\\"\\n\\u0001ü\"],\"b\":1}");
        assert_eq!(Json::parse(text.as_bytes()), Some(json));
        for bad in [
            "{\"b\":1,\"a\":2}",
            "{ \"a\":1}",
            "{\"a\":1.0}",
            "{\"a\":-1}",
            "{\"a\":null}",
            "{\"a\":1,\"a\":1}",
            "",
        ] {
            assert_eq!(Json::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
