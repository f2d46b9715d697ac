//! `conformance.toml`.

use std::collections::BTreeMap;

use isobit_graph::PROFILE;
use isobit_tensor::Hash;
use serde::Deserialize;

use crate::line::{CASES, Hashes, QUICK};

/// The file in this crate.
pub static FILE: &str = include_str!("../conformance.toml");

/// The hashes of every line and model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    /// By line: `Add float32`.
    pub lines: BTreeMap<String, Hashes>,
    /// By model: the root of its outputs.
    pub models: BTreeMap<String, Hash>,
}

/// A file that is not one.
#[derive(Debug, thiserror::Error)]
#[error("conformance.toml: {0}")]
pub struct FileError(String);

#[derive(Deserialize)]
struct Raw {
    profile: String,
    cases: u64,
    quick: u64,
    models: BTreeMap<String, String>,
    lines: BTreeMap<String, (u64, String, String)>,
}

impl File {
    /// Reads a file of this profile.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let raw: Raw = toml::from_str(text).map_err(|e| FileError(e.to_string()))?;
        if (raw.profile.as_str(), raw.cases, raw.quick) != (PROFILE, CASES, QUICK) {
            return Err(FileError(format!(
                "it is for {} with {} and {} cases",
                raw.profile, raw.quick, raw.cases
            )));
        }
        let hash = |s: &str| s.parse::<Hash>().map_err(|e| FileError(e.to_string()));
        let line = |(name, (ok, quick, all)): (String, (u64, String, String))| {
            Ok((name, Hashes { quick: hash(&quick)?, all: Some(hash(&all)?), ok }))
        };
        Ok(Self {
            lines: raw.lines.into_iter().map(line).collect::<Result<_, FileError>>()?,
            models: raw
                .models
                .into_iter()
                .map(|(n, r)| Ok((n, hash(&r)?)))
                .collect::<Result<_, FileError>>()?,
        })
    }
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "# What every machine must compute. Of a line: the cases that give results, the hash over the first {QUICK}"
        )?;
        writeln!(
            f,
            "# outcomes, the hash over all {CASES}. Written by `isobit conformance --write`; a change here is a change of"
        )?;
        writeln!(f, "# the profile, and needs one of its name unless the line is new.")?;
        writeln!(f, "profile = \"{PROFILE}\"\ncases = {CASES}\nquick = {QUICK}\n\n[models]")?;
        for (name, root) in &self.models {
            writeln!(f, "{name:?} = \"{root}\"")?;
        }
        writeln!(f, "\n[lines]")?;
        for (name, h) in &self.lines {
            let all = h.all.unwrap_or(h.quick);
            writeln!(f, "{name:?} = [{}, \"{}\", \"{all}\"]", h.ok, h.quick)?;
        }
        Ok(())
    }
}
