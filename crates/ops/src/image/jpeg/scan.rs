//! Scans: the coefficients of some components, all of them or a part of their bits.

use super::bits::Bits;
use super::frame::{Component, Frame};
use super::huffman::Table;
use super::{State, ZIGZAG};

/// What a scan carries.
struct Part {
    /// Coefficients, by their place in the order.
    first: usize,
    last: usize,
    /// The bit positions above this one were carried before; none for the first scan.
    refined: bool,
    /// The lowest bit position carried.
    low: u32,
    progressive: bool,
}

/// What changes from block to block.
#[derive(Default)]
struct Run {
    previous: [i32; 4],
    /// Blocks to come in which nothing new begins.
    ends: u32,
}

/// Reads a scan after its header. Returns how many bytes it takes.
pub(super) fn scan(header: &[u8], data: &[u8], state: &State, frame: &mut Frame) -> Option<usize> {
    let [n, rest @ ..] = header else { return None };
    let n = usize::from(*n);
    let [first, last, approximation] = *rest.get(2 * n..)? else { return None };
    let mut chosen = Vec::new();
    for pair in rest[..2 * n].chunks_exact(2) {
        let index = frame.components.iter().position(|c| c.id == pair[0])?;
        chosen.push((index, usize::from(pair[1] >> 4), usize::from(pair[1] & 15)));
    }
    let part = Part {
        first: first.into(),
        last: last.into(),
        refined: approximation >> 4 != 0,
        low: (approximation & 15).into(),
        progressive: frame.progressive,
    };
    let whole = (part.first, part.last, approximation) == (0, 63, 0);
    let band =
        part.first <= part.last && part.last < 64 && part.low < 14 && (part.first > 0) != (part.last == 0);
    if !(1..=4).contains(&n) || !(if part.progressive { band && (part.first == 0 || n == 1) } else { whole })
    {
        return None;
    }
    let mut bits = Bits::new(data);
    let mut run = Run::default();
    let units = match chosen[..] {
        [(c, ..)] => {
            let (w, h) = frame.components[c].blocks;
            (w, h)
        }
        _ => (frame.width.div_ceil(8 * frame.h), frame.height.div_ceil(8 * frame.v)),
    };
    let alone = chosen.len() == 1;
    for unit in 0..units.0 * units.1 {
        if state.restart > 0 && unit > 0 && unit % state.restart == 0 {
            bits.restart(unit / state.restart - 1)?;
            run = Run::default();
        }
        let (x, y) = (unit % units.0, unit / units.0);
        for (slot, &(c, dc, ac)) in chosen.iter().enumerate() {
            let component = &mut frame.components[c];
            let (w, h) = if alone { (1, 1) } else { (component.h, component.v) };
            for i in 0..w * h {
                let (bx, by) = (x * w + i % w, y * h + i / w);
                let tables = (state.dc.get(dc)?.as_ref(), state.ac.get(ac)?.as_ref());
                block(&mut bits, &part, tables, &mut run, slot, at(component, bx, by)?)?;
            }
        }
    }
    Some(bits.position())
}

fn at(c: &mut Component, x: usize, y: usize) -> Option<&mut [i16]> {
    let start = (y * c.stride + x) * 64;
    c.coefficients.get_mut(start..start + 64)
}

type Tables<'a> = (Option<&'a Table>, Option<&'a Table>);

fn block(
    bits: &mut Bits<'_>,
    part: &Part,
    (dc, ac): Tables<'_>,
    run: &mut Run,
    slot: usize,
    out: &mut [i16],
) -> Option<()> {
    if part.first == 0 {
        if part.refined {
            out[0] |= (bits.bit()? << part.low) as i16;
        } else {
            let size = bits.symbol(dc?)?;
            if size > 15 {
                return None;
            }
            run.previous[slot] = run.previous[slot].wrapping_add(bits.signed(size.into())?);
            out[0] = (run.previous[slot] << part.low) as i16;
        }
    }
    match (part.progressive, part.refined) {
        (false, _) => sequential(bits, ac?, out),
        (true, _) if part.first == 0 => Some(()),
        (true, false) => begin(bits, part, ac?, run, out),
        (true, true) => refine(bits, part, ac?, run, out),
    }
}

fn sequential(bits: &mut Bits<'_>, table: &Table, out: &mut [i16]) -> Option<()> {
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(table)?;
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if zeros != 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += zeros;
        out[usize::from(*ZIGZAG.get(k)?)] = bits.signed(size)? as i16;
        k += 1;
    }
    Some(())
}

/// The first bits of a band.
fn begin(bits: &mut Bits<'_>, part: &Part, table: &Table, run: &mut Run, out: &mut [i16]) -> Option<()> {
    if run.ends > 0 {
        run.ends -= 1;
        return Some(());
    }
    let mut k = part.first;
    while k <= part.last {
        let symbol = bits.symbol(table)?;
        let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match (zeros, size) {
            (15, 0) => k += 16,
            (_, 0) => {
                run.ends = (1 << zeros) - 1 + bits.bits(zeros)? as u32;
                break;
            }
            _ => {
                k += zeros as usize;
                if k > part.last {
                    return None;
                }
                out[usize::from(ZIGZAG[k])] = (bits.signed(size)? << part.low) as i16;
                k += 1;
            }
        }
    }
    Some(())
}

/// One more bit of each coefficient of a band.
fn refine(bits: &mut Bits<'_>, part: &Part, table: &Table, run: &mut Run, out: &mut [i16]) -> Option<()> {
    let bit = 1i16 << part.low;
    let more = |bits: &mut Bits<'_>, v: &mut i16| -> Option<()> {
        if bits.bit()? == 1 && *v & bit == 0 {
            *v = v.wrapping_add(if *v >= 0 { bit } else { -bit });
        }
        Some(())
    };
    let mut k = part.first;
    if run.ends == 0 {
        while k <= part.last {
            let symbol = bits.symbol(table)?;
            let (mut zeros, size) = (u32::from(symbol >> 4), symbol & 15);
            let mut new = 0;
            match size {
                0 if zeros < 15 => {
                    run.ends = (1 << zeros) + bits.bits(zeros)? as u32;
                    break;
                }
                0 => {}
                1 => new = if bits.bit()? == 1 { bit } else { -bit },
                _ => return None,
            }
            // Past so many coefficients that are still 0; the others on the way get their bit.
            while k <= part.last {
                let v = &mut out[usize::from(ZIGZAG[k])];
                if *v != 0 {
                    more(bits, v)?;
                } else if zeros == 0 {
                    *v = new;
                    k += 1;
                    break;
                } else {
                    zeros -= 1;
                }
                k += 1;
            }
        }
    }
    if run.ends > 0 {
        for &place in ZIGZAG.get(k..=part.last).unwrap_or(&[]) {
            let v = &mut out[usize::from(place)];
            if *v != 0 {
                more(bits, v)?;
            }
        }
        run.ends -= 1;
    }
    Some(())
}
