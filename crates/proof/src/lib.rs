//! Receipts, and how anyone checks them offline.
