//! The state machine: accounts, registry, stake, jobs, settlement. Pure rules.
