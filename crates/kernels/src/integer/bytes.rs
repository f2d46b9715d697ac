//! Products of 8-bit integers less their zero points.
//!
//! Four at a time, an instruction takes unsigned numbers of A and signed ones of B; numbers of the other kind are moved by 128 together
//! with their zero points, which changes no difference. With p the zero point of a row of A and q that of a column of B
//!
//! ```text
//! sum (a - p)(b - q) = sum ab - p sum (b - q) - q sum a
//! ```
//!
//! in integers that wrap. The sums over B are packed with it; those over A are needed only where a q is not 0.

use super::pairs::{self, PackedInts};
use super::tile::{self, Finish, Kind, Panels};
use crate::dispatch::multiversion;
use crate::{Exec, KernelSet};

/// A row-major matrix of 8-bit integers.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    /// The integers' bits.
    pub values: &'a [u8],
    /// Whether they, and the zero points, are i8 rather than u8.
    pub signed: bool,
    /// Zero points: of all rows in turn where this is the left side, else of all columns in turn; at least one.
    pub zeros: &'a [u8],
}

impl Bytes<'_> {
    /// The zero points.
    pub(super) fn numbers(&self) -> impl Iterator<Item = i16> + Clone + '_ {
        self.zeros.iter().map(|&z| number(z, self.signed))
    }

    /// What is to be added, modulo 256, so that the bytes are of numbers that are signed or not.
    pub(super) fn moved(&self, signed: bool) -> u8 {
        if self.signed == signed { 0 } else { 128 }
    }

    /// The zero points of such numbers.
    pub(super) fn moved_zeros(&self, signed: bool) -> impl Iterator<Item = i32> + Clone + '_ {
        let by = self.moved(signed);
        self.zeros.iter().map(move |z| number(z.wrapping_add(by), signed).into())
    }
}

/// The number that a byte is.
pub(super) fn number(byte: u8, signed: bool) -> i16 {
    if signed { i16::from(byte as i8) } else { i16::from(byte) }
}

/// The right side of a product of bytes, packed.
#[derive(Debug, Clone)]
pub struct PackedBytes {
    k: usize,
    n: usize,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// Less their zero points.
    Pairs(PackedInts),
    /// Signed; after the panels for each column the sum of the numbers less their zero point, which are given for themselves (none
    /// where all are 0).
    Fours { kind: Kind, panels: Panels, zeros: Vec<i32> },
}

impl PackedBytes {
    /// Packs the `k` by `n` matrix `b`.
    ///
    /// # Panics
    /// When `b` has not as many elements, or no zero point.
    pub fn new(exec: Exec<'_>, k: usize, n: usize, b: Bytes<'_>) -> Self {
        Self::made(exec.set(), k, n, b, Self::panels(exec, k, n, b))
    }

    /// The form of the `k` by `n` matrix `b` that [`PackedBytes::of`] takes.
    ///
    /// # Panics
    /// When `b` has not as many elements, or no zero point.
    pub fn panels(exec: Exec<'_>, k: usize, n: usize, b: Bytes<'_>) -> crate::Panels {
        assert!(b.values.len() == k * n && !b.zeros.is_empty());
        crate::Panels::fill_words(Self::packed(exec.set(), k, n), |words| {
            if Kind::fours(exec.set()).is_none() {
                let zeros: Vec<i16> = b.numbers().cycle().take(n).collect();
                return PackedInts::fill(exec, k, n, words, |row, columns, to| {
                    let values = &b.values[row * n..][columns.clone()];
                    subtract(exec.set(), values, b.signed, &zeros[columns], to);
                });
            }
            let by = b.moved(true);
            let (words, sums) = words.split_at_mut(Panels::len(k.div_ceil(4), n));
            Panels::fill(exec, k.div_ceil(4), n, words, |step, columns, line| {
                let row = |i: usize| {
                    let row = 4 * step + i;
                    if row < k { &b.values[row * n..][columns.clone()] } else { &[][..] }
                };
                pack_four(exec.set(), [row(0), row(1), row(2), row(3)], by, line);
            });
            for row in b.values.chunks_exact(n.max(1)) {
                add_signed(exec.set(), row, by, sums);
            }
            for (sum, zero) in sums.iter_mut().zip(b.moved_zeros(true).cycle()) {
                *sum = sum.wrapping_sub((k as i32).wrapping_mul(zero));
            }
        })
    }

    /// What [`PackedBytes::panels`] made for the same extents, zero points and kernel set, without a look at the values of `b`. `None`
    /// where its length is another.
    pub fn of(set: KernelSet, k: usize, n: usize, b: Bytes<'_>, panels: crate::Panels) -> Option<Self> {
        (panels.len() == Self::packed(set, k, n) && !b.zeros.is_empty())
            .then(|| Self::made(set, k, n, b, panels))
    }

    fn made(set: KernelSet, k: usize, n: usize, b: Bytes<'_>, panels: crate::Panels) -> Self {
        let Some(kind) = Kind::fours(set) else {
            return Self { k, n, form: Form::Pairs(PackedInts::of(k, n, panels)) };
        };
        let mut zeros: Vec<i32> = b.moved_zeros(true).cycle().take(n).collect();
        if zeros.iter().all(|&z| z == 0) {
            zeros = Vec::new();
        }
        Self { k, n, form: Form::Fours { kind, panels: Panels::of(k.div_ceil(4), n, panels), zeros } }
    }

    /// Words of the packed form.
    pub fn packed(set: KernelSet, k: usize, n: usize) -> usize {
        match Kind::fours(set) {
            Some(_) => Panels::len(k.div_ceil(4), n).saturating_add(n),
            None => PackedInts::packed(k, n),
        }
    }

    /// Rows and columns.
    pub fn extents(&self) -> [usize; 2] {
        [self.k, self.n]
    }
}

multiversion! {
    fn subtract(x: &[u8], signed: bool, zeros: &[i16], y: &mut [i16]) {
        for ((y, &x), zero) in y.iter_mut().zip(x).zip(zeros) {
            *y = number(x, signed) - zero;
        }
    }
}

multiversion! {
    /// Words of up to four rows, of bytes moved by `by`. A row that is not there has none.
    pub(super) fn pack_four(rows: [&[u8]; 4], by: u8, line: &mut [i32]) {
        let [a, b, c, d] = rows;
        let n = line.len();
        if [a, b, c, d].iter().all(|row| row.len() == n) {
            for (i, word) in line.iter_mut().enumerate() {
                *word = i32::from_le_bytes([a[i], b[i], c[i], d[i]].map(|v| v.wrapping_add(by)));
            }
        } else {
            for (i, word) in line.iter_mut().enumerate() {
                *word = i32::from_le_bytes([a, b, c, d].map(|row| row.get(i).map_or(0, |v| v.wrapping_add(by))));
            }
        }
    }
}

multiversion! {
    fn add_signed(row: &[u8], by: u8, sums: &mut [i32]) {
        for (sum, v) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(i32::from(v.wrapping_add(by) as i8));
        }
    }
}

multiversion! {
    fn sum(row: &[u8]) -> i32 {
        row.iter().fold(0i32, |sum, &v| sum.wrapping_add(i32::from(v)))
    }
}

multiversion! {
    /// Takes the first of `times` times `sums` and the second times `zeros` (none: all 0) away.
    fn take_away(c: &mut [i32], times: [i32; 2], sums: &[i32], zeros: &[i32]) {
        let [p, q] = times;
        for (c, s) in c.iter_mut().zip(sums) {
            *c = c.wrapping_sub(p.wrapping_mul(*s));
        }
        for (c, z) in c.iter_mut().zip(zeros) {
            *c = c.wrapping_sub(q.wrapping_mul(*z));
        }
    }
}

/// `c[m, n]` = (a - its zero points)[m, k] * (b - its zero points)[k, n]; sums wrap.
///
/// # Panics
/// When `a` or `c` has not as many elements as its extents say, or `a` no zero point.
pub fn product(exec: Exec<'_>, m: usize, a: Bytes<'_>, b: &PackedBytes, c: &mut [i32]) {
    let k = b.k;
    assert!(a.values.len() == m * k && c.len() == m * b.n && !a.zeros.is_empty());
    match &b.form {
        Form::Pairs(b) => {
            let mut less = vec![0; a.values.len()];
            let rows = a.values.chunks_exact(k.max(1)).zip(less.chunks_exact_mut(k.max(1)));
            let mut zeros = vec![0; k];
            for ((row, to), zero) in rows.zip(a.numbers().cycle()) {
                zeros.fill(zero);
                subtract(exec.set(), row, a.signed, &zeros, to);
            }
            pairs::gemm(exec, m, &less, b, c);
        }
        Form::Fours { kind, panels, zeros } => {
            let (by, sums) = (a.moved(false), panels.rest());
            let mut moved = Vec::new();
            let values = if by == 0 && k.is_multiple_of(4) {
                a.values
            } else {
                moved.reserve_exact(m * panels.steps * 4);
                for row in a.values.chunks_exact(k.max(1)) {
                    moved.extend(row.iter().map(|v| v.wrapping_add(by)));
                    // Rows of whole words.
                    moved.resize(moved.len().next_multiple_of(4), 0);
                }
                &moved[..]
            };
            // Of one zero point for all rows the product starts with what it takes away; what differs between rows comes after it.
            let (one, first) = (a.zeros.iter().all(|&z| z == a.zeros[0]), a.moved_zeros(false).next());
            let p = first.filter(|_| one).unwrap_or(0);
            let start: Vec<i32> = sums.iter().map(|s| p.wrapping_mul(*s).wrapping_neg()).collect();
            let width = panels.steps * 4;
            let of_row = |(row, zero): (usize, i32)| {
                let p = if one { 0 } else { zero };
                let q = if zeros.is_empty() { 0 } else { sum(exec.set(), &values[row * width..][..width]) };
                [p, q]
            };
            let finish = (!one || !zeros.is_empty()).then(|| {
                let of_rows: Vec<_> = (0..m).zip(a.moved_zeros(false).cycle()).map(of_row).collect();
                move |row: usize, column: usize, c: &mut [i32]| {
                    let n = column..column + c.len();
                    let zeros = zeros.get(n.clone()).unwrap_or(&[]);
                    take_away(exec.set(), c, of_rows[row], &sums[n], zeros);
                }
            });
            let finish = finish.as_ref().map(|f| f as &Finish<'_>);
            tile::product(exec, *kind, (m, values), panels, &start, finish, c);
        }
    }
}
