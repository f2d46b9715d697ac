//! The frame: extents, components and their coefficients.

use super::idct::idct;

pub(super) struct Component {
    pub(super) id: u8,
    pub(super) h: usize,
    pub(super) v: usize,
    pub(super) quant: usize,
    /// Samples that are part of the image.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Blocks that are part of the image, and blocks with those that only fill the last units.
    pub(super) blocks: (usize, usize),
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// 64 for each block, in the order of rows.
    pub(super) coefficients: Vec<i16>,
}

pub(super) struct Frame {
    pub(super) progressive: bool,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) h: usize,
    pub(super) v: usize,
    pub(super) components: Vec<Component>,
}

/// Samples of one component.
pub(super) struct Plane {
    pub(super) samples: Vec<u8>,
    pub(super) stride: usize,
}

pub(super) fn frame(segment: &[u8], progressive: bool, room: &dyn Fn(usize, usize) -> bool) -> Option<Frame> {
    let [8, h1, h0, w1, w0, n, rest @ ..] = segment else { return None };
    let (height, width) =
        (usize::from(u16::from_be_bytes([*h1, *h0])), usize::from(u16::from_be_bytes([*w1, *w0])));
    if width == 0
        || height == 0
        || !matches!(n, 1 | 3 | 4)
        || rest.len() != 3 * usize::from(*n)
        || !room(width, height)
    {
        return None;
    }
    let factors: Vec<[usize; 4]> = rest
        .chunks_exact(3)
        .map(|c| [c[0].into(), (c[1] >> 4).into(), (c[1] & 15).into(), c[2].into()])
        .collect();
    let (h, v) = (factors.iter().map(|f| f[1]).max()?, factors.iter().map(|f| f[2]).max()?);
    let fits = |f: usize, most: usize| (1..=4).contains(&f) && most.is_multiple_of(f);
    if factors.iter().any(|f| !fits(f[1], h) || !fits(f[2], v)) {
        return None;
    }
    let units = (width.div_ceil(8 * h), height.div_ceil(8 * v));
    let components = factors.iter().map(|&[id, own_h, own_v, quant]| {
        let (w, tall) = ((width * own_h).div_ceil(h), (height * own_v).div_ceil(v));
        let (stride, rows) = (units.0 * own_h, units.1 * own_v);
        Component {
            id: id as u8,
            h: own_h,
            v: own_v,
            quant,
            width: w,
            height: tall,
            blocks: (w.div_ceil(8), tall.div_ceil(8)),
            stride,
            rows,
            coefficients: vec![0; stride * rows * 64],
        }
    });
    Some(Frame { progressive, width, height, h, v, components: components.collect() })
}

impl Frame {
    /// The samples of each component.
    pub(super) fn planes(&self, quant: &[Option<[u16; 64]>; 4]) -> Option<Vec<Plane>> {
        self.components
            .iter()
            .map(|c| {
                let table = quant.get(c.quant)?.as_ref()?;
                let stride = c.stride * 8;
                let mut samples = vec![0; stride * c.rows * 8];
                for (i, block) in c.coefficients.chunks_exact(64).enumerate() {
                    let at = i / c.stride * 8 * stride + i % c.stride * 8;
                    for (y, row) in idct(block, table).chunks_exact(8).enumerate() {
                        samples[at + y * stride..][..8].copy_from_slice(row);
                    }
                }
                Some(Plane { samples, stride })
            })
            .collect()
    }
}
