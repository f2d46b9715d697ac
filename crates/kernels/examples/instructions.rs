//! Runs one kernel some times, for counting its instructions (`bench/instructions.py`): on AVX2, which valgrind knows.
//!
//! `instructions NAME TIMES`; without arguments it prints the names.

use isobit_kernels::blocked::{self, Blocks, Source, Weights};
use isobit_kernels::conv::{Conv2d, Filters, conv2d};
use isobit_kernels::gemm::{Epilogue, PackedB, View, gemm_packed};
use isobit_kernels::integer::{Bytes, PackedFilters, Requantize, Results};
use isobit_kernels::math::{Unary, unary_in_place};
use isobit_kernels::{Exec, KernelSet, Serial, integer, norm};

fn extents(channels: usize, groups: usize, side: usize, kernel: usize) -> Conv2d {
    Conv2d {
        batch: 1,
        channels,
        filters: channels,
        groups,
        input: [side; 2],
        kernel: [kernel; 2],
        output: [side; 2],
        strides: [1; 2],
        dilations: [1; 2],
        pads: [kernel / 2; 2],
    }
}

fn conv(channels: usize, groups: usize, side: usize, kernel: usize) -> impl FnMut(Exec<'_>) {
    let c = extents(channels, groups, side, kernel);
    let x = vec![0.5f32; channels * side * side];
    let w = vec![0.25f32; channels * channels / groups * kernel * kernel];
    let (mut y, filters) = (vec![0.0; x.len()], Filters::default());
    move |exec| conv2d(exec, &c, &x, &w, Some(&filters), &Epilogue::default(), &mut y)
}

fn in_blocks(channels: usize, groups: usize, side: usize, kernel: usize) -> impl FnMut(Exec<'_>) {
    let c = extents(channels, groups, side, kernel);
    let layout = Blocks { batch: 1, channels, size: [side; 2], border: kernel / 2 };
    let x = vec![0.5f32; layout.elements().expect("an image in memory")];
    let w = vec![0.25f32; channels * channels / groups * kernel * kernel];
    let packed = blocked::pack(Exec::new(KernelSet::Avx2, &Serial), &Weights::of(&c), &w);
    let mut y = x.clone();
    move |exec| {
        let source = Source::Blocked(layout, &x);
        blocked::conv2d(exec, &c, source, &packed, &blocked::Epilogue::default(), &layout, &mut y)
    }
}

fn product(m: usize, n: usize, k: usize) -> impl FnMut(Exec<'_>) {
    let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
    let packed = PackedB::new(Exec::new(KernelSet::Avx2, &Serial), k, n, View::row_major(&b, n));
    let mut c = vec![0.0; m * n];
    move |exec| gemm_packed(exec, m, View::row_major(&a, k), &packed, &mut c, n, &Epilogue::default())
}

fn function(f: Unary) -> impl FnMut(Exec<'_>) {
    let x: Vec<f32> = (0..8192).map(|i| (i as f32 - 4096.0) / 1024.0).collect();
    move |exec| unary_in_place(exec, f, &mut x.clone())
}

fn integer_conv(channels: usize, side: usize, kernel: usize) -> impl FnMut(Exec<'_>) {
    let c = extents(channels, 1, side, kernel);
    let x = vec![3u8; channels * side * side];
    let w = vec![5u8; channels * channels * kernel * kernel];
    let w = Bytes { values: &w, signed: true, zeros: &[0] };
    let packing = Exec::new(KernelSet::Avx2, &Serial);
    let filters = PackedFilters::new(packing, 1, [channels, channels, kernel * kernel], w);
    let mut y = vec![0u8; x.len()];
    move |exec| {
        let x = Bytes { values: &x, signed: false, zeros: &[7] };
        let how = Requantize { factors: &[0.01], zero: 3, signed: false };
        integer::conv(exec, &c, x, &filters, None, Results::Bytes(&mut y, how));
    }
}

type Kernel = Box<dyn FnMut(Exec<'_>)>;

fn kernels() -> Vec<(&'static str, Kernel)> {
    let rows: Vec<f32> = (0..128 * 768).map(|i| (i % 97) as f32 * 0.01).collect();
    let (softmax, layer_norm) = (rows.clone(), rows);
    let scale = vec![1.0f32; 768];
    let packing = Exec::new(KernelSet::Avx2, &Serial);
    let ints = vec![3i16; 128 * 768];
    let packed_ints = integer::PackedInts::new(packing, 768, 128, &ints);
    let mut sums = vec![0i32; 128 * 128];
    let mut bytes = vec![0u8; 8192];
    let numbers: Vec<f32> = (0..8192).map(|i| i as f32 * 0.01).collect();
    vec![
        ("gemm 128x768x768", Box::new(product(128, 768, 768))),
        ("gemm 1x768x768", Box::new(product(1, 768, 768))),
        ("gemm 2x768x768", Box::new(product(2, 768, 768))),
        ("conv 3x3 64 at 28", Box::new(conv(64, 1, 28, 3))),
        ("conv 1x1 64 at 28", Box::new(conv(64, 1, 28, 1))),
        ("conv 3x3 128 at 7", Box::new(conv(128, 1, 7, 3))),
        ("depthwise 5x5 96 at 14", Box::new(conv(96, 96, 14, 5))),
        ("conv 3x3 64 at 28 in blocks", Box::new(in_blocks(64, 1, 28, 3))),
        ("conv 1x1 64 at 28 in blocks", Box::new(in_blocks(64, 1, 28, 1))),
        ("depthwise 5x5 96 at 14 in blocks", Box::new(in_blocks(96, 96, 14, 5))),
        ("exp", Box::new(function(Unary::Exp))),
        ("sigmoid", Box::new(function(Unary::Sigmoid))),
        ("gelu", Box::new(function(Unary::Gelu))),
        ("softmax 128x768", Box::new(move |exec| norm::softmax(exec, &mut softmax.clone(), 768))),
        (
            "layer norm 128x768",
            Box::new(move |exec| {
                norm::layer_norm(exec, &mut layer_norm.clone(), 768, 1e-5, &scale, None, None);
            }),
        ),
        (
            "integer gemm 128x128x768",
            Box::new(move |exec| integer::gemm(exec, 128, &ints, &packed_ints, &mut sums)),
        ),
        ("integer conv 3x3 64 at 28", Box::new(integer_conv(64, 28, 3))),
        ("quantize", Box::new(move |exec| integer::quantize(exec, &numbers, 0.3, 12, false, &mut bytes))),
    ]
}

fn main() {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        kernels().iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let times: usize = args.next().and_then(|n| n.parse().ok()).expect("give NAME TIMES");
    let exec = Exec::new(KernelSet::Avx2, &Serial);
    let mut kernels = kernels();
    let (_, kernel) = kernels.iter_mut().find(|(n, _)| *n == name).expect("a name of the list");
    for _ in 0..times {
        kernel(exec);
    }
}
