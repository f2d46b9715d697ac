//! Colours of the file to red, green and blue.

use super::frame::{Frame, Plane};
use super::upsample::upsample;
use crate::image::Pixels;

#[derive(Clone, Copy, PartialEq)]
enum Space {
    Gray,
    Rgb,
    Ycc,
    Cmyk,
    Ycck,
}

/// What the components are, by the segments before them and by their names.
fn space(frame: &Frame, jfif: bool, adobe: Option<u8>) -> Space {
    let ids: Vec<u8> = frame.components.iter().map(|c| c.id).collect();
    match (ids.len(), adobe) {
        (1, _) => Space::Gray,
        (3, _) if jfif => Space::Ycc,
        (3, Some(0)) => Space::Rgb,
        (3, None) if ids == *b"RGB" => Space::Rgb,
        (3, _) => Space::Ycc,
        (_, Some(2)) => Space::Ycck,
        _ => Space::Cmyk,
    }
}

pub(super) fn pixels(frame: &Frame, planes: &[Plane], jfif: bool, adobe: Option<u8>) -> Option<Pixels> {
    let full: Vec<Vec<u8>> =
        frame.components.iter().zip(planes).map(|(c, p)| upsample(frame, c, p)).collect();
    let space = space(frame, jfif, adobe);
    let at = |i: usize, k: usize| full[k][i];
    let rgb = (0..frame.width * frame.height).flat_map(|i| match space {
        Space::Gray => [at(i, 0); 3],
        Space::Rgb => [at(i, 0), at(i, 1), at(i, 2)],
        Space::Ycc => ycc(at(i, 0), at(i, 1), at(i, 2)),
        Space::Cmyk | Space::Ycck => {
            let mut ink = [at(i, 0), at(i, 1), at(i, 2)];
            if space == Space::Ycck {
                ink = ycc(ink[0], ink[1], ink[2]).map(|v| 255 - v);
            }
            let mut black = at(i, 3);
            if adobe.is_some() {
                // Adobe's inks are inverted.
                (ink, black) = (ink.map(|v| 255 - v), 255 - black);
            }
            let light = 255 - u32::from(black);
            ink.map(|v| {
                let product = u32::from(v) * light + 128;
                (light - (((product >> 8) + product) >> 8)) as u8
            })
        }
    });
    Some(Pixels { width: frame.width, height: frame.height, rgb: rgb.collect() })
}

/// Factors of 2^-16, rounded once an output.
fn ycc(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let half = 1 << 15;
    let r = y + ((91_881 * cr + half) >> 16);
    let g = y + ((-22_554 * cb - 46_802 * cr + half) >> 16);
    let b = y + ((116_130 * cb + half) >> 16);
    [r, g, b].map(|v| v.clamp(0, 255) as u8)
}
