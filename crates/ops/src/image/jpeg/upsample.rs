//! Components brought to the image's extents.
//!
//! Twice as wide: samples lie at 1/4 and 3/4 between the centres, (3 near + far + 1) >> 2 on the left and + 2 on the right. Twice as
//! high: the same, + 1 above and + 2 below. Both: rows first, without rounding, then (3 near + far + 8) >> 4 on the left and + 7 on
//! the right. Beyond the edge the last sample counts again. Components of one or two columns, and other factors, repeat.

use super::frame::{Component, Frame, Plane};

/// Samples of `c`, one a pixel of the image.
pub(super) fn upsample(frame: &Frame, c: &Component, plane: &Plane) -> Vec<u8> {
    let (across, down) = (frame.h / c.h, frame.v / c.v);
    let row = |y: usize| &plane.samples[y * plane.stride..][..c.width];
    let mut out = Vec::with_capacity(frame.width * frame.height);
    for y in 0..frame.height {
        let near = row((y / down).min(c.height - 1));
        // The row on the other side: above for the first of two, below for the second.
        let far = match (y % 2, y / 2) {
            (0, i) => row(i.saturating_sub(1).min(c.height - 1)),
            (_, i) => row((i + 1).min(c.height - 1)),
        };
        let line: Vec<u8> = match (across, down) {
            (1, 1) => near.to_vec(),
            (2, 1) if c.width > 2 => wide(near),
            (1, 2) => {
                near.iter().zip(far).map(|(&n, &f)| mix(n, f, if y % 2 == 0 { 1 } else { 2 })).collect()
            }
            (2, 2) if c.width > 2 => both(near, far),
            _ => near.iter().flat_map(|&v| std::iter::repeat_n(v, across)).collect(),
        };
        out.extend_from_slice(&line[..frame.width]);
    }
    out
}

fn mix(near: u8, far: u8, bias: u32) -> u8 {
    ((3 * u32::from(near) + u32::from(far) + bias) >> 2) as u8
}

fn wide(row: &[u8]) -> Vec<u8> {
    let last = row.len() - 1;
    let pair = |i: usize| {
        let left = if i == 0 { row[0] } else { mix(row[i], row[i - 1], 1) };
        let right = if i == last { row[last] } else { mix(row[i], row[i + 1], 2) };
        [left, right]
    };
    (0..row.len()).flat_map(pair).collect()
}

fn both(near: &[u8], far: &[u8]) -> Vec<u8> {
    let sums: Vec<u32> = near.iter().zip(far).map(|(&n, &f)| 3 * u32::from(n) + u32::from(f)).collect();
    let last = sums.len() - 1;
    let pair = |i: usize| {
        let (before, after) = (sums[i.saturating_sub(1)], sums[(i + 1).min(last)]);
        [((3 * sums[i] + before + 8) >> 4) as u8, ((3 * sums[i] + after + 7) >> 4) as u8]
    };
    (0..sums.len()).flat_map(pair).collect()
}
