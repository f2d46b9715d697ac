//! The profile's functions, fast, for each instruction set; the only home of unsafe code.
