//! GMAC/s of convolutions on one thread, by kernel set, on the shapes of ResNet-50, MobileNet and EfficientNet.
//!
//! `cargo run --release -p isobit-kernels --example conv_speed [KERNEL_SET [CHANNELS [BATCH]]]` (0 channels: all)

use std::time::Instant;

use isobit_kernels::blocked::{self, Blocks, Source, Weights};
use isobit_kernels::conv::{Conv2d, Filters, conv2d};
use isobit_kernels::gemm::Epilogue;
use isobit_kernels::{Exec, KernelSet, Serial};

/// Channels, filters, groups, input, kernel, stride.
const SHAPES: [[usize; 6]; 26] = [
    [3, 64, 1, 224, 7, 2],
    [64, 64, 1, 56, 1, 1],
    [64, 64, 1, 56, 3, 1],
    [64, 256, 1, 56, 1, 1],
    [256, 64, 1, 56, 1, 1],
    [256, 128, 1, 56, 1, 1],
    [128, 128, 1, 56, 3, 2],
    [128, 512, 1, 28, 1, 1],
    [512, 128, 1, 28, 1, 1],
    [128, 128, 1, 28, 3, 1],
    [256, 1024, 1, 14, 1, 1],
    [1024, 256, 1, 14, 1, 1],
    [256, 256, 1, 14, 3, 1],
    [512, 2048, 1, 7, 1, 1],
    [2048, 512, 1, 7, 1, 1],
    [512, 512, 1, 7, 3, 1],
    [16, 96, 1, 112, 1, 1],
    [24, 144, 1, 56, 1, 1],
    [40, 240, 1, 28, 1, 1],
    [112, 672, 1, 14, 1, 1],
    [32, 32, 32, 112, 3, 1],
    [96, 96, 96, 112, 3, 2],
    [144, 144, 144, 56, 5, 2],
    [240, 240, 240, 28, 3, 1],
    [672, 672, 672, 14, 5, 1],
    [1152, 1152, 1152, 7, 5, 1],
];

fn main() {
    let only = std::env::args().nth(1);
    let number = |i: usize| std::env::args().nth(i).and_then(|n| n.parse::<usize>().ok());
    let (channels_only, batch) = (number(2).filter(|&c| c > 0), number(3).unwrap_or(1));
    for set in KernelSet::available().into_iter().filter(|&s| s != KernelSet::Scalar) {
        if only.as_ref().is_some_and(|o| o != set.name()) {
            continue;
        }
        for [channels, filters, groups, side, kernel, stride] in SHAPES {
            if channels_only.is_some_and(|c| c != channels) {
                continue;
            }
            let pad = kernel / 2;
            let out = (side + 2 * pad - kernel) / stride + 1;
            let c = Conv2d {
                batch,
                channels,
                filters,
                groups,
                input: [side; 2],
                kernel: [kernel; 2],
                output: [out; 2],
                strides: [stride; 2],
                dilations: [1; 2],
                pads: [pad; 2],
            };
            let taps = channels / groups * kernel * kernel;
            let (x, w) = (vec![0.5f32; batch * channels * side * side], vec![0.25f32; filters * taps]);
            let mut y = vec![0.0; batch * filters * out * out];
            let packed = Filters::default();
            let work = (batch * filters * out * out * taps) as f64;
            let runs = (5e9 / work).clamp(3.0, 2000.0) as usize;
            let mut best = f64::INFINITY;
            for _ in 0..runs {
                let start = Instant::now();
                conv2d(Exec::new(set, &Serial), &c, &x, &w, Some(&packed), &Epilogue::default(), &mut y);
                let time = start.elapsed().as_secs_f64();
                best = if time < best { time } else { best };
            }
            let layout = |channels, side, border| Blocks { batch, channels, size: [side; 2], border };
            let (from, to) = (layout(channels, side, pad), layout(filters, out, 0));
            let (bx, by) = (aligned(from.elements()), aligned(to.elements()));
            let bw = blocked::pack(Exec::new(set, &Serial), &Weights::of(&c), &w);
            let source = if channels == 3 { Source::Planes(&x) } else { Source::Blocked(from, bx) };
            let mut in_blocks = f64::INFINITY;
            for _ in 0..runs {
                let start = Instant::now();
                let (exec, none) = (Exec::new(set, &Serial), blocked::Epilogue::default());
                blocked::conv2d(exec, &c, source, &bw, &none, &to, by);
                in_blocks = start.elapsed().as_secs_f64().min(in_blocks);
            }
            let name = format!("{filters} x {channels} / {groups}, {kernel} x {kernel} / {stride} at {side}");
            let speed = |time: f64| work / time / 1e9;
            println!(
                "{set:8} {name:36} {:8.1} us {:7.1} GMAC/s, in blocks {:8.1} us {:7.1} GMAC/s",
                best * 1e6,
                speed(best),
                in_blocks * 1e6,
                speed(in_blocks)
            );
        }
    }
}

/// Halves that begin at the start of a cache line.
fn aligned(len: Option<usize>) -> &'static mut [f32] {
    let len = len.expect("an image in memory");
    let x = vec![0.5; len + 16].leak();
    let at = x.as_ptr().align_offset(64);
    &mut x[at..at + len]
}
