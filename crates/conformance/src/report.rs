//! What a machine computes, and where that is not what the file says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use isobit_tensor::DType;

use crate::file::File;
use crate::line::{CASES, Hashes, QUICK, Runner, Setting, name};
use crate::models::{MODELS, model_root};
use crate::templates::{Template, alone, templates};

/// A line or model that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// Under which setting.
    pub setting: String,
    /// How it differs.
    pub how: &'static str,
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Report {
    /// Lines and models compared, once for each setting.
    pub compared: usize,
    /// Cases run.
    pub cases: u64,
    /// Every difference.
    pub differences: Vec<Difference>,
}

/// The hashes that this machine computes under `setting`, all cases or the first ones, operators spread over `workers`
/// threads. `progress` is told each operator's name and how many are done of how many.
pub fn compute(
    setting: Setting,
    quick: bool,
    workers: usize,
    progress: &(dyn Fn(&str, usize, usize) + Sync),
) -> File {
    let mut file = compute_lines(&|_| true, setting, quick, workers, progress);
    for model in &MODELS {
        progress(model.0, file.lines.len(), file.lines.len());
        if let Ok(root) = model_root(model, setting) {
            file.models.insert(model.0.to_owned(), root);
        }
    }
    file
}

/// As [`compute`], the lines of some operators only.
pub fn compute_lines(
    is_wanted: &dyn Fn(&str) -> bool,
    setting: Setting,
    quick: bool,
    workers: usize,
    progress: &(dyn Fn(&str, usize, usize) + Sync),
) -> File {
    let templates = templates();
    let list: Vec<(&String, &Vec<Template>)> = templates.iter().filter(|t| is_wanted(t.0)).collect();
    let next = AtomicUsize::new(0);
    let file = Mutex::new(File::default());
    let work = || {
        while let Some((op, templates)) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
            let lines = lines(op, templates, setting, if quick { QUICK } else { CASES });
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.lines.extend(lines);
            progress(op, next.load(Ordering::Relaxed).min(list.len()), list.len());
        }
    };
    if workers > 1 {
        std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    } else {
        work();
    }
    file.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lines(op: &str, templates: &[Template], setting: Setting, cases: u64) -> Vec<(String, Hashes)> {
    let runner = Runner::new(templates, setting);
    let types: Vec<Option<DType>> = match templates.iter().any(|t| t.dtype().is_some()) {
        true => DType::ALL.iter().map(|&t| Some(t)).collect(),
        false => vec![None],
    };
    let line = |t| {
        let some = alone(op);
        let separate = || (!some.is_empty()).then(|| runner.line(templates, op, t, some, cases)).flatten();
        Some((name(op, t), runner.line(templates, op, t, &[], cases).or_else(separate)?))
    };
    types.into_iter().filter_map(line).collect()
}

/// Compares what a machine computed with what it should.
pub fn compare(expected: &File, own: &File, setting: Setting, report: &mut Report) {
    let setting = setting.to_string();
    let mut differ = |name: &str, how| {
        report.differences.push(Difference { name: name.to_owned(), setting: setting.clone(), how });
    };
    for (name, hashes) in &own.lines {
        report.compared += 1;
        report.cases += if hashes.all.is_some() { CASES } else { QUICK };
        match expected.lines.get(name) {
            None => differ(name, "is not in the file"),
            Some(e) if e.quick != hashes.quick => differ(name, "differs in its first cases"),
            Some(e) if hashes.all.is_some() && (e.all, e.ok) != (hashes.all, hashes.ok) => {
                differ(name, "differs")
            }
            Some(_) => {}
        }
    }
    for (name, root) in &own.models {
        report.compared += 1;
        if expected.models.get(name) != Some(root) {
            differ(name, "has other outputs");
        }
    }
    for name in expected.lines.keys().filter(|n| !own.lines.contains_key(*n)) {
        differ(name, "is in the file but was not computed");
    }
    for name in expected.models.keys().filter(|n| !own.models.contains_key(*n)) {
        differ(name, "is in the file but did not run");
    }
}
