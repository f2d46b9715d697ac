//! ImageDecoder: an image file as pixels.
//!
//! JPEG is decoded here, because its pixels depend on how the decoder rounds: integers only, as `jpeg` says. The other formats are
//! decoded by libraries, without their vector instructions.

mod jpeg;

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use isobit_tensor::{DType, Tensor};

use crate::axes::fact;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("ImageDecoder", 20, image_decoder)];

#[derive(Clone, Copy, PartialEq)]
enum PixelFormat {
    Rgb,
    Bgr,
    Gray,
}

/// The pixels, [height, width, channels]; [0, 0, channels] where the file is none that can be decoded. Grey is
/// (19595 r + 38470 g + 7471 b + 2^15) >> 16.
struct ImageDecoder(PixelFormat);

fn image_decoder(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let formats = [("RGB", PixelFormat::Rgb), ("BGR", PixelFormat::Bgr), ("Grayscale", PixelFormat::Gray)];
    ctx.one(ImageDecoder(ctx.choice("pixel_format", &formats)?))
}

/// Red, green, blue of each pixel.
struct Pixels {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// Bytes an image may take while it is decoded, for each byte of its file: what the cost is counted by.
const EXPANSION: usize = 4096;

impl Op for ImageDecoder {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        if let Some(t) = fact(inputs, 0).dtype.filter(|&t| t != DType::U8) {
            return Err(OpError::unsupported_type(t));
        }
        let channels = if self.0 == PixelFormat::Gray { 1 } else { 3 };
        Ok(vec![Fact::new(Some(DType::U8), Some(vec![None, None, Some(channels)]))])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(EXPANSION as u64)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let file = inputs.slice::<u8>(0)?;
        let most = file.len().saturating_mul(EXPANSION);
        let room = |width: usize, height: usize| {
            let n =
                width.checked_mul(height).and_then(|n| n.checked_mul(16)).filter(|&n| n <= most.max(1 << 16));
            n.is_some_and(|n| ctx.memory.check::<u8>(&[n]).is_ok())
        };
        let pixels = decode(file, &room).unwrap_or(Pixels { width: 0, height: 0, rgb: Vec::new() });
        let Pixels { width, height, mut rgb } = pixels;
        match self.0 {
            PixelFormat::Rgb => {}
            PixelFormat::Bgr => rgb.chunks_exact_mut(3).for_each(|p| p.swap(0, 2)),
            PixelFormat::Gray => {
                let grey = rgb.chunks_exact(3).map(|p| {
                    let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
                    ((19_595 * r + 38_470 * g + 7_471 * b + 32_768) >> 16) as u8
                });
                return Ok(vec![Tensor::new(&[height, width, 1], grey.collect())?]);
            }
        }
        Ok(vec![Tensor::new(&[height, width, 3], rgb)?])
    }
}

/// The pixels of a file in one of the standard's formats, whose extents have `room`.
fn decode(file: &[u8], room: &dyn Fn(usize, usize) -> bool) -> Option<Pixels> {
    match file {
        [0xff, 0xd8, ..] => jpeg::decode(file, room),
        [0, 0, 0, 12, b'j', b'P', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => jpeg2000(file, room),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => tiff(file, room),
        _ => by_library(file, room),
    }
}

/// BMP, PNG, PNM and WebP.
fn by_library(file: &[u8], room: &dyn Fn(usize, usize) -> bool) -> Option<Pixels> {
    let format = image::guess_format(file).ok()?;
    if !matches!(format, ImageFormat::Bmp | ImageFormat::Png | ImageFormat::Pnm | ImageFormat::WebP) {
        return None;
    }
    let (width, height) = ImageReader::with_format(Cursor::new(file), format).into_dimensions().ok()?;
    if !room(width as usize, height as usize) {
        return None;
    }
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc =
        Some((u64::from(width) * u64::from(height)).saturating_mul(16).saturating_add(1 << 20));
    reader.limits(limits);
    Some(pixels(&reader.decode().ok()?))
}

fn pixels(image: &DynamicImage) -> Pixels {
    let rgb = image.to_rgb8();
    Pixels { width: rgb.width() as usize, height: rgb.height() as usize, rgb: rgb.into_raw() }
}

fn tiff(file: &[u8], room: &dyn Fn(usize, usize) -> bool) -> Option<Pixels> {
    use tiff::ColorType;
    use tiff::decoder::{Decoder, DecodingResult, Limits};
    let mut decoder = Decoder::new(Cursor::new(file)).ok()?;
    let (w, h) = decoder.dimensions().ok()?;
    let (width, height) = (w as usize, h as usize);
    if !room(width, height) {
        return None;
    }
    let mut limits = Limits::default();
    limits.decoding_buffer_size = width * height * 8 + 1024;
    limits.intermediate_buffer_size = width * height * 8 + (1 << 20);
    decoder = decoder.with_limits(limits);
    let samples = match decoder.colortype().ok()? {
        ColorType::Gray(8 | 16) => 1,
        ColorType::GrayA(8 | 16) => 2,
        ColorType::RGB(8 | 16) => 3,
        ColorType::RGBA(8 | 16) => 4,
        _ => return None,
    };
    let bytes: Vec<u8> = match decoder.read_image().ok()? {
        DecodingResult::U8(v) => v,
        // The nearest of 256 levels.
        DecodingResult::U16(v) => {
            v.into_iter().map(|v| ((u32::from(v) * 255 + 32_767) / 65_535) as u8).collect()
        }
        _ => return None,
    };
    interleaved(&bytes, samples, width, height)
}

fn jpeg2000(file: &[u8], room: &dyn Fn(usize, usize) -> bool) -> Option<Pixels> {
    let image = hayro_jpeg2000::Image::new(file, &hayro_jpeg2000::DecodeSettings::default()).ok()?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let samples = usize::from(image.color_space().num_channels()) + usize::from(image.has_alpha());
    if !room(width, height) || samples > 4 {
        return None;
    }
    interleaved(&image.decode().ok()?, samples, width, height)
}

/// Grey or colour with or without alpha, which is left out.
fn interleaved(bytes: &[u8], samples: usize, width: usize, height: usize) -> Option<Pixels> {
    if bytes.len() != width.checked_mul(height)?.checked_mul(samples)? {
        return None;
    }
    let rgb =
        bytes.chunks_exact(samples).flat_map(|p| if samples < 3 { [p[0]; 3] } else { [p[0], p[1], p[2]] });
    Some(Pixels { width, height, rgb: rgb.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_gives_none() {
        let room = |_: usize, _: usize| true;
        for file in [
            &b""[..],
            b"\xff\xd8",
            b"\xff\xd8\xff\xe0\0\x10JFIF",
            b"II*\0",
            b"BM",
            b"P6 9 9 255\n",
            b"\x89PNG\r\n\x1a\n",
        ] {
            assert!(decode(file, &room).is_none(), "{file:?}");
        }
        let grey = decode(b"P5 2 1 255\n\x07\xff", &room).unwrap();
        assert_eq!((grey.width, grey.height, grey.rgb), (2, 1, vec![7, 7, 7, 255, 255, 255]));
        assert!(decode(b"P5 2 1 255\n\x07\xff", &|_, _| false).is_none());
    }
}
