//! Sessions: load, plan, run, trace, meter, threads.
