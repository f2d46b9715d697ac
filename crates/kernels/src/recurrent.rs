//! What the cells of recurrent operators do to their state, element by element; every operation is rounded.

use crate::Exec;
use crate::dispatch::multiversion;

/// `state[i] = forget[i] * state[i] + input[i] * candidate[i]`: the cell's state of an LSTM.
///
/// # Panics
/// When a slice is shorter than the state.
pub fn keep(exec: Exec<'_>, state: &mut [f32], forget: &[f32], input: &[f32], candidate: &[f32]) {
    let n = state.len();
    keep_all(exec.set(), state, &forget[..n], &input[..n], &candidate[..n]);
}

/// `state[i] = (1 - update[i]) * candidate[i] + update[i] * state[i]`: the state of a GRU.
///
/// # Panics
/// When a slice is shorter than the state.
pub fn mix(exec: Exec<'_>, state: &mut [f32], update: &[f32], candidate: &[f32]) {
    let n = state.len();
    mix_all(exec.set(), state, &update[..n], &candidate[..n]);
}

multiversion! {
    fn keep_all(state: &mut [f32], forget: &[f32], input: &[f32], candidate: &[f32]) {
        for (((s, f), i), c) in state.iter_mut().zip(forget).zip(input).zip(candidate) {
            *s = f * *s + i * c;
        }
    }
}

multiversion! {
    fn mix_all(state: &mut [f32], update: &[f32], candidate: &[f32]) {
        for ((s, z), n) in state.iter_mut().zip(update).zip(candidate) {
            *s = (1.0 - z) * n + z * *s;
        }
    }
}
