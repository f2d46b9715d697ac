//! JPEG with Huffman codes and samples of 8 bits, sequential or progressive.
//!
//! The pixels are those of integer arithmetic throughout: the inverse transform of `idct`, chroma brought up as `upsample` says, and
//! colours by factors of 2^-16 (`color`).

mod bits;
mod color;
mod frame;
mod huffman;
mod idct;
mod scan;
mod upsample;

use super::Pixels;
use frame::{Frame, frame};
use huffman::Table;

/// The tables and settings that markers change.
#[derive(Default)]
struct State {
    quant: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart: usize,
    jfif: bool,
    /// The transform in Adobe's segment.
    adobe: Option<u8>,
}

/// The order in which a block's coefficients come.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// More scans than any encoder writes; each may cost the whole image.
const SCANS: usize = 100;

/// The pixels, where the file is whole and its extents have `room`.
pub(super) fn decode(file: &[u8], room: &dyn Fn(usize, usize) -> bool) -> Option<Pixels> {
    let mut state = State::default();
    let mut image: Option<Frame> = None;
    let (mut at, mut scans) = (2, 0);
    loop {
        // Markers may have any number of fill bytes before them.
        while *file.get(at)? == 0xff && *file.get(at + 1)? == 0xff {
            at += 1;
        }
        let (0xff, marker) = (*file.get(at)?, *file.get(at + 1)?) else { return None };
        at += 2;
        if marker == 0xd9 {
            break;
        }
        if matches!(marker, 0x01 | 0xd0..=0xd7) {
            continue;
        }
        let length = usize::from(u16::from_be_bytes([*file.get(at)?, *file.get(at + 1)?]));
        let segment = file.get(at + 2..at + length.max(2))?;
        at += length.max(2);
        match marker {
            0xc0..=0xc2 if image.is_none() => image = Some(frame(segment, marker == 0xc2, room)?),
            0xc4 => huffman::tables(segment, &mut state)?,
            0xdb => quantisation(segment, &mut state.quant)?,
            0xdd => state.restart = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
            0xe0 => state.jfif |= segment.starts_with(b"JFIF\0"),
            0xee if segment.starts_with(b"Adobe") => state.adobe = segment.get(11).copied(),
            0xda => {
                scans += 1;
                if scans > SCANS {
                    return None;
                }
                at += scan::scan(segment, &file[at..], &state, image.as_mut()?)?;
            }
            // Arithmetic codes, lossless and hierarchical files.
            0xc0..=0xcf => return None,
            _ => {}
        }
    }
    let image = image?;
    let planes = image.planes(&state.quant)?;
    color::pixels(&image, &planes, state.jfif, state.adobe)
}

fn quantisation(mut segment: &[u8], tables: &mut [Option<[u16; 64]>; 4]) -> Option<()> {
    while let [head, rest @ ..] = segment {
        let wide = head >> 4 == 1;
        let (own, after) = rest.split_at_checked(if wide { 128 } else { 64 })?;
        let mut table = [0; 64];
        for (i, &place) in ZIGZAG.iter().enumerate() {
            table[usize::from(place)] =
                if wide { u16::from_be_bytes([own[2 * i], own[2 * i + 1]]) } else { own[i].into() };
        }
        *tables.get_mut(usize::from(head & 15))? = Some(table);
        segment = after;
    }
    Some(())
}
