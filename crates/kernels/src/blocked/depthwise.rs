//! One filter a channel: the channels of a pixel are a vector.

use super::conv::{ACTIVATED, Activation, Input, activate};
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
    assert_eq!(w.len(), to.blocks() * LANES * taps.len());
    let most = tile::pixels(set, input.step(c));
    let mr = width.div_ceil(width.div_ceil(most));
    let activation = Activation::of(set, epilogue.activation);
    let relu = epilogue.activation == Some(Unary::Relu);
    let shared = Shared::new(y);
    let per_go = (ACTIVATED / (width * LANES)).max(1);
    to.in_parts(exec, c.batch * to.blocks() * LANES * height * width * taps.len() / 2, |n, b, rows| {
        let bias = epilogue.bias.map(|bias| &bias[b * LANES..][..LANES]);
        let w = &w[b * LANES * taps.len()..][..LANES * taps.len()];
        for first in rows.clone().step_by(per_go) {
            let rows = first..rows.end.min(first + per_go);
            for h in rows.clone() {
                let windows = &input.x[input.at(c, n, b, h)..];
                let add = epilogue.add.as_ref().map(|(layout, x)| layout.row_of(x, n, b, h));
                // SAFETY: this row of this block belongs to this call alone.
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
            if let Some(activation) = activation {
                activate(
                    set,
                    activation,
                    to,
                    height,
                    n * height + rows.start..n * height + rows.end,
                    b,
                    &shared,
                );
            }
        }
    });
}
