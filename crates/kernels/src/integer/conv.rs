//! Convolutions of 8-bit integers less their zero points.
//!
//! An image lies in words, each of some channels of a pixel (four bytes, or two i16), in planes of equal phase. There a tap of all windows
//! is one run whatever the stride, so a tile of filters by pixels reads it in place: no matrix of windows is made. Pixels are counted along
//! the rows of such a plane, which reach further than those of the output; what is computed in between is dropped.
//!
//! One filter a channel leaves nothing to put in a word. Its few products add up to less than 2^24, so that f32 is exact: there the sums are
//! those of the convolution in f32.

use super::bytes::{Bytes, number, pack_four};
use super::linear::{Requantize, rounded};
use super::tile::{Kind, MR, NR, Offsets};
use crate::conv::{Conv2d, Phases, conv2d};
use crate::dispatch::multiversion;
use crate::gemm::Epilogue;
use crate::packed::{as_bytes, as_bytes_mut, as_words_mut};
use crate::shared::Shared;
use crate::strided::SLACK;
use crate::{Exec, KernelSet, Panels, scratch};

/// The weights of a convolution, packed.
#[derive(Debug, Clone)]
pub struct PackedFilters {
    extents: [usize; 3],
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// One filter a channel: less their zero points.
    Floats(Panels),
    /// For each filter, over (channels of a word, tap). Words of bytes: the sum of each filter's weights after all.
    Words { kind: Kind, steps: usize, packed: Panels },
}

/// What becomes of weights.
enum Plan {
    Floats,
    Words { kind: Kind, steps: usize },
}

/// Most taps whose products add up to less than 2^24.
const EXACT: usize = (1 << 24) / (255 * 255);

/// What becomes of the sums.
pub enum Results<'a> {
    /// They are the result.
    Sums(&'a mut [i32]),
    /// 8-bit integers, with factors for filters.
    Bytes(&'a mut [u8], Requantize<'a>),
}

impl PackedFilters {
    /// Packs weights `w[filters, channels, taps]`, of `groups` groups, the channels being those of one, with one zero point or one for each
    /// filter.
    ///
    /// # Panics
    /// When there are not as many weights, or no zero point.
    pub fn new(exec: Exec<'_>, groups: usize, extents: [usize; 3], w: Bytes<'_>) -> Self {
        Self::made(exec.set(), groups, extents, w, Self::panels(exec, groups, extents, w))
    }

    /// The form of such weights that [`PackedFilters::of`] takes.
    ///
    /// # Panics
    /// When there are not as many weights, or no zero point.
    pub fn panels(exec: Exec<'_>, groups: usize, extents: [usize; 3], w: Bytes<'_>) -> Panels {
        let [filters, channels, taps] = extents;
        assert!(w.values.len() == filters * channels * taps && !w.zeros.is_empty());
        let len = Self::packed(exec.set(), groups, extents, w);
        let zeros: Vec<i16> = w.numbers().collect();
        let Plan::Words { kind, steps } = Self::plan(exec.set(), groups, extents, w) else {
            return Panels::fill(len, |floats| {
                for (i, (to, &v)) in floats.iter_mut().zip(w.values).enumerate() {
                    *to = f32::from(number(v, w.signed) - zeros[i / taps % zeros.len()]);
                }
            });
        };
        let (fours, by) = (kind.numbers() == 4, w.moved(true));
        Panels::fill_words(len, |words| {
            let (words, sums) = words.split_at_mut(filters * steps);
            crate::split::rows(exec, words, steps.max(1), 1 << 14, |first, part| {
                for (f, part) in (first..).zip(part.chunks_exact_mut(steps.max(1))) {
                    let values = &w.values[f * channels * taps..][..channels * taps];
                    if fours {
                        pack_bytes(exec.set(), values, taps, by, as_bytes_mut(part));
                    } else {
                        pack_pairs(values, taps, w.signed, zeros[f % zeros.len()], as_bytes_mut(part));
                    }
                }
            });
            for (sum_of, row) in sums.iter_mut().zip(words.chunks_exact(steps.max(1))) {
                *sum_of = sum(exec.set(), as_bytes(row));
            }
        })
    }

    /// What [`PackedFilters::panels`] made for the same extents, zero points and kernel set, without a look at the values of `w`.
    /// `None` where its length is another.
    pub fn of(
        set: KernelSet,
        groups: usize,
        extents: [usize; 3],
        w: Bytes<'_>,
        packed: Panels,
    ) -> Option<Self> {
        let fits = !w.zeros.is_empty() && packed.len() == Self::packed(set, groups, extents, w);
        fits.then(|| Self::made(set, groups, extents, w, packed))
    }

    fn made(set: KernelSet, groups: usize, extents: [usize; 3], w: Bytes<'_>, packed: Panels) -> Self {
        let form = match Self::plan(set, groups, extents, w) {
            Plan::Floats => Form::Floats(packed),
            Plan::Words { kind, steps } => Form::Words { kind, steps, packed },
        };
        Self { extents, form }
    }

    fn plan(set: KernelSet, groups: usize, [filters, channels, taps]: [usize; 3], w: Bytes<'_>) -> Plan {
        if channels == 1 && filters == groups && taps <= EXACT {
            return Plan::Floats;
        }
        // Words of bytes have no room for the difference from a zero point.
        let fours = Kind::fours(set).filter(|_| w.moved_zeros(true).all(|zero| zero == 0));
        let kind = fours.unwrap_or(Kind::pairs(set));
        Plan::Words { kind, steps: channels.div_ceil(kind.numbers()) * taps }
    }

    /// Words of the packed form, for weights with the zero points of `w`.
    pub fn packed(set: KernelSet, groups: usize, extents: [usize; 3], w: Bytes<'_>) -> usize {
        let filters = extents[0];
        match Self::plan(set, groups, extents, w) {
            Plan::Floats => extents.iter().product(),
            Plan::Words { kind, steps } if kind.numbers() == 4 => filters * (steps + 1),
            Plan::Words { steps, .. } => filters * steps,
        }
    }

    /// The weights less their zero points.
    pub fn numbers(&self) -> Vec<i32> {
        let [_, channels, taps] = self.extents;
        let (kind, words) = match &self.form {
            Form::Floats(weights) => return weights.iter().map(|&w| w as i32).collect(),
            Form::Words { kind, steps, packed } => (*kind, &packed.words()[..self.extents[0] * steps]),
        };
        let words = as_bytes(words);
        let number = |row: &[u8], i: usize| {
            let (channel, tap) = (i / taps, i % taps);
            let word = &row[(channel / kind.numbers() * taps + tap) * 4..][..4];
            match kind.numbers() {
                4 => i32::from(word[channel % 4] as i8),
                _ => i32::from(i16::from_ne_bytes([word[channel % 2 * 2], word[channel % 2 * 2 + 1]])),
            }
        };
        let rows = words.chunks_exact((channels.div_ceil(kind.numbers()) * taps * 4).max(1));
        rows.flat_map(|row| (0..channels * taps).map(move |i| number(row, i))).collect()
    }
}

multiversion! {
    /// A filter's weights, moved by `by`, with four channels of a tap side by side.
    fn pack_bytes(values: &[u8], taps: usize, by: u8, row: &mut [u8]) {
        if taps == 1 {
            for (to, v) in row.iter_mut().zip(values) {
                *to = v.wrapping_add(by);
            }
            return;
        }
        for (four, to) in values.chunks(4 * taps).zip(row.chunks_exact_mut(4 * taps)) {
            for (channel, values) in four.chunks_exact(taps).enumerate() {
                for (word, v) in to.chunks_exact_mut(4).zip(values) {
                    word[channel] = v.wrapping_add(by);
                }
            }
        }
    }
}

/// A filter's weights less their zero point, with two channels of a tap side by side.
fn pack_pairs(values: &[u8], taps: usize, signed: bool, zero: i16, row: &mut [u8]) {
    for (two, to) in values.chunks(2 * taps).zip(row.chunks_exact_mut(4 * taps)) {
        for (channel, values) in two.chunks_exact(taps).enumerate() {
            for (word, &v) in to.chunks_exact_mut(4).zip(values) {
                word[2 * channel..][..2].copy_from_slice(&(number(v, signed) - zero).to_ne_bytes());
            }
        }
    }
}

multiversion! {
    /// The sum of i8.
    fn sum(row: &[u8]) -> i32 {
        row.iter().fold(0i32, |sum, &v| sum.wrapping_add(i32::from(v as i8)))
    }
}

/// The convolution of `x`, which has one zero point, with `bias` (one for each filter, or none) added to the sums, which wrap.
///
/// # Panics
/// When a slice does not have the length that the extents say, or the filters were packed for others.
pub fn conv(
    exec: Exec<'_>,
    c: &Conv2d,
    x: Bytes<'_>,
    w: &PackedFilters,
    bias: Option<&[i32]>,
    mut results: Results<'_>,
) {
    let (plane, pixels) = (c.input[0] * c.input[1], c.pixels());
    let (channels, filters) = (c.group_channels(), c.group_filters());
    let len = match &results {
        Results::Sums(y) => y.len(),
        Results::Bytes(y, requantize) => {
            assert!(requantize.factors.len() == 1 || requantize.factors.len() == c.filters);
            y.len()
        }
    };
    assert!(x.values.len() == c.batch * c.channels * plane && x.zeros.len() == 1);
    assert!(len == c.batch * c.filters * pixels && bias.is_none_or(|b| b.len() == c.filters));
    assert_eq!(w.extents, [c.filters, channels, c.kernel[0] * c.kernel[1]]);
    if len == 0 {
        return;
    }
    let (kind, steps, packed) = match &w.form {
        Form::Floats(w) => return depthwise(exec, c, x, w, bias, results),
        Form::Words { kind, steps, packed } => (*kind, *steps, packed.words()),
    };
    let (words, sums) = packed.split_at(c.filters * steps);
    let words = as_bytes(words);
    let zero = x.moved_zeros(false).next().unwrap_or(0);
    let starts: Vec<i32> = (0..c.filters)
        .map(|f| {
            let sum = sums.get(f).map_or(0, |sum| sum.wrapping_mul(zero));
            bias.map_or(0, |b| b[f]).wrapping_sub(sum)
        })
        .collect();
    let of_pixel = channels.div_ceil(kind.numbers());
    let image = Image::new(c, of_pixel);
    let mut buffer = scratch::take();
    let planes = scratch::sized(&mut buffer, image.len());
    for part in 0..c.batch * c.groups {
        let (n, g) = (part / c.groups, part % c.groups);
        let own = &x.values[(n * c.channels + g * channels) * plane..][..channels * plane];
        image.fill(exec, c, kind, Bytes { values: own, ..x }, planes);
        let first = g * filters;
        let product = Product {
            kind,
            steps,
            rows: &words[first * steps * 4..][..filters * steps * 4],
            starts: &starts[first..][..filters],
            image: &image,
            planes: as_words_mut(planes),
            output: if image.phases.is_some() { c.output } else { [1, pixels] },
        };
        let at = (n * c.filters + first) * pixels;
        match &mut results {
            Results::Sums(y) => {
                product.run(exec, &mut y[at..][..filters * pixels], |_, sums, y| y.copy_from_slice(sums));
            }
            Results::Bytes(y, requantize) => {
                let Requantize { factors, zero, signed } = *requantize;
                let factors = if factors.len() == 1 { factors } else { &factors[first..][..filters] };
                product.run(exec, &mut y[at..][..filters * pixels], |filter, sums, y| {
                    let factors = if factors.len() == 1 { factors } else { &factors[filter..] };
                    requantized(exec.set(), sums, factors, zero, signed, y);
                });
            }
        }
    }
    scratch::give(buffer);
}

/// One filter a channel: an image at a time in f32.
fn depthwise(
    exec: Exec<'_>,
    c: &Conv2d,
    x: Bytes<'_>,
    w: &[f32],
    bias: Option<&[i32]>,
    mut results: Results<'_>,
) {
    let (plane, pixels) = (c.input[0] * c.input[1], c.pixels());
    let zero = x.numbers().next().unwrap_or(0).into();
    let (mut floats, mut sums) = (scratch::take(), scratch::take());
    let one = Conv2d { batch: 1, ..*c };
    for n in 0..c.batch {
        let floats = scratch::sized(&mut floats, c.channels * plane);
        let sums = scratch::sized(&mut sums, c.filters * pixels);
        super::dequantize(exec, &x.values[n * floats.len()..][..floats.len()], x.signed, 1.0, zero, floats);
        conv2d(exec, &one, floats, w, None, &Epilogue::default(), sums);
        let (own, sums) = (n * sums.len()..(n + 1) * sums.len(), &*sums);
        let start = |f: usize| bias.map_or(0, |b| b[f]);
        match &mut results {
            Results::Sums(y) => crate::split::rows(exec, &mut y[own], pixels, 1 << 14, |first, y| {
                for (f, y) in (first..).zip(y.chunks_exact_mut(pixels)) {
                    whole(exec.set(), &sums[f * pixels..][..pixels], start(f), y);
                }
            }),
            Results::Bytes(y, r) => crate::split::rows(exec, &mut y[own], pixels, 1 << 14, |first, y| {
                for (f, y) in (first..).zip(y.chunks_exact_mut(pixels)) {
                    let factor = r.factors[f % r.factors.len()];
                    let sums = &sums[f * pixels..][..pixels];
                    requantized_floats(exec.set(), sums, start(f), factor, r.zero, r.signed, y);
                }
            }),
        }
    }
    scratch::give(floats);
    scratch::give(sums);
}

multiversion! {
    /// Sums that are integers, and what is added to them.
    fn whole(sums: &[f32], start: i32, y: &mut [i32]) {
        for (y, &sum) in y.iter_mut().zip(sums) {
            *y = (sum as i32).wrapping_add(start);
        }
    }
}

multiversion! {
    /// As [`requantized`], of sums that are integers, to which `start` is added.
    fn requantized_floats(sums: &[f32], start: i32, factor: f32, zero: i32, signed: bool, y: &mut [u8]) {
        let (low, high) = if signed { (-128, 127) } else { (0, 255) };
        for (y, &sum) in y.iter_mut().zip(sums) {
            *y = rounded((sum as i32).wrapping_add(start) as f32 * factor, zero, low, high) as u8;
        }
    }
}

multiversion! {
    /// Lines of [`NR`] sums, each with its factor or all with one.
    fn requantized(sums: &[i32], factors: &[f32], zero: i32, signed: bool, y: &mut [u8]) {
        let (low, high) = if signed { (-128, 127) } else { (0, 255) };
        let factors = factors.iter().cycle();
        for ((sums, y), &factor) in sums.chunks_exact(NR).zip(y.chunks_exact_mut(NR)).zip(factors) {
            for (y, &sum) in y.iter_mut().zip(sums) {
                *y = rounded(sum as f32 * factor, zero, low, high) as u8;
            }
        }
    }
}

/// Where the words of a group's channels are.
struct Image {
    /// None where every output pixel has just the input pixel of the same place.
    phases: Option<Phases>,
    /// Words of a pixel, elements of the planes of one of them, and of a line of the planes.
    words: usize,
    plane: usize,
    columns: usize,
    /// For each step of a chain, where its run begins for the first output pixel.
    offsets: Offsets,
}

impl Image {
    fn new(c: &Conv2d, words: usize) -> Self {
        let phases = (!c.is_pointwise()).then(|| Phases::new(c));
        let (plane, columns) =
            phases.as_ref().map_or((c.pixels(), c.pixels()), |phases| (phases.len(), phases.columns));
        let taps = phases.as_ref().map_or(&[0][..], |phases| &phases.offsets);
        let steps = (0..words).flat_map(|w| taps.iter().map(move |tap| w * plane + tap));
        let offsets = Offsets::new(steps.collect());
        Self { phases, words, plane, columns, offsets }
    }

    /// Elements: a tile reads lines of [`NR`] pixels, the last of them past the end.
    fn len(&self) -> usize {
        self.words * self.plane + NR.max(SLACK)
    }

    /// Writes the words of a group's channels.
    fn fill(&self, exec: Exec<'_>, c: &Conv2d, kind: Kind, x: Bytes<'_>, planes: &mut [f32]) {
        let plane = c.input[0] * c.input[1];
        let pieces = if x.values.len() < 1 << 15 { 1 } else { self.words.min(4 * exec.pool().threads()) };
        let planes = Shared::new(planes);
        exec.pool().for_each(pieces, &|piece| {
            let mut line = scratch::take();
            for word in piece * self.words / pieces..(piece + 1) * self.words / pieces {
                // SAFETY: the planes of this word belong to this piece alone.
                let to = unsafe { planes.slice(word * self.plane, self.plane) };
                let first = word * kind.numbers();
                let rows =
                    std::array::from_fn(|i| match first + i < c.group_channels() && i < kind.numbers() {
                        true => &x.values[(first + i) * plane..][..plane],
                        false => &[][..],
                    });
                let Some(phases) = &self.phases else {
                    interleave(exec, kind, x, rows, as_words_mut(to));
                    continue;
                };
                let line = scratch::sized(&mut line, plane);
                interleave(exec, kind, x, rows, as_words_mut(line));
                phases.fill_with(exec.set(), c, line, padding(kind, x), to);
            }
            scratch::give(line);
        });
    }
}

/// The words of up to four channels.
fn interleave(exec: Exec<'_>, kind: Kind, x: Bytes<'_>, rows: [&[u8]; 4], words: &mut [i32]) {
    if kind.numbers() == 4 {
        return pack_four(exec.set(), rows, x.moved(false), words);
    }
    let zero = x.numbers().next().unwrap_or(0);
    pack_two(exec.set(), rows[0], rows[1], x.signed, zero, words);
}

multiversion! {
    /// Words of one or two rows less their zero point.
    fn pack_two(a: &[u8], b: &[u8], signed: bool, zero: i16, words: &mut [i32]) {
        let word = |a: i16, b: i16| {
            let ([a, b], [c, d]) = (a.to_ne_bytes(), b.to_ne_bytes());
            i32::from_ne_bytes([a, b, c, d])
        };
        if b.is_empty() {
            for (to, &a) in words.iter_mut().zip(a) {
                *to = word(number(a, signed) - zero, 0);
            }
            return;
        }
        for ((to, &a), &b) in words.iter_mut().zip(a).zip(b) {
            *to = word(number(a, signed) - zero, number(b, signed) - zero);
        }
    }
}

/// The word of a pixel outside of the image: zero points.
fn padding(kind: Kind, x: Bytes<'_>) -> f32 {
    let zero = x.moved_zeros(false).next().unwrap_or(0) as u8;
    f32::from_bits(if kind.numbers() == 4 { u32::from_ne_bytes([zero; 4]) } else { 0 })
}

/// The products of a group's filters and the windows of an image.
struct Product<'a> {
    kind: Kind,
    steps: usize,
    rows: &'a [u8],
    starts: &'a [i32],
    image: &'a Image,
    planes: &'a [i32],
    output: [usize; 2],
}

impl Product<'_> {
    /// Writes `y`, `[filters, pixels]`; `finish(first filter, sums, results)` turns lines of [`NR`] sums into results.
    fn run<T: Copy + Default + Send>(
        &self,
        exec: Exec<'_>,
        y: &mut [T],
        finish: impl Fn(usize, &[i32], &mut [T]) + Sync,
    ) {
        let (filters, [height, width], columns) = (self.starts.len(), self.output, self.image.columns);
        let tiles = filters.div_ceil(self.kind.rows());
        // Output pixels from the first to the last, along the lines of the planes.
        let run = (height - 1) * columns + width;
        let panels = run.div_ceil(NR);
        let items = tiles * panels;
        let threads = exec.pool().threads();
        let pieces =
            if threads == 1 || filters * run * self.steps < 1 << 16 { 1 } else { items.min(4 * threads) };
        let y = Shared::new(y);
        exec.pool().for_each(pieces, &|piece| {
            let (mut sums, mut lines) = ([0; MR * NR], [T::default(); MR * NR]);
            for item in piece * items / pieces..(piece + 1) * items / pieces {
                let (tile, panel) = (item / panels, item % panels);
                let (first, end) = (tile * filters / tiles, (tile + 1) * filters / tiles);
                let (count, at) = (end - first, panel * NR);
                let rows = &self.rows[first * self.steps * 4..end * self.steps * 4];
                let (sums, lines) = (&mut sums[..count * NR], &mut lines[..count * NR]);
                self.kind.windows(
                    rows,
                    &self.planes[at..],
                    &self.image.offsets,
                    &self.starts[first..end],
                    sums,
                );
                finish(first, sums, lines);
                // The pixels of this panel, by lines of the output.
                let (mut from, last) = (at, run.min(at + NR));
                while from < last {
                    let (row, column) = (from / columns, from % columns);
                    let count = width.saturating_sub(column).min(last - from);
                    for (i, line) in lines.chunks_exact(NR).enumerate().filter(|_| count > 0) {
                        let to = ((first + i) * height + row) * width + column;
                        // SAFETY: no other item has these pixels of these filters.
                        unsafe { y.slice(to, count) }.copy_from_slice(&line[from - at..][..count]);
                    }
                    from += columns - column;
                }
            }
        });
    }
}
