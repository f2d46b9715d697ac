use std::fmt;

use alloy_rlp::{BufMut, Decodable, Encodable};

/// How sure the requester wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// One staked node says so.
    Signed,
    /// This many nodes, two or more, commit, reveal and agree bit for bit.
    Replicated(u8),
    /// Open to challenge for a window. Not settled by this version.
    Optimistic,
    /// An enclave signs. Not settled by this version.
    Attested,
    /// A zero-knowledge proof. Not settled by this version.
    Proved,
}

impl Level {
    /// The level at which `n` nodes run the job.
    pub fn of(n: u8) -> Self {
        if n == 1 { Level::Signed } else { Level::Replicated(n) }
    }

    /// How many nodes are drawn at first; `None` for a level that this version does not settle.
    pub fn replicas(self) -> Option<u8> {
        match self {
            Level::Signed => Some(1),
            Level::Replicated(n) => Some(n),
            Level::Optimistic | Level::Attested | Level::Proved => None,
        }
    }

    /// The kind times 256, plus the number of nodes of `replicated`.
    pub fn code(self) -> u16 {
        match self {
            Level::Signed => 0,
            Level::Replicated(n) => 0x100 | u16::from(n),
            Level::Optimistic => 0x200,
            Level::Attested => 0x300,
            Level::Proved => 0x400,
        }
    }

    /// The level of a code.
    pub fn from_code(code: u16) -> Option<Self> {
        let level = match code >> 8 {
            0 => Level::Signed,
            1 => Level::Replicated(code as u8),
            2 => Level::Optimistic,
            3 => Level::Attested,
            _ => Level::Proved,
        };
        (level.code() == code).then_some(level)
    }
}

/// `signed`, `replicated(3)`, `optimistic`, `attested`, `proved`.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Signed => f.write_str("signed"),
            Level::Replicated(n) => write!(f, "replicated({n})"),
            Level::Optimistic => f.write_str("optimistic"),
            Level::Attested => f.write_str("attested"),
            Level::Proved => f.write_str("proved"),
        }
    }
}

impl Encodable for Level {
    fn encode(&self, out: &mut dyn BufMut) {
        self.code().encode(out);
    }

    fn length(&self) -> usize {
        self.code().length()
    }
}

impl Decodable for Level {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        Level::from_code(u16::decode(buf)?).ok_or(alloy_rlp::Error::Custom("no such level"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_one_level_or_none() {
        let mut levels = 0;
        for code in 0..=u16::MAX {
            if let Ok(level) = Level::decode(&mut &alloy_rlp::encode(code)[..]) {
                assert_eq!(alloy_rlp::encode(level), alloy_rlp::encode(code));
                levels += 1;
            }
        }
        assert_eq!(levels, 4 + 256);
        assert_eq!(Level::of(3).to_string(), "replicated(3)");
        assert_eq!(Level::of(1), Level::Signed);
    }
}
