use alloy_primitives::{Address, B256, Bytes};

/// What an applied transaction or the end of a block did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A model was registered.
    Published {
        /// Its content address.
        model: B256,
        /// Who published it.
        owner: Address,
        /// Its name.
        name: String,
    },
    /// A model's manifest is on the ledger.
    Described {
        /// The model.
        model: B256,
    },
    /// A node joined.
    Joined {
        /// Which.
        node: Address,
        /// Its stake.
        stake: u128,
    },
    /// A validator joined; its stake weighs from the next block on.
    ValidatorJoined {
        /// Which.
        validator: Address,
        /// Its stake.
        stake: u128,
    },
    /// A validator contradicted itself, lost a part of its stake, and votes no more.
    Equivocated {
        /// Which.
        validator: Address,
        /// The block's height that it voted on.
        height: u64,
        /// Base units taken.
        amount: u128,
        /// Who showed it.
        accuser: Address,
    },
    /// A node will not be drawn any more.
    Left {
        /// Which.
        node: Address,
        /// Block time from which the stake can be withdrawn.
        until: u64,
    },
    /// A node took its stake back.
    Withdrawn {
        /// Which.
        node: Address,
        /// Base units.
        stake: u128,
    },
    /// A job was posted and its fee put in escrow.
    Posted {
        /// Its id.
        job: B256,
        /// Who asked.
        requester: Address,
        /// The model.
        model: B256,
        /// Root of the inputs.
        inputs: B256,
        /// The inputs themselves, if they came with the posting; else empty.
        tensors: Bytes,
    },
    /// A set of tensors is on the ledger.
    Provided {
        /// Its root.
        root: B256,
    },
    /// Nodes were drawn.
    Assigned {
        /// The job.
        job: B256,
        /// 0 at first, 1 for the escalation.
        round: u8,
        /// The drawn ones, in order.
        nodes: Vec<Address>,
    },
    /// A node committed.
    Committed {
        /// The job.
        job: B256,
        /// The node.
        node: Address,
    },
    /// Commitments are closed; nodes may reveal.
    Opened {
        /// The job.
        job: B256,
    },
    /// A node revealed.
    Revealed {
        /// The job.
        job: B256,
        /// The node.
        node: Address,
        /// Root of the outputs; zero for a failure.
        outputs: B256,
        /// The failure's code; 0 for none.
        failure: u16,
        /// Metered cost.
        cost: u64,
    },
    /// A node lost stake.
    Penalised {
        /// The job.
        job: B256,
        /// The node.
        node: Address,
        /// Base units taken.
        amount: u128,
        /// It revealed something else than the majority; otherwise it was silent.
        slashed: bool,
    },
    /// A job was settled.
    Settled {
        /// Its id.
        job: B256,
        /// Paid to nodes and the model's owner.
        paid: u128,
        /// Returned to the requester.
        returned: u128,
    },
    /// A job ended without agreement; the escrow went back.
    Refunded {
        /// Its id.
        job: B256,
        /// Returned to the requester.
        returned: u128,
    },
}
