//! `conformance.toml` on this machine: the first cases of every line, and the models, under each kernel set and with three threads. All
//! cases: `isobit conformance`.

use isobit_conformance::{FILE, File, Report, Setting, compare, compute};

#[test]
fn every_line_is_as_the_file_says() {
    let expected = File::parse(FILE).unwrap();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut report = Report::default();
    for setting in Setting::all() {
        compare(&expected, &compute(setting, true, workers, &|_, _, _| {}), setting, &mut report);
    }
    println!("{} lines and models, {} cases", report.compared, report.cases);
    assert!(report.differences.is_empty(), "{:#?}", report.differences);
}

#[test]
fn the_file_is_read_as_it_is_written() {
    let file = File::parse(FILE).unwrap();
    assert!(file.lines.len() > 1000 && file.models.len() == 3);
    assert_eq!(file.to_string(), FILE);
    for broken in
        ["", "profile = \"isobit-0\"", &FILE.replace("isobit-1", "isobit-0"), &FILE[..FILE.len() - 3]]
    {
        assert!(File::parse(broken).is_err());
    }
}
