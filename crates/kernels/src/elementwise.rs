//! Two operands, element by element, with broadcasting.

use isobit_numerics as num;

use crate::{Exec, KernelSet};

/// A function of two elements, rounded once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a * b.
    Mul,
    /// a / b.
    Div,
    /// The larger, by the profile's rule.
    Max,
    /// The smaller, by the profile's rule.
    Min,
}

impl Binary {
    /// The function of one pair.
    #[inline(always)]
    pub fn scalar(self, a: f32, b: f32) -> f32 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Max => num::max(a, b),
            Binary::Min => num::min(a, b),
        }
    }
}

/// One operand as it lies against the result, seen as `[outer, inner]`.
#[derive(Debug, Clone, Copy)]
pub enum Operand<'a> {
    /// As many elements as the result.
    Full(&'a [f32]),
    /// One row of `inner` elements, repeated.
    Row(&'a [f32]),
    /// One element for each of the `outer` rows, repeated along the row.
    Column(&'a [f32]),
}

/// `y[o, i] = f(a[o, i], b[o, i])` with `inner` elements a row, on the pool for long results.
///
/// # Panics
/// When an operand does not have the length its kind says.
pub fn binary(exec: Exec<'_>, f: Binary, a: Operand<'_>, b: Operand<'_>, inner: usize, y: &mut [f32]) {
    check(a, inner, y.len());
    check(b, inner, y.len());
    if y.is_empty() {
        return;
    }
    crate::rows(exec, y, inner, 1 << 14, |first, part| {
        for (r, y) in part.chunks_exact_mut(inner).enumerate() {
            let o = first + r;
            run(exec, f, row(a, o, inner), row(b, o, inner), y);
        }
    });
}

/// `x[o, i] = f(x[o, i], b[o, i])`, or with the operands' places exchanged.
///
/// # Panics
/// When `b` does not have the length its kind says.
pub fn binary_in_place(
    exec: Exec<'_>,
    f: Binary,
    x: &mut [f32],
    b: Operand<'_>,
    inner: usize,
    exchanged: bool,
) {
    check(b, inner, x.len());
    if x.is_empty() {
        return;
    }
    if x.len() == inner {
        // One row: cut anywhere.
        return crate::split(exec, x, 1 << 14, |at, part| {
            let b = match row(b, 0, inner) {
                Part::Many(b) => Part::Many(&b[at..at + part.len()]),
                one => one,
            };
            in_place_row(exec.set(), f, part, b, exchanged);
        });
    }
    crate::rows(exec, x, inner, 1 << 14, |first, part| {
        for (r, x) in part.chunks_exact_mut(inner).enumerate() {
            in_place_row(exec.set(), f, x, row(b, first + r, inner), exchanged);
        }
    });
}

fn check(operand: Operand<'_>, inner: usize, len: usize) {
    let outer = len.checked_div(inner).unwrap_or(0);
    match operand {
        Operand::Full(x) => assert_eq!(x.len(), len),
        Operand::Row(x) => assert!(x.len() == inner || len == 0),
        Operand::Column(x) => assert!(x.len() == outer || len == 0),
    }
}

/// `y[i] = f(a[i], b[i])`, on the calling thread.
///
/// # Panics
/// When there are fewer elements than results.
pub fn run(exec: Exec<'_>, f: Binary, a: Part<'_>, b: Part<'_>, y: &mut [f32]) {
    let (set, n) = (exec.set(), y.len());
    match (a, b) {
        (Part::Many(a), Part::Many(b)) => many_many(set, f, &a[..n], &b[..n], y),
        (Part::Many(a), Part::One(b)) => many_one(set, f, &a[..n], b, y),
        (Part::One(a), Part::Many(b)) => one_many(set, f, a, &b[..n], y),
        (Part::One(a), Part::One(b)) => y.fill(f.scalar(a, b)),
    }
}

/// `y[i] = x[i]` where `condition[i]`, on the calling thread.
///
/// # Panics
/// When there are fewer elements than results.
pub fn replace(exec: Exec<'_>, condition: &[bool], x: Part<'_>, y: &mut [f32]) {
    let n = y.len();
    match x {
        Part::Many(x) => replace_many(exec.set(), &condition[..n], &x[..n], y),
        Part::One(x) => replace_one(exec.set(), &condition[..n], x, y),
    }
}

/// Whether each element is no number, on the pool for long slices.
///
/// # Panics
/// When the lengths differ.
pub fn is_nan(exec: Exec<'_>, x: &[f32], y: &mut [bool]) {
    assert_eq!(x.len(), y.len());
    crate::split(exec, y, 1 << 15, |at, part| nan_all(exec.set(), &x[at..at + part.len()], part));
}

/// The elements of an operand in a row of results.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// One for each.
    Many(&'a [f32]),
    /// The same for all.
    One(f32),
}

#[inline(always)]
fn row(operand: Operand<'_>, o: usize, inner: usize) -> Part<'_> {
    match operand {
        Operand::Full(x) => Part::Many(&x[o * inner..(o + 1) * inner]),
        Operand::Row(x) => Part::Many(x),
        Operand::Column(x) => Part::One(x[o]),
    }
}

/// Hands a closure for one operation to the loop, so that the choice is made outside of it.
macro_rules! by_operation {
    ($f:expr, $op:ident => $body:expr) => {
        match $f {
            Binary::Add => {
                let $op = |a: f32, b: f32| a + b;
                $body
            }
            Binary::Sub => {
                let $op = |a: f32, b: f32| a - b;
                $body
            }
            Binary::Mul => {
                let $op = |a: f32, b: f32| a * b;
                $body
            }
            Binary::Div => {
                let $op = |a: f32, b: f32| a / b;
                $body
            }
            Binary::Max => {
                let $op = |a: f32, b: f32| num::max(a, b);
                $body
            }
            Binary::Min => {
                let $op = |a: f32, b: f32| num::min(a, b);
                $body
            }
        }
    };
}

crate::dispatch::multiversion! {
    pub(crate) fn many_many(f: Binary, a: &[f32], b: &[f32], y: &mut [f32]) {
        by_operation!(f, op => for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) { *y = op(a, b); });
    }
}
crate::dispatch::multiversion! {
    fn many_one(f: Binary, a: &[f32], b: f32, y: &mut [f32]) {
        by_operation!(f, op => for (y, &a) in y.iter_mut().zip(a) { *y = op(a, b); });
    }
}
crate::dispatch::multiversion! {
    fn one_many(f: Binary, a: f32, b: &[f32], y: &mut [f32]) {
        by_operation!(f, op => for (y, &b) in y.iter_mut().zip(b) { *y = op(a, b); });
    }
}
crate::dispatch::multiversion! {
    pub(crate) fn in_place_many(f: Binary, x: &mut [f32], b: &[f32], exchanged: bool) {
        if exchanged {
            by_operation!(f, op => for (x, &b) in x.iter_mut().zip(b) { *x = op(b, *x); });
        } else {
            by_operation!(f, op => for (x, &b) in x.iter_mut().zip(b) { *x = op(*x, b); });
        }
    }
}
crate::dispatch::multiversion! {
    fn in_place_one(f: Binary, x: &mut [f32], b: f32, exchanged: bool) {
        if exchanged {
            by_operation!(f, op => for x in x.iter_mut() { *x = op(b, *x); });
        } else {
            by_operation!(f, op => for x in x.iter_mut() { *x = op(*x, b); });
        }
    }
}

fn in_place_row(set: KernelSet, f: Binary, x: &mut [f32], b: Part<'_>, exchanged: bool) {
    match b {
        Part::Many(b) => in_place_many(set, f, x, b, exchanged),
        Part::One(b) => in_place_one(set, f, x, b, exchanged),
    }
}
crate::dispatch::multiversion! {
    fn replace_many(condition: &[bool], x: &[f32], y: &mut [f32]) {
        for ((y, &x), &c) in y.iter_mut().zip(x).zip(condition) {
            *y = if c { x } else { *y };
        }
    }
}
crate::dispatch::multiversion! {
    fn replace_one(condition: &[bool], x: f32, y: &mut [f32]) {
        for (y, &c) in y.iter_mut().zip(condition) {
            *y = if c { x } else { *y };
        }
    }
}
crate::dispatch::multiversion! {
    fn nan_all(x: &[f32], y: &mut [bool]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x.is_nan();
        }
    }
}
