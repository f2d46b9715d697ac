//! Activations, products and what is fused to them.

use super::Call;
use crate::{Attr, GraphError, ValueId};

type Done = Result<(), GraphError>;

/// Gelu of x + bias.
pub(super) fn gelu(c: &mut Call<'_, '_>, fast: bool) -> Done {
    let x = c.need(0)?;
    let x = c.plus(x, 1);
    let form: &[u8] = if fast { b"tanh" } else { b"none" };
    c.result(0, "Gelu", &[x], &[("approximate", Attr::String(form.to_vec()))]);
    Ok(())
}

/// x * Sigmoid(alpha * x).
pub(super) fn quick_gelu(c: &mut Call<'_, '_>) -> Done {
    let x = c.need(0)?;
    let alpha = c.float("alpha").unwrap_or(1.702);
    let alpha = c.number(alpha, x);
    let scaled = c.op("Mul", &[x, alpha], &[]);
    let gate = c.op("Sigmoid", &[scaled], &[]);
    c.result(0, "Mul", &[x, gate], &[]);
    Ok(())
}

/// (x + bias) + skip.
pub(super) fn bias_add(c: &mut Call<'_, '_>) -> Done {
    let (x, bias, skip) = (c.need(0)?, c.need(1)?, c.need(2)?);
    let sum = c.op("Add", &[x, bias], &[]);
    c.result(0, "Add", &[sum, skip], &[]);
    Ok(())
}

/// The first half of x + bias times Gelu of the second.
pub(super) fn bias_split_gelu(c: &mut Call<'_, '_>) -> Done {
    let (x, bias) = (c.need(0)?, c.need(1)?);
    let sum = c.op("Add", &[x, bias], &[]);
    let halves =
        c.many("Split", vec![Some(sum)], &[("axis", Attr::Int(-1)), ("num_outputs", Attr::Int(2))], 2);
    let gate = c.op("Gelu", &[halves[1]], &[]);
    c.result(0, "Mul", &[halves[0], gate], &[]);
    Ok(())
}

/// Dropout of x + bias, then + residual.
pub(super) fn bias_dropout(c: &mut Call<'_, '_>) -> Done {
    let (x, bias) = (c.need(0)?, c.need(1)?);
    let sum = c.op("Add", &[x, bias], &[]);
    let inputs = vec![Some(sum), c.input(3), c.input(4)];
    let seed = c.attrs.remove("seed").map(|s| ("seed", s));
    let dropped = c.many("Dropout", inputs, seed.as_slice(), 2);
    match c.input(2) {
        Some(residual) => c.result(0, "Add", &[dropped[0], residual], &[]),
        None => c.result(0, "Identity", &[dropped[0]], &[]),
    }
    c.result(1, "Identity", &[dropped[1]], &[]);
    Ok(())
}

/// alpha times the product of A and B, transposed where asked for.
pub(super) fn fused_matmul(c: &mut Call<'_, '_>) -> Done {
    let (mut a, mut b) = (c.need(0)?, c.need(1)?);
    if c.int("transBatchA", 0) != 0 || c.int("transBatchB", 0) != 0 {
        return Err(c.error("transBatchA and transBatchB have no equivalent here; export without them"));
    }
    let turn = || [("equation", Attr::String(b"...ij->...ji".to_vec()))];
    if c.int("transA", 0) != 0 {
        a = c.op("Einsum", &[a], &turn());
    }
    if c.int("transB", 0) != 0 {
        b = c.op("Einsum", &[b], &turn());
    }
    match c.float("alpha").filter(|&a| a != 1.0) {
        None => c.result(0, "MatMul", &[a, b], &[]),
        Some(alpha) => {
            let alpha = c.number(alpha, a);
            let product = c.op("MatMul", &[a, b], &[]);
            c.result(0, "Mul", &[product, alpha], &[]);
        }
    }
    Ok(())
}

/// Gemm or Conv, then + Z (Conv), then the activation.
pub(super) fn activated(c: &mut Call<'_, '_>, op: &str) -> Done {
    let mut attrs = std::mem::take(&mut c.attrs);
    let name = match attrs.remove("activation") {
        Some(Attr::String(name)) => String::from_utf8_lossy(&name).into_owned(),
        _ => String::new(),
    };
    let params = match attrs.remove("activation_params") {
        Some(Attr::Floats(v)) => v,
        _ => Vec::new(),
    };
    let mut own = Vec::new();
    for (key, to) in
        [("activation_alpha", "alpha"), ("activation_beta", "beta"), ("activation_gamma", "gamma")]
    {
        if let Some(value) = attrs.remove(key) {
            own.push((to, value));
        }
    }
    let mut inputs = c.inputs.clone();
    let skip = if inputs.len() > 3 { inputs.remove(3) } else { None };
    let value = c.many(op, inputs, &[], 1)[0];
    c.attrs = attrs;
    c.attributes_to_last();
    let value = match skip {
        Some(z) => c.op("Add", &[value, z], &[]),
        None => value,
    };
    let float = |i: usize, default: f32| Attr::Float(params.get(i).copied().unwrap_or(default));
    match name.as_str() {
        "" => c.result(0, "Identity", &[value], &[]),
        "Relu" | "Tanh" | "Sigmoid" => c.result(0, &name, &[value], &[]),
        "LeakyRelu" => {
            own.extend(own.is_empty().then(|| ("alpha", float(0, 0.01))));
            c.result(0, &name, &[value], &own);
        }
        "HardSigmoid" => {
            if own.is_empty() {
                own = vec![("alpha", float(0, 0.2)), ("beta", float(1, 0.5))];
            }
            c.result(0, &name, &[value], &own);
        }
        "Clip" => match params[..] {
            [low, high] => {
                let (low, high) = (c.number(low, value), c.number(high, value));
                c.result(0, "Clip", &[value, low, high], &[]);
            }
            _ => return Err(c.error("its Clip needs two activation_params")),
        },
        other => return Err(c.error(&format!("its activation {other} is not known"))),
    }
    Ok(())
}

/// Gelu, by tanh, of the product plus the bias.
pub(super) fn matmul_gelu(c: &mut Call<'_, '_>) -> Done {
    let (a, b) = (c.need(0)?, c.need(1)?);
    let product = c.op("MatMul", &[a, b], &[]);
    let sum = c.plus(product, 2);
    c.result(0, "Gelu", &[sum], &[("approximate", Attr::String(b"tanh".to_vec()))]);
    Ok(())
}

/// Softmax over all dimensions from `axis` on.
pub(super) fn flat_softmax(c: &mut Call<'_, '_>, x: ValueId, axis: i64) -> ValueId {
    let flat = c.op("Flatten", &[x], &[("axis", Attr::Int(axis))]);
    let y = c.op("Softmax", &[flat], &[("axis", Attr::Int(-1))]);
    let shape = c.op("Shape", &[x], &[]);
    c.op("Reshape", &[y, shape], &[])
}

/// Softmax of x + bias over all dimensions from `axis` on.
pub(super) fn bias_softmax(c: &mut Call<'_, '_>) -> Done {
    let (x, bias) = (c.need(0)?, c.need(1)?);
    let sum = c.op("Add", &[x, bias], &[]);
    let y = flat_softmax(c, sum, c.int("axis", 1));
    c.result(0, "Identity", &[y], &[]);
    Ok(())
}

/// The distance of each row of A from each row of B.
pub(super) fn distances(c: &mut Call<'_, '_>) -> Done {
    let (a, b) = (c.need(0)?, c.need(1)?);
    let op = match c.attrs.get("metric") {
        None => "ReduceSumSquare",
        Some(Attr::String(s)) if s == b"sqeuclidean" => "ReduceSumSquare",
        Some(Attr::String(s)) if s == b"euclidean" => "ReduceL2",
        _ => return Err(c.error("its metric must be euclidean or sqeuclidean")),
    };
    let (one, zero, two) = (c.ints(&[1]), c.ints(&[0]), c.ints(&[2]));
    let (a, b) = (c.op("Unsqueeze", &[a, one], &[]), c.op("Unsqueeze", &[b, zero], &[]));
    let difference = c.op("Sub", &[a, b], &[]);
    c.result(0, op, &[difference, two], &[("keepdims", Attr::Int(0))]);
    Ok(())
}

/// The standard's names of the modes.
pub(super) fn grid_sample(c: &mut Call<'_, '_>) {
    if let Some(Attr::String(mode)) = c.attrs.get_mut("mode") {
        match mode.as_slice() {
            b"bilinear" => *mode = b"linear".to_vec(),
            b"bicubic" => *mode = b"cubic".to_vec(),
            _ => {}
        }
    }
}

/// In the order of first occurrence; elements, where each input is among them, counts.
pub(super) fn unique(c: &mut Call<'_, '_>) -> Done {
    let x = c.need(0)?;
    let out = c.many("Unique", vec![Some(x)], &[("sorted", Attr::Int(0))], 4);
    for (i, value) in [out[0], out[2], out[3]].into_iter().enumerate() {
        c.result(i, "Identity", &[value], &[]);
    }
    Ok(())
}

/// In steps of 1 where none are given.
pub(super) fn range(c: &mut Call<'_, '_>) -> Done {
    let (start, limit) = (c.need(0)?, c.need(1)?);
    let step = match c.input(2) {
        Some(step) => step,
        None => c.number(1.0, start),
    };
    c.result(0, "Range", &[start, limit, step], &[]);
    Ok(())
}
