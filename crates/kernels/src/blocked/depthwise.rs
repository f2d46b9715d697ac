//! One filter a channel: the channels of a pixel are a vector.

use super::conv::{ACTIVATED, Input, activate};
use super::tile::{self, Strip};
use super::{Blocks, Epilogue, LANES};
use crate::Exec;
use crate::conv::Conv2d;
use crate::math::Unary;
use crate::shared::Shared;

pub(super) fn depthwise(
    exec: Exec<'_>,
    c: &Conv2d,
    input: &Input<'_>,
    w: &[f32],
    epilogue: &Epilogue<'_>,
    to: &Blocks,
    y: &mut [f32],
) {
    let (set, [height, width]) = (exec.set(), c.output);
    let taps = input.taps(c);
    let count = c.batch * to.blocks();
    assert_eq!(w.len(), to.blocks() * LANES * taps.len());
    let most = tile::pixels(set, input.step(c));
    let mr = width.div_ceil(width.div_ceil(most));
    let activation = epilogue.activation.filter(|&f| f != Unary::Relu);
    let relu = epilogue.activation == Some(Unary::Relu);
    let shared = Shared::new(y);
    let threads = exec.pool().threads();
    // Pieces are rows of all blocks, counted through.
    let rows = count * height;
    let pieces = if rows * width * taps.len() < 1 << 11 { 1 } else { rows.min(4 * threads) };
    let pieces = if threads == 1 { 1 } else { pieces };
    let per_go = (ACTIVATED / (width * LANES)).max(1);
    exec.pool().for_each(pieces, &|piece| {
        let (mut at, end) = (piece * rows / pieces, (piece + 1) * rows / pieces);
        while at < end {
            let (i, h) = (at / height, at % height);
            let (n, b) = (i / to.blocks(), i % to.blocks());
            let go = (height - h).min(end - at).min(per_go);
            let bias = epilogue.bias.map(|bias| &bias[b * LANES..][..LANES]);
            let w = &w[b * LANES * taps.len()..][..LANES * taps.len()];
            for h in h..h + go {
                let windows = &input.x[input.at(c, n, b, h)..];
                let add = epilogue.add.as_ref().map(|(layout, x)| layout.row_of(x, n, b, h));
                // SAFETY: this row of this block belongs to this piece alone.
                let y = unsafe { shared.slice(to.at(n, b, h), width * LANES) };
                for first in (0..width).step_by(mr) {
                    let mr = mr.min(width - first);
                    let strip = Strip {
                        a: windows[first * input.step(c)..].as_ptr(),
                        a_pixel: input.step(c),
                        taps: taps.as_ptr(),
                        count: taps.len(),
                        w: w.as_ptr(),
                        y: y[first * LANES..][..mr * LANES].as_mut_ptr(),
                        bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
                        add: add.map_or(std::ptr::null(), |x| x[first * LANES..][..mr * LANES].as_ptr()),
                        relu,
                    };
                    // SAFETY: `Exec` guarantees the instruction set; the windows are in bounds as `Input::new` asserts.
                    unsafe { tile::run_strip(set, mr, &strip) };
                }
            }
            if let Some(f) = activation {
                let row = n * height + h;
                activate(set, f, to, height, row..row + go, b, &shared);
            }
            at += go;
        }
    });
}
