//! Text: StringConcat, StringSplit, StringNormalizer, RegexFullMatch.
//!
//! Letters change case by the mapping of the Unicode version in `icu_casemap`, which is data of that crate and so the
//! same on every node; the language is that of the attribute `locale`, the standard's root language where it is none.

use std::collections::BTreeSet;

use icu_casemap::CaseMapper;
use icu_locale_core::LanguageIdentifier;
use isobit_tensor::{DType, Tensor};
use regex::{Regex, RegexBuilder};

use crate::axes::fact;
use crate::broadcast::{broadcast, broadcast_facts, zip};
use crate::re2::translate;
use crate::{BuildCtx, Code, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("StringConcat", 20, |ctx| ctx.one(StringConcat)),
    OpDef::onnx("StringSplit", 20, string_split),
    OpDef::onnx("StringNormalizer", 10, string_normalizer),
    OpDef::onnx("RegexFullMatch", 20, regex_full_match),
];

/// Bytes of a compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;

fn text(x: &Fact) -> Result<(), OpError> {
    match x.dtype {
        None | Some(DType::String) => Ok(()),
        Some(t) => Err(OpError::unsupported_type(t)),
    }
}

/// Refuses results whose text is longer than one tensor may be.
fn bounded(ctx: &RunCtx<'_>, bytes: usize) -> Result<(), OpError> {
    ctx.memory.check::<u8>(&[bytes]).map(drop)
}

struct StringConcat;

impl Op for StringConcat {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (fact(inputs, 0), fact(inputs, 1));
        text(a)?;
        text(b)?;
        Ok(vec![Fact::new(Some(DType::String), broadcast_facts(&[a, b])?)])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let shape = broadcast(&[a.shape(), b.shape()])?;
        let mut out = ctx.memory.alloc::<String>(&shape)?;
        let (a, b) = ((a.as_slice::<String>()?, a.shape()), (b.as_slice::<String>()?, b.shape()));
        // Lengths first: repeated operands could make far more text than there was.
        let mut lengths = vec![0usize; out.len()];
        zip(ctx.exec, &shape, a, b, &mut lengths, |a, b| a.len() + b.len());
        bounded(ctx, lengths.into_iter().fold(0, usize::saturating_add))?;
        zip(ctx.exec, &shape, a, b, &mut out, |a, b| format!("{a}{b}"));
        Ok(vec![Tensor::new(&shape, out)?])
    }
}

/// Pieces of each string, filled up with empty ones, and how many there are.
struct StringSplit {
    /// White space (Unicode's property) where there is none.
    delimiter: Option<String>,
    most: usize,
}

fn string_split(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let delimiter = ctx.opt_str("delimiter")?.filter(|d| !d.is_empty()).map(str::to_owned);
    let most = match ctx.opt_int("maxsplit")? {
        None => usize::MAX,
        Some(n) => usize::try_from(n)
            .map_err(|_| OpError::attribute(format!("maxsplit is {n}; it must be 0 or more")))?,
    };
    ctx.at_most(2, StringSplit { delimiter, most })
}

impl StringSplit {
    fn split<'a>(&self, s: &'a str) -> Vec<&'a str> {
        match &self.delimiter {
            _ if s.is_empty() => Vec::new(),
            Some(d) => s.splitn(self.most.saturating_add(1), d.as_str()).collect(),
            None => words(s, self.most),
        }
    }
}

/// Words between white space; after `most` splits the rest of the text, without white space around it.
fn words(s: &str, most: usize) -> Vec<&str> {
    let (mut rest, mut out) = (s.trim(), Vec::new());
    while !rest.is_empty() {
        match rest.find(char::is_whitespace).filter(|_| out.len() < most) {
            Some(end) => {
                out.push(&rest[..end]);
                rest = rest[end..].trim_start();
            }
            None => {
                out.push(rest);
                break;
            }
        }
    }
    out
}

impl Op for StringSplit {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        text(x)?;
        let pieces = x.shape.as_ref().map(|s| [&s[..], &[None]].concat());
        Ok(vec![Fact::new(Some(DType::String), pieces), Fact::new(Some(DType::I64), x.shape.clone())])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let pieces: Vec<Vec<&str>> = x.as_slice::<String>()?.iter().map(|s| self.split(s)).collect();
        let most = pieces.iter().map(Vec::len).max().unwrap_or(0);
        let shape = [x.shape(), &[most]].concat();
        let mut out = ctx.memory.alloc::<String>(&shape)?;
        for (row, pieces) in out.chunks_exact_mut(most.max(1)).zip(&pieces) {
            for (o, piece) in row.iter_mut().zip(pieces) {
                o.push_str(piece);
            }
        }
        let counts: Vec<i64> = pieces.iter().map(|p| p.len() as i64).collect();
        Ok(vec![Tensor::new(&shape, out)?, Tensor::new(x.shape(), counts)?])
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Case {
    None,
    Lower,
    Upper,
}

impl Case {
    fn apply(self, s: &str, language: &LanguageIdentifier) -> String {
        let mapper = CaseMapper::new();
        match self {
            Self::None => s.to_owned(),
            Self::Lower => mapper.lowercase_to_string(s, language).into_owned(),
            Self::Upper => mapper.uppercase_to_string(s, language).into_owned(),
        }
    }
}

/// Elements that are stop words go, the others change their case.
struct StringNormalizer {
    case: Case,
    language: LanguageIdentifier,
    stop: BTreeSet<String>,
    /// How elements and stop words are brought together before they are compared.
    compare: Case,
}

fn string_normalizer(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let case = ctx.choice(
        "case_change_action",
        &[("NONE", Case::None), ("LOWER", Case::Lower), ("UPPER", Case::Upper)],
    )?;
    let locale = ctx.str("locale", "")?;
    let language = match locale.split(['.', '@']).next().unwrap_or("") {
        "" | "C" | "POSIX" => LanguageIdentifier::UNKNOWN,
        name => name.replace('_', "-").parse().map_err(|_| {
            OpError::attribute(format!("locale {locale:?}; give a language and country such as en_US"))
        })?,
    };
    let compare = match ctx.flag("is_case_sensitive", false)? {
        true => Case::None,
        false => Case::Lower,
    };
    let words = ctx.opt_strs("stopwords")?.unwrap_or_default();
    let stop = words.into_iter().map(|w| compare.apply(w, &language)).collect();
    ctx.one(StringNormalizer { case, language, stop, compare })
}

impl Op for StringNormalizer {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        text(x)?;
        let shape = match x.rank() {
            Some(1) => Some(vec![None]),
            Some(2) => Some(vec![Some(1), None]),
            _ => None,
        };
        Ok(vec![Fact::new(Some(DType::String), shape)])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let lead = match x.shape() {
            [_] => &[][..],
            [1, _] => &[1],
            other => {
                return Err(OpError::shape(format!("an input of shape {other:?}; it must be [C] or [1, C]")));
            }
        };
        let mut out: Vec<String> = Vec::new();
        let mut bytes = 0usize;
        for s in x.as_slice::<String>()? {
            if self.stop.is_empty() || !self.stop.contains(&self.compare.apply(s, &self.language)) {
                let changed = self.case.apply(s, &self.language);
                bytes = bytes.saturating_add(changed.len());
                bounded(ctx, bytes)?;
                out.push(changed);
            }
        }
        if out.is_empty() {
            out.push(String::new());
        }
        Ok(vec![Tensor::new(&[lead, &[out.len()]].concat(), out)?])
    }
}

/// Whether the pattern matches the whole of each string. Patterns are RE2's; matching takes time linear in the text.
struct RegexFullMatch(Regex);

fn regex_full_match(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let pattern = ctx.str("pattern", "")?;
    let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
    let own = translate(pattern);
    // By itself first, so that it cannot close the group around it.
    let compiled = build(&own).and_then(|_| build(&format!(r"\A(?:{own})\z")));
    match compiled {
        Ok(regex) => ctx.one(RegexFullMatch(regex)),
        Err(regex::Error::CompiledTooBig(_)) => {
            let message = format!("the pattern needs more than {PATTERN_BYTES} bytes; make it simpler");
            Err(OpError::new(Code::LimitExceeded, message))
        }
        Err(_) => {
            Err(OpError::attribute(format!("pattern {pattern:?} is no regular expression of RE2's syntax")))
        }
    }
}

impl Op for RegexFullMatch {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        text(x)?;
        Ok(vec![Fact::new(Some(DType::Bool), x.shape.clone())])
    }

    fn run(&self, _: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let out: Vec<bool> = x.as_slice::<String>()?.iter().map(|s| self.0.is_match(s)).collect();
        Ok(vec![Tensor::new(x.shape(), out)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_so_many_times() {
        assert_eq!(words("  a  b c ", usize::MAX), ["a", "b", "c"]);
        assert_eq!(words("  a  b c ", 1), ["a", "b c"]);
        assert_eq!(words(" a\u{2003}b ", 0), ["a\u{2003}b"]);
        assert!(words(" \t", 3).is_empty());
    }

    #[test]
    fn case_follows_the_language() {
        let language = |s: &str| s.parse::<LanguageIdentifier>().unwrap();
        assert_eq!(Case::Upper.apply("stra\u{df}e i", &language("en-US")), "STRASSE I");
        assert_eq!(Case::Upper.apply("i", &language("tr-TR")), "\u{130}");
        assert_eq!(
            Case::Lower.apply("\u{39f}\u{394}\u{39f}\u{3a3}", &language("el")),
            "\u{3bf}\u{3b4}\u{3bf}\u{3c2}"
        );
    }
}
