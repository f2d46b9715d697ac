//! What validators have said lately, to see who contradicts itself. The core looks at the height it works on; who is a little late
//! with its second word is seen here.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use isobit_ledger::{BallotKind, SignedBallot};

/// Heights that are remembered, and rounds of each.
const HEIGHTS: u64 = 64;
const ROUNDS: i64 = 32;

/// The first word of each validator in each vote.
#[derive(Debug, Default)]
pub(crate) struct Book {
    said: BTreeMap<(u64, i64, BallotKind, Address), SignedBallot>,
}

impl Book {
    /// Whether a ballot of this height and round is of interest, when so many heights are decided.
    pub(crate) fn covers(height: u64, round: i64, decided: u64) -> bool {
        height + HEIGHTS > decided && (0..ROUNDS).contains(&round)
    }

    /// Remembers a ballot whose signature is good; returns an earlier one that it contradicts.
    pub(crate) fn see(&mut self, signed: SignedBallot, decided: u64) -> Option<SignedBallot> {
        let b = &signed.ballot;
        if !Self::covers(b.height, b.round, decided) {
            return None;
        }
        let first = *self.said.entry((b.height, b.round, b.kind, b.validator)).or_insert(signed);
        (first.ballot != signed.ballot).then_some(first)
    }

    /// Forgets what is too old.
    pub(crate) fn forget(&mut self, decided: u64) {
        let oldest = (decided + 1).saturating_sub(HEIGHTS);
        self.said = self.said.split_off(&(oldest, i64::MIN, BallotKind::Prevote, Address::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use isobit_ledger::Ballot;

    use super::*;

    #[test]
    fn only_another_word_in_the_same_vote_contradicts() {
        let ballot = |height, round, kind, value: u8| SignedBallot {
            ballot: Ballot {
                kind,
                height,
                round,
                pol_round: -1,
                value: B256::repeat_byte(value),
                validator: Address::repeat_byte(1),
            },
            signature: [value; 65],
        };
        let mut book = Book::default();
        let first = ballot(100, 0, BallotKind::Prevote, 1);
        assert_eq!(book.see(first, 99), None);
        assert_eq!(book.see(first, 99), None);
        for other in [
            ballot(100, 1, BallotKind::Prevote, 2),
            ballot(100, 0, BallotKind::Precommit, 2),
            ballot(101, 0, BallotKind::Prevote, 2),
            ballot(1, 0, BallotKind::Prevote, 1),
            ballot(1, 0, BallotKind::Prevote, 2),
            ballot(100, ROUNDS, BallotKind::Prevote, 1),
            ballot(100, ROUNDS, BallotKind::Prevote, 2),
        ] {
            assert_eq!(book.see(other, 100), None);
        }
        assert_eq!(book.see(ballot(100, 0, BallotKind::Prevote, 2), 120), Some(first));
        book.forget(120);
        assert_eq!(book.said.len(), 4);
        book.forget(100 + HEIGHTS);
        assert_eq!(book.said.len(), 1);
    }
}
