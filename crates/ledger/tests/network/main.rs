//! The rules as a whole, over signed blocks and over their bare actions.

mod play;
mod rules;
mod world;
