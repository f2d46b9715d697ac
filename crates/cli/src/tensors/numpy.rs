use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use isobit_tensor::{Data, Element, Tensor, f16};
use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder};

use super::Named;

pub(super) fn read_npy(path: &Path) -> Result<Tensor> {
    tensor(NpyFile::new(BufReader::new(File::open(path)?))?)
}

pub(super) fn read_npz(path: &Path) -> Result<Named> {
    let mut archive = npyz::npz::NpzArchive::new(BufReader::new(File::open(path)?))?;
    let mut names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    names.sort(); // the archive lists them in no order
    let mut out = Named::new();
    for name in names {
        let file =
            archive.by_name(&name)?.ok_or_else(|| anyhow!("array '{name}' is listed but not there"))?;
        out.push((name.clone(), tensor(file).map_err(|e| anyhow!("array '{name}': {e}"))?));
    }
    Ok(out)
}

fn tensor<R: Read>(file: NpyFile<R>) -> Result<Tensor> {
    let DType::Plain(kind) = file.dtype() else { bail!("structured arrays are not tensors") };
    let shape = file.shape().iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>()?;
    let order = file.order();
    fn elements<T: npyz::Deserialize + Element, R: Read>(
        file: NpyFile<R>,
        shape: &[usize],
        order: Order,
    ) -> Result<Tensor> {
        let data = file.into_vec::<T>()?;
        let data = if order == Order::Fortran { to_row_major(&data, shape) } else { data };
        Ok(Tensor::new(shape, data)?)
    }
    match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => elements::<f32, R>(file, &shape, order),
        (TypeChar::Float, 8) => elements::<f64, R>(file, &shape, order),
        (TypeChar::Float, 2) => elements::<f16, R>(file, &shape, order),
        (TypeChar::Int, 1) => elements::<i8, R>(file, &shape, order),
        (TypeChar::Int, 2) => elements::<i16, R>(file, &shape, order),
        (TypeChar::Int, 4) => elements::<i32, R>(file, &shape, order),
        (TypeChar::Int, 8) => elements::<i64, R>(file, &shape, order),
        (TypeChar::Uint, 1) => elements::<u8, R>(file, &shape, order),
        (TypeChar::Uint, 2) => elements::<u16, R>(file, &shape, order),
        (TypeChar::Uint, 4) => elements::<u32, R>(file, &shape, order),
        (TypeChar::Uint, 8) => elements::<u64, R>(file, &shape, order),
        (TypeChar::Bool, _) => elements::<bool, R>(file, &shape, order),
        _ => bail!("NumPy type {} has no tensor form here; use bool, ints or floats", kind),
    }
}

fn to_row_major<T: Clone>(data: &[T], shape: &[usize]) -> Vec<T> {
    let mut out = Vec::with_capacity(data.len());
    for mut i in 0..data.len() {
        let mut index = vec![0; shape.len()];
        for (slot, &d) in index.iter_mut().zip(shape).rev() {
            *slot = i % d;
            i /= d;
        }
        let at = index.iter().zip(shape).rev().fold(0, |at, (&x, &d)| at * d + x);
        out.push(data[at].clone());
    }
    out
}

pub(super) fn write_npz(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut npz = npyz::npz::NpzWriter::new(BufWriter::new(File::create(path)?));
    for (name, t) in tensors {
        write_one(&mut npz, name, t)?;
    }
    Ok(())
}

fn write_one<W: Write + Seek>(npz: &mut npyz::npz::NpzWriter<W>, name: &str, t: &Tensor) -> Result<()> {
    let shape: Vec<u64> = t.shape().iter().map(|&d| d as u64).collect();
    macro_rules! array {
        ($b:expr) => {{
            let mut w = npz.array(name, Default::default())?.default_dtype().shape(&shape).begin_nd()?;
            w.extend($b.iter().cloned())?;
            w.finish()?;
        }};
    }
    match t.data() {
        Data::F32(b) => array!(b),
        Data::F64(b) => array!(b),
        Data::F16(b) => array!(b),
        Data::I8(b) => array!(b),
        Data::I16(b) => array!(b),
        Data::I32(b) => array!(b),
        Data::I64(b) => array!(b),
        Data::U8(b) => array!(b),
        Data::U16(b) => array!(b),
        Data::U32(b) => array!(b),
        Data::U64(b) => array!(b),
        Data::Bool(b) => array!(b),
        _ => {
            bail!("'{name}' is {}, which NumPy files cannot hold; write .safetensors", t.dtype())
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npz_round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.npz");
        let tensors = vec![
            ("a".to_owned(), Tensor::new(&[2, 2], vec![1f32, -0.0, 3.5, f32::INFINITY]).unwrap()),
            ("b".to_owned(), Tensor::scalar(7i64)),
            ("c".to_owned(), Tensor::vector(vec![true, false])),
            ("d".to_owned(), Tensor::new(&[0, 3], Vec::<u8>::new()).unwrap()),
        ];
        write_npz(&path, &tensors).unwrap();
        assert_eq!(read_npz(&path).unwrap(), tensors);
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        // A 2x3 array stored column by column.
        assert_eq!(to_row_major(&[1, 4, 2, 5, 3, 6], &[2, 3]), [1, 2, 3, 4, 5, 6]);
    }
}
