//! OpenGradient's decimal numbers to tensors of the model's types, and tensors back.
//!
//! A number is `value / 10^decimals`. Inputs carry no type: the model's manifest says what they become, rounded to the nearest
//! (float16 and bfloat16 by way of float64). Float outputs go back as their shortest digits with signed decimals, from which the
//! SDK restores every finite float32 exactly. What numbers cannot carry goes as JSON, which the SDK reads too: NaN, infinities,
//! negative zero, float64, integers and booleans with their shapes.

use std::fmt::Write;

use isobit_graph::Slot;
use isobit_tensor::{DType, Data, Tensor, bf16, f16};

use crate::abi::IOpenGradient::{JsonScalar, ModelInput, ModelOutput, Number, NumberTensor, StringTensor};

/// Furthest decimals that mean anything to a float64.
const MAX_DECIMALS: i128 = 400;

/// The tensors of a request in the model's order.
pub(super) fn tensors(slots: &[Slot], input: &ModelInput) -> Result<Vec<(String, Tensor)>, String> {
    let given = input.numbers.iter().map(|t| &t.name).chain(input.strings.iter().map(|t| &t.name));
    let names = || slots.iter().map(|s| format!("'{}'", s.name)).collect::<Vec<_>>().join(", ");
    for (i, name) in given.clone().enumerate() {
        if !slots.iter().any(|s| s.name == *name) {
            return Err(format!("the model has no input '{name}'; its inputs are {}", names()));
        }
        if given.clone().take(i).any(|n| n == name) {
            return Err(format!("input '{name}' is given twice"));
        }
    }
    slots.iter().map(|slot| Ok((slot.name.clone(), tensor(slot, input)?))).collect()
}

fn tensor(slot: &Slot, input: &ModelInput) -> Result<Tensor, String> {
    let name = &slot.name;
    let fail = |why: String| format!("input '{name}': {why}");
    let dtype = slot.dtype.ok_or_else(|| fail("its type cannot be given by numbers or strings".into()))?;
    if let Some(t) = input.strings.iter().find(|t| t.name == *name) {
        if dtype != DType::String {
            return Err(fail(format!("the model takes {} numbers, not strings", dtype.name())));
        }
        let shape = string_shape(slot, t.values.len()).map_err(fail)?;
        return Tensor::new(&shape, t.values.clone()).map_err(|e| fail(e.to_string()));
    }
    let given = input.numbers.iter().find(|t| t.name == *name);
    let given = given.ok_or_else(|| format!("input '{name}' is missing"))?;
    if dtype == DType::String {
        return Err(fail("the model takes strings, not numbers".into()));
    }
    let shape: Vec<usize> = given.shape.iter().map(|&d| d as usize).collect();
    check_shape(slot, &shape).map_err(fail)?;
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if count != Some(given.values.len()) {
        return Err(fail(format!("{} values do not fill the shape {shape:?}", given.values.len())));
    }
    let mut bytes = Vec::new();
    for (i, number) in given.values.iter().enumerate() {
        element(dtype, number, &mut bytes).map_err(|why| fail(format!("value {i}: {why}")))?;
    }
    Tensor::from_le_bytes(dtype, &shape, &bytes).map_err(|e| fail(e.to_string()))
}

fn check_shape(slot: &Slot, shape: &[usize]) -> Result<(), String> {
    let Some(expected) = &slot.shape else { return Ok(()) };
    let fits = expected.len() == shape.len()
        && expected.iter().zip(shape).all(|(e, &d)| e.is_none_or(|e| e == d as u64));
    if fits {
        return Ok(());
    }
    let dim = |d: &Option<u64>| d.map_or("any".to_owned(), |d| d.to_string());
    let expected = expected.iter().map(dim).collect::<Vec<_>>().join(", ");
    Err(format!("shape {shape:?}; the model takes [{expected}]"))
}

/// Strings come without a shape: the model's, with at most one free extent.
fn string_shape(slot: &Slot, count: usize) -> Result<Vec<usize>, String> {
    let Some(expected) = &slot.shape else { return Ok(vec![count]) };
    let known = expected.iter().flatten().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
    let free = expected.iter().filter(|d| d.is_none()).count();
    let rest = known.filter(|&k| k > 0).map(|k| (count / k, count % k));
    match (free, rest) {
        (0, Some((1, 0))) | (1, Some((_, 0))) => {
            let each = rest.map_or(1, |r| r.0);
            Ok(expected.iter().map(|d| d.map_or(each, |d| d as usize)).collect())
        }
        _ => Err(format!("{count} strings do not fill the model's shape")),
    }
}

fn element(dtype: DType, number: &Number, out: &mut Vec<u8>) -> Result<(), String> {
    let float = || {
        if number.decimals.unsigned_abs() > MAX_DECIMALS as u128 {
            return Err("its decimals are out of range".to_owned());
        }
        Ok(format!("{}e{}", number.value, -number.decimals))
    };
    macro_rules! parsed {
        ($t:ty) => {{
            let x: $t = float()?.parse().map_err(|_| "it is no number".to_owned())?;
            if x.is_infinite() {
                return Err(format!("it is too large for {}", dtype.name()));
            }
            x
        }};
    }
    macro_rules! integer {
        ($t:ty) => {{
            let n = integer(number)?;
            let n = <$t>::try_from(n).map_err(|_| format!("{n} does not fit {}", dtype.name()))?;
            out.extend_from_slice(&n.to_le_bytes())
        }};
    }
    match dtype {
        DType::F32 => out.extend_from_slice(&parsed!(f32).to_le_bytes()),
        DType::F64 => out.extend_from_slice(&parsed!(f64).to_le_bytes()),
        DType::F16 => out.extend_from_slice(&f16::from_f64(parsed!(f64)).to_le_bytes()),
        DType::BF16 => out.extend_from_slice(&bf16::from_f64(parsed!(f64)).to_le_bytes()),
        DType::I8 => integer!(i8),
        DType::I16 => integer!(i16),
        DType::I32 => integer!(i32),
        DType::I64 => integer!(i64),
        DType::U8 => integer!(u8),
        DType::U16 => integer!(u16),
        DType::U32 => integer!(u32),
        DType::U64 => integer!(u64),
        DType::Bool => out.push(u8::from(integer(number)? != 0)),
        other => return Err(format!("inputs of type {} cannot be given by numbers", other.name())),
    }
    Ok(())
}

/// A whole number, exactly.
fn integer(number: &Number) -> Result<i128, String> {
    let whole = || {
        let power = 10i128.checked_pow(u32::try_from(number.decimals.unsigned_abs()).ok()?)?;
        if number.decimals <= 0 {
            number.value.checked_mul(power)
        } else {
            (number.value % power == 0).then(|| number.value / power)
        }
    };
    if number.value == 0 {
        return Ok(0);
    }
    whole().ok_or_else(|| format!("{}e{} is no whole number within range", number.value, -number.decimals))
}

/// The outputs as the SDK reads them.
pub(super) fn output(tensors: &[(String, Tensor)]) -> ModelOutput {
    let mut output = empty(false);
    for (name, tensor) in tensors {
        let name = name.clone();
        let shape: Option<Vec<u32>> = tensor.shape().iter().map(|&d| u32::try_from(d).ok()).collect();
        match (floats(tensor), tensor.data(), shape) {
            (_, Data::String(values), _) => {
                output.strings.push(StringTensor { name, values: values.to_vec() });
            }
            (Some(values), _, Some(shape)) => output.numbers.push(NumberTensor { name, values, shape }),
            _ => output.jsons.push(JsonScalar { name, value: json(tensor) }),
        }
    }
    output
}

pub(super) fn empty(is_simulation_result: bool) -> ModelOutput {
    ModelOutput { numbers: Vec::new(), strings: Vec::new(), jsons: Vec::new(), is_simulation_result }
}

/// The elements as numbers, if numbers can carry all of them.
fn floats(tensor: &Tensor) -> Option<Vec<Number>> {
    let number = |x: f32| {
        if !x.is_finite() || (x == 0.0 && x.is_sign_negative()) {
            return None;
        }
        // The shortest digits that no other float32 is nearer to.
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e')?;
        let point = digits.split_once('.').map_or(0, |(_, part)| part.len() as i128);
        let value: i128 = digits.replace('.', "").parse().ok()?;
        let exponent: i128 = exponent.parse().ok()?;
        Some(if value == 0 {
            Number { value, decimals: 0 }
        } else {
            Number { value, decimals: point - exponent }
        })
    };
    match tensor.data() {
        Data::F32(v) => v.iter().map(|&x| number(x)).collect(),
        Data::F16(v) => v.iter().map(|x| number(x.to_f32())).collect(),
        Data::BF16(v) => v.iter().map(|x| number(x.to_f32())).collect(),
        _ => None,
    }
}

/// A tensor as nested lists, with NaN and Infinity as Python's `json` reads them.
fn json(tensor: &Tensor) -> String {
    fn float(x: f64, shortest: String) -> String {
        if x.is_nan() {
            "NaN".into()
        } else if x.is_infinite() {
            if x > 0.0 { "Infinity".into() } else { "-Infinity".into() }
        } else {
            shortest
        }
    }
    let elements: Vec<String> = match tensor.data() {
        Data::F32(v) => v.iter().map(|&x| float(x.into(), format!("{x:?}"))).collect(),
        Data::F16(v) => v.iter().map(|x| float(x.to_f64(), format!("{:?}", x.to_f32()))).collect(),
        Data::BF16(v) => v.iter().map(|x| float(x.to_f64(), format!("{:?}", x.to_f32()))).collect(),
        Data::F64(v) => v.iter().map(|&x| float(x, format!("{x:?}"))).collect(),
        Data::I8(v) => v.iter().map(ToString::to_string).collect(),
        Data::I16(v) => v.iter().map(ToString::to_string).collect(),
        Data::I32(v) => v.iter().map(ToString::to_string).collect(),
        Data::I64(v) => v.iter().map(ToString::to_string).collect(),
        Data::U8(v) => v.iter().map(ToString::to_string).collect(),
        Data::U16(v) => v.iter().map(ToString::to_string).collect(),
        Data::U32(v) => v.iter().map(ToString::to_string).collect(),
        Data::U64(v) => v.iter().map(ToString::to_string).collect(),
        Data::Bool(v) => v.iter().map(ToString::to_string).collect(),
        // Small and complex types have no numbers in JSON: their canonical bytes in hexadecimal.
        _ => return format!("\"{}\"", alloy_primitives::hex::encode_prefixed(tensor.to_le_bytes())),
    };
    let mut text = String::new();
    nest(tensor.shape(), &elements, &mut text);
    text
}

fn nest(shape: &[usize], elements: &[String], out: &mut String) {
    let Some((&extent, rest)) = shape.split_first() else {
        let _ = out.write_str(elements.first().map_or("null", String::as_str)); // a String takes all
        return;
    };
    out.push('[');
    let each = rest.iter().product::<usize>();
    for i in 0..extent {
        if i > 0 {
            out.push(',');
        }
        nest(rest, &elements[i * each..(i + 1) * each], out);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_numerics::rng::Rng;

    fn slot(name: &str, dtype: DType, shape: &[Option<u64>]) -> Slot {
        Slot { name: name.into(), dtype: Some(dtype), shape: Some(shape.to_vec()) }
    }

    fn numbers(name: &str, values: &[(i128, i128)], shape: &[u32]) -> NumberTensor {
        let values = values.iter().map(|&(value, decimals)| Number { value, decimals }).collect();
        NumberTensor { name: name.into(), values, shape: shape.to_vec() }
    }

    #[test]
    fn inputs_become_tensors_of_the_models_types_and_order() {
        let slots = [
            slot("a", DType::F32, &[None, Some(2)]),
            slot("b", DType::I64, &[]),
            slot("s", DType::String, &[None]),
        ];
        let input = ModelInput {
            numbers: vec![
                numbers("b", &[(3, 0)], &[]),
                numbers("a", &[(1, 1), (-25, 1), (1, 45), (34028235, -31)], &[2, 2]),
            ],
            strings: vec![StringTensor { name: "s".into(), values: vec!["x".into(), "y".into()] }],
        };
        let set = tensors(&slots, &input).unwrap();
        assert_eq!(set[0].1.as_slice::<f32>().unwrap(), [0.1, -2.5, 1e-45, f32::MAX]);
        assert_eq!(set[1].1.as_slice::<i64>().unwrap(), [3]);
        assert_eq!(set[2].1.shape(), [2]);

        let bad: [(NumberTensor, &str); 7] = [
            (numbers("c", &[], &[0]), "no input 'c'; its inputs are 'a'"),
            (numbers("a", &[(1, 0)], &[1]), "shape [1]; the model takes [any, 2]"),
            (numbers("a", &[(1, 0)], &[1, 2]), "1 values do not fill the shape [1, 2]"),
            (numbers("a", &[(1, -39), (0, 0)], &[1, 2]), "value 0: it is too large for float32"),
            (numbers("a", &[(1, i128::MIN), (0, 0)], &[1, 2]), "decimals are out of range"),
            (numbers("b", &[(15, 1)], &[]), "15e-1 is no whole number"),
            (numbers("b", &[(1, -19)], &[]), "does not fit int64"),
        ];
        for (tensor, why) in bad {
            let mut all = vec![numbers("a", &[], &[0, 2]), numbers("b", &[(0, 0)], &[])];
            all.retain(|t| t.name != tensor.name);
            all.push(tensor);
            let input = ModelInput { numbers: all, strings: input.strings.clone() };
            let error = tensors(&slots, &input).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let missing = ModelInput { numbers: Vec::new(), strings: Vec::new() };
        assert_eq!(tensors(&slots, &missing).unwrap_err(), "input 'a' is missing");
    }

    /// Every finite float goes out and comes back as it was, by way of decimals.
    #[test]
    fn floats_round_trip() {
        let mut rng = Rng::new(1, 0);
        let mut floats: Vec<f32> =
            (0..50_000).map(|_| f32::from_bits(rng.next_u32())).filter(|x| x.is_finite()).collect();
        floats.extend([0.0, 1.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, f32::from_bits(1)]);
        floats.retain(|x| x.to_bits() != 0x8000_0000);
        let n = floats.len();
        let tensor = Tensor::new(&[n], floats).unwrap();
        let out = output(&[("y".into(), tensor.clone())]);
        let back = ModelInput { numbers: out.numbers, strings: Vec::new() };
        let back = tensors(&[slot("y", DType::F32, &[None])], &back).unwrap();
        assert_eq!(back[0].1.to_le_bytes(), tensor.to_le_bytes());
    }

    #[test]
    fn what_numbers_cannot_carry_is_json() {
        let float = Tensor::new(&[2, 2], vec![f32::NAN, f32::NEG_INFINITY, -0.0, 1.5]).unwrap();
        let ints = Tensor::new(&[1, 2], vec![i64::MIN, 3]).unwrap();
        let bools = Tensor::new(&[], vec![true]).unwrap();
        let none = Tensor::new(&[2, 0], Vec::<f64>::new()).unwrap();
        let text = Tensor::new(&[1], vec!["é".to_owned()]).unwrap();
        let named = |t: &Tensor| ("x".to_owned(), t.clone());
        let out = output(&[named(&float), named(&ints), named(&bools), named(&none), named(&text)]);
        let jsons: Vec<&str> = out.jsons.iter().map(|j| j.value.as_str()).collect();
        assert_eq!(jsons, ["[[NaN,-Infinity],[-0.0,1.5]]", "[[-9223372036854775808,3]]", "true", "[[],[]]"]);
        assert_eq!(out.strings[0].values, ["é"]);
        assert!(out.numbers.is_empty() && !out.is_simulation_result);
    }
}
