//! The elementary functions of f32 on every one of their 2^32 inputs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use isobit_kernels::math::{Unary, unary};
use isobit_kernels::{Exec, Serial};
use isobit_numerics::convert::canonical_bits;
use isobit_runtime::KernelSet;
use isobit_tensor::Hash;

/// A function, its name, and the hash over its results.
pub struct Function {
    /// As ONNX calls it.
    pub name: &'static str,
    function: Unary,
    /// What every machine must compute. `crates/numerics/EXHAUSTIVE.md` says how it is known that these are the correctly
    /// rounded results.
    pub expected: &'static str,
}

const fn of(name: &'static str, function: Unary, expected: &'static str) -> Function {
    Function { name, function, expected }
}

/// Every elementary function.
static FUNCTIONS: [Function; 17] = [
    of("Exp", Unary::Exp, "c43a927c3706a9caa3d39172042e992e971c9331182d05b8c213f89fab651d96"),
    of("Log", Unary::Ln, "b865446d27ff93a42e8a666a764f09b929fca04664fc69421b76ebfbf21eb930"),
    of("Erf", Unary::Erf, "5e512cf8bdc05ccf586d068451f786f725c655fe4158c02d20113e5b519d46f0"),
    of("Tanh", Unary::Tanh, "97d12a601707a5ae2cd28411904081eda3554a8ae095f7f58d147179f0cbb506"),
    of("Sigmoid", Unary::Sigmoid, "fa1798e2a4bc00f8e5f754e84357bc8dead8cdfa2e03df9d14a421f08abdd33c"),
    of("Softplus", Unary::Softplus, "c0dda9b280a1110cbb72e5568f866328b9d7d792561d648e4461b9df5f73ae97"),
    of("Sin", Unary::Sin, "0961384d952962bbf45a05ddbecb1b3fd2c55e34e17da2f5539539ab29762ce0"),
    of("Cos", Unary::Cos, "68ce405ffe671929cfc7f109af25335cebce5b9f5ed991d7fd15774d0a0dfa47"),
    of("Tan", Unary::Tan, "7966c6354167af7ed91fd42b17e1354e64e5d866905e8a82a44bbf3a06380f2c"),
    of("Asin", Unary::Asin, "9177e4592a365c62786df691414e2d10296dc630a07286ef3f8ec3be8c324fce"),
    of("Acos", Unary::Acos, "66479bf2c7cf92d52fc8e9b7de369a98c4b13d496fe471fbc3f86580412c93f2"),
    of("Atan", Unary::Atan, "45c69efe1f389e2b04fee1489d4f7ed2cb0f6a967e6aa89b9d5c4b7e4e682a92"),
    of("Sinh", Unary::Sinh, "39b317985c240c604e81a8aff44779fc48166e9423b1beb6d549ddcd173aaf00"),
    of("Cosh", Unary::Cosh, "e06061b2c530d31f691da9e9367db64ba821577db3d2696d5caf8384fa6cebbe"),
    of("Asinh", Unary::Asinh, "05c942a245bcc1d9207a09d6ee9ea5662dc80057aba408cfba726e4613eb79d5"),
    of("Acosh", Unary::Acosh, "e592c2853460ee87b2c019e1b603fae0ed4f3951b49804dca0d999ec7d92cc4d"),
    of("Atanh", Unary::Atanh, "9e561f62bca8a41a38e8561554bb08f413205ce4218eccdf2e4a2f88fcc78c54"),
];

/// The functions of these names, all where there are none.
pub fn functions(names: &[String]) -> Result<Vec<&'static Function>, String> {
    let known = || FUNCTIONS.iter().map(|f| f.name);
    if let Some(other) = names.iter().find(|n| known().all(|k| k != n.as_str())) {
        let known: Vec<&str> = known().collect();
        return Err(format!("there is no function {other}; known are {}", known.join(", ")));
    }
    Ok(FUNCTIONS.iter().filter(|f| names.is_empty() || names.iter().any(|n| n == f.name)).collect())
}

/// Inputs that are computed and hashed at a time.
const BLOCK: usize = 1 << (32 - 14);
/// Blocks of all inputs.
pub const BLOCKS: usize = 1 << 14;

impl Function {
    /// The hash over the hashes of all blocks of results, every NaN the quiet one, computed with `set` on `workers` threads.
    /// `progress` is told of each block.
    pub fn hash(&self, set: KernelSet, workers: usize, progress: &(dyn Fn() + Sync)) -> Hash {
        let next = AtomicUsize::new(0);
        let hashes = Mutex::new(vec![[0; 32]; BLOCKS]);
        let work = || {
            let (mut x, mut y) = (vec![0.0f32; BLOCK], vec![0.0f32; BLOCK]);
            let mut bytes = vec![0u8; 4 * BLOCK];
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                if block >= BLOCKS {
                    return;
                }
                let start = (block * BLOCK) as u32;
                x.iter_mut().zip(start..).for_each(|(x, bits)| *x = f32::from_bits(bits));
                unary(Exec::new(set, &Serial), self.function, &x, &mut y);
                for (bytes, y) in bytes.chunks_exact_mut(4).zip(&y) {
                    bytes.copy_from_slice(&canonical_bits(*y).to_le_bytes());
                }
                let hash = *blake3::hash(&bytes).as_bytes();
                hashes.lock().unwrap_or_else(PoisonError::into_inner)[block] = hash;
                progress();
            }
        };
        if workers > 1 {
            std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
        } else {
            work();
        }
        let hashes = hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
        Hash::of(hashes.as_flattened())
    }
}
