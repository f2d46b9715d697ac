//! Broadcasting: the common shape of several operands, and walking them together.

use std::ops::Range;

use isobit_kernels::Exec;
use isobit_tensor::Shape;

use crate::{Fact, OpError};

/// The common shape of `shapes` by NumPy's rule: aligned at the back, equal or 1.
pub(crate) fn broadcast(shapes: &[&[usize]]) -> Result<Shape, OpError> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = Shape::from_elem(1, rank);
    for shape in shapes {
        for (o, &d) in out[rank - shape.len()..].iter_mut().zip(*shape) {
            match (*o, d) {
                (_, 1) => {}
                (1, d) => *o = d,
                (o, d) if o == d => {}
                _ => {
                    return Err(OpError::shape(format!(
                        "shapes {shapes:?} do not broadcast; each extent must be equal or 1, from the last on"
                    )));
                }
            }
        }
    }
    Ok(out)
}

/// As [`broadcast`] for what is known; `None` where some rank is unknown.
pub(crate) fn broadcast_facts(facts: &[&Fact]) -> Result<Option<Vec<Option<usize>>>, OpError> {
    let shapes: Option<Vec<_>> = facts.iter().map(|f| f.shape.as_deref()).collect();
    shapes.map(|shapes| broadcast_dims(&shapes)).transpose()
}

/// As [`broadcast`] where extents may be unknown.
pub(crate) fn broadcast_dims(shapes: &[&[Option<usize>]]) -> Result<Vec<Option<usize>>, OpError> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    (0..rank)
        .map(|i| {
            let (mut out, mut unknown) = (1, false);
            for shape in shapes {
                let Some(at) = (i + shape.len()).checked_sub(rank) else { continue };
                match shape[at] {
                    None => unknown = true,
                    Some(1) => {}
                    Some(d) if out == 1 || out == d => out = d,
                    Some(d) => {
                        return Err(OpError::shape(format!(
                            "extents {out} and {d} do not broadcast; they must be equal or 1"
                        )));
                    }
                }
            }
            // An unknown extent is 1 or `out` when some other is larger than 1.
            Ok(if unknown && out == 1 { None } else { Some(out) })
        })
        .collect()
}

/// Steps between elements of a contiguous row-major tensor along each of its dimensions.
pub(crate) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut out = vec![0; shape.len()];
    let mut step = 1isize;
    for (s, &d) in out.iter_mut().zip(shape).rev() {
        *s = step;
        // Past an empty dimension nothing is ever addressed.
        step = step.saturating_mul(d as isize);
    }
    out
}

/// Steps of an operand of `shape` along the dimensions of the broadcast shape `out`: 0 where it repeats.
pub(crate) fn broadcast_strides(shape: &[usize], out: &[usize]) -> Vec<isize> {
    let mut all = vec![0; out.len() - shape.len()];
    all.extend(strides(shape).iter().zip(shape).map(|(&s, &d)| if d == 1 { 0 } else { s }));
    all
}

/// A walk over a row-major result while `N` operands are addressed by their own strides.
///
/// Adjacent dimensions that every operand steps through uniformly are merged, so that the innermost
/// run is as long as it can be.
#[derive(Debug)]
pub(crate) struct Walk<const N: usize> {
    dims: Vec<usize>,
    strides: Vec<[isize; N]>,
    offset: [isize; N],
}

impl<const N: usize> Walk<N> {
    /// A walk over `shape`; operand `k` starts at `offset[k]` and steps by `strides[k]`.
    pub(crate) fn new(shape: &[usize], strides: [&[isize]; N], offset: [isize; N]) -> Self {
        let mut walk = Self { dims: Vec::new(), strides: Vec::new(), offset };
        for (i, &d) in shape.iter().enumerate() {
            let step: [isize; N] = std::array::from_fn(|k| strides[k][i]);
            if d == 1 {
                continue;
            }
            match (walk.dims.last_mut(), walk.strides.last_mut()) {
                (Some(dim), Some(last)) if (0..N).all(|k| last[k] == step[k].saturating_mul(d as isize)) => {
                    *dim *= d;
                    *last = step;
                }
                _ => {
                    walk.dims.push(d);
                    walk.strides.push(step);
                }
            }
        }
        if walk.dims.is_empty() {
            walk.dims.push(1);
            walk.strides.push([0; N]);
        }
        walk
    }

    /// A walk over the broadcast shape `out` of contiguous operands of `shapes`.
    pub(crate) fn broadcast(out: &[usize], shapes: [&[usize]; N]) -> Self {
        let strides = shapes.map(|s| broadcast_strides(s, out));
        let strides: [&[isize]; N] = std::array::from_fn(|k| strides[k].as_slice());
        Self::new(out, strides, [0; N])
    }

    /// Length of an innermost run.
    pub(crate) fn run_len(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Each operand's step within a run.
    pub(crate) fn run_strides(&self) -> [isize; N] {
        self.strides.last().copied().unwrap_or([0; N])
    }

    /// How many runs there are.
    fn runs(&self) -> usize {
        let outer = self.dims.len() - 1;
        if self.dims.contains(&0) { 0 } else { self.dims[..outer].iter().product() }
    }

    /// Calls `f` with each run's operand offsets, in row-major order of the result.
    pub(crate) fn for_each(&self, f: impl FnMut([usize; N])) {
        self.for_each_of(0..self.runs(), f);
    }

    /// As [`Walk::for_each`], some of the runs.
    fn for_each_of(&self, runs: Range<usize>, mut f: impl FnMut([usize; N])) {
        let outer = self.dims.len() - 1;
        let (mut counter, mut at, mut rest) = (vec![0usize; outer], self.offset, runs.start);
        for i in (0..outer).rev() {
            let d = self.dims[i].max(1);
            counter[i] = rest % d;
            rest /= d;
            for (at, step) in at.iter_mut().zip(self.strides[i]) {
                *at += step * counter[i] as isize;
            }
        }
        for _ in runs {
            f(at.map(|o| o as usize));
            let mut i = outer;
            loop {
                if i == 0 {
                    break;
                }
                i -= 1;
                counter[i] += 1;
                let back = if counter[i] < self.dims[i] { 0 } else { self.dims[i] as isize };
                for (at, step) in at.iter_mut().zip(self.strides[i]) {
                    *at += step * (1 - back);
                }
                if back == 0 {
                    break;
                }
                counter[i] = 0;
            }
        }
    }
}

impl<const N: usize> Walk<N> {
    /// Calls `f` with each run's operand offsets and its row of the result, on the pool for long results.
    pub(crate) fn each_row<T: Send>(
        &self,
        exec: Exec<'_>,
        out: &mut [T],
        f: impl Fn([usize; N], &mut [T]) + Sync,
    ) {
        let n = self.run_len();
        assert_eq!(out.len(), self.runs() * n);
        isobit_kernels::rows(exec, out, n.max(1), 1 << 14, |first, part| {
            let mut rows = part.chunks_exact_mut(n.max(1));
            let runs = first..first + rows.len();
            self.for_each_of(runs, |at| f(at, rows.next().expect("a run is a row")));
        });
    }
}

/// `out[i] = src` along a strided walk: transposes, slices, repeats.
pub(crate) fn copy_strided<T: Clone + Send + Sync>(exec: Exec<'_>, walk: &Walk<1>, src: &[T], out: &mut [T]) {
    let (n, [step]) = (walk.run_len(), walk.run_strides());
    walk.each_row(exec, out, |[at], row| match step {
        1 => row.clone_from_slice(&src[at..at + n]),
        0 => row.fill(src[at].clone()),
        _ => {
            for (i, o) in row.iter_mut().enumerate() {
                o.clone_from(&src[at.wrapping_add_signed(step * i as isize)]);
            }
        }
    });
}

/// `out = f(a, b)` over the broadcast shape `shape`, element by element, on the pool for long results.
pub(crate) fn zip<A: Sync, B: Sync, O: Send>(
    exec: Exec<'_>,
    shape: &[usize],
    (a, a_shape): (&[A], &[usize]),
    (b, b_shape): (&[B], &[usize]),
    out: &mut [O],
    f: impl Fn(&A, &B) -> O + Sync,
) {
    let walk = Walk::broadcast(shape, [a_shape, b_shape]);
    let (n, steps) = (walk.run_len(), walk.run_strides());
    walk.each_row(exec, out, |[i, j], row| match steps {
        [1, 1] => {
            for ((o, a), b) in row.iter_mut().zip(&a[i..i + n]).zip(&b[j..j + n]) {
                *o = f(a, b);
            }
        }
        [1, 0] => {
            let b = &b[j];
            row.iter_mut().zip(&a[i..i + n]).for_each(|(o, a)| *o = f(a, b));
        }
        [0, 1] => {
            let a = &a[i];
            row.iter_mut().zip(&b[j..j + n]).for_each(|(o, b)| *o = f(a, b));
        }
        [p, q] => {
            for (k, o) in row.iter_mut().enumerate() {
                let k = k as isize;
                *o = f(&a[i.wrapping_add_signed(p * k)], &b[j.wrapping_add_signed(q * k)]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use isobit_kernels::{KernelSet, Serial};

    use super::*;
    use crate::Code;

    #[test]
    fn shapes() {
        let ok = |shapes: &[&[usize]], want: &[usize]| assert_eq!(&broadcast(shapes).unwrap()[..], want);
        ok(&[&[2, 3], &[3]], &[2, 3]);
        ok(&[&[], &[2, 1], &[1, 4]], &[2, 4]);
        ok(&[&[0], &[1]], &[0]);
        ok(&[], &[]);
        assert_eq!(broadcast(&[&[2], &[3]]).unwrap_err().code, Code::ShapeMismatch);
        assert_eq!(broadcast(&[&[0], &[2]]).unwrap_err().code, Code::ShapeMismatch);
        assert_eq!(broadcast_dims(&[&[None, Some(3)], &[Some(2), None]]).unwrap(), [Some(2), Some(3)]);
        assert_eq!(broadcast_dims(&[&[None], &[Some(1)]]).unwrap(), [None]);
    }

    #[test]
    fn zips_like_index_arithmetic() {
        for (a_shape, b_shape) in [
            (vec![2, 3], vec![2, 3]),
            (vec![2, 1], vec![1, 3]),
            (vec![4, 1, 3], vec![2, 1]),
            (vec![], vec![2, 2]),
            (vec![0, 2], vec![2]),
        ] {
            let shape = broadcast(&[&a_shape, &b_shape]).unwrap();
            let a: Vec<usize> = (0..a_shape.iter().product()).collect();
            let b: Vec<usize> = (0..b_shape.iter().product()).collect();
            let mut out = vec![(0, 0); shape.iter().product()];
            zip(
                Exec::new(KernelSet::Scalar, &Serial),
                &shape,
                (&a, &a_shape),
                (&b, &b_shape),
                &mut out,
                |&a, &b| (a, b),
            );
            let at = |own: &[usize], flat: usize| {
                let mut rest = flat;
                let (mut index, mut step) = (0, 1);
                let pad = shape.len() - own.len();
                for d in (0..shape.len()).rev() {
                    let i = rest % shape[d];
                    rest /= shape[d];
                    if d >= pad {
                        index += if own[d - pad] == 1 { 0 } else { i } * step;
                        step *= own[d - pad];
                    }
                }
                index
            };
            for (flat, &(i, j)) in out.iter().enumerate() {
                assert_eq!((i, j), (at(&a_shape, flat), at(&b_shape, flat)));
            }
        }
    }

    #[test]
    fn a_transposed_copy() {
        let walk = Walk::new(&[3, 2], [&[1, 3]], [0]);
        let mut out = [0; 6];
        copy_strided(Exec::new(KernelSet::Scalar, &Serial), &walk, &[1, 2, 3, 4, 5, 6], &mut out);
        assert_eq!(out, [1, 4, 2, 5, 3, 6]);
    }
}
