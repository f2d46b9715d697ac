//! Fetches models, serves inference, signs receipts, earns; the network in one process.
