use std::fs;

use super::*;

/// A folder for the data and one for the results, and what the job printed.
struct Run {
    folder: tempfile::TempDir,
    tally: Result<Tally, JobError>,
    stdout: String,
    stderr: String,
}

/// The classes' scores are all low but that of one.
fn scores(label: &str) -> Vec<f32> {
    assert!(!magika::TYPES.is_empty(), "run `cargo xtask setup`");
    magika::TYPES.iter().map(|class| if class.label == label { 0.75 } else { 0.0 }).collect()
}

/// Run on these files. The model says `python`, and fails for files that begin with `!`.
fn run(files: &[(&str, &[u8])], out: bool) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let (data, results) = (folder.path().join("data"), folder.path().join("out"));
    fs::create_dir(&data).unwrap();
    for (name, bytes) in files {
        fs::write(data.join(name), bytes).unwrap();
    }
    if out {
        fs::create_dir(&results).unwrap();
    }
    let ask = |values: &[i32]| match u8::try_from(values[0]) {
        Ok(b'!') => Err("the model is tired".to_owned()),
        _ => Ok(scores("python")),
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let tally = Job { data: &data, out: &results }.run(ask, &mut stdout, &mut stderr);
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    Run { folder, tally, stdout, stderr }
}

#[test]
fn each_file_has_a_line_and_an_error_stops_none() {
    let files: &[(&str, &[u8])] =
        &[("a.py", b"import this, please"), ("b", b"! not this one"), ("c", b"")];
    let run = run(files, true);
    let expected = "\
        {\"file\":\"a.py\",\"label\":\"python\",\"score\":0.75}\n\
        {\"file\":\"b\",\"error\":\"the model is tired\"}\n\
        {\"file\":\"c\",\"label\":\"empty\",\"score\":1.0}\n";
    assert_eq!(run.stdout, expected);
    assert_eq!(run.tally.unwrap(), Tally { files: 3, errors: 1 });
    let out = run.folder.path().join("out");
    assert_eq!(fs::read_to_string(out.join("results.jsonl")).unwrap(), expected);
    assert_eq!(fs::read_dir(out).unwrap().count(), 1, "the unfinished file is left");
    assert!(run.stderr.starts_with("done: 3 files, 1 of them with errors"), "{}", run.stderr);
}

#[test]
fn without_a_folder_for_results_there_is_standard_output() {
    let run = run(&[("a", b"short")], false);
    assert_eq!(run.stdout, "{\"file\":\"a\",\"label\":\"txt\",\"score\":1.0}\n");
    assert!(!run.folder.path().join("out").exists());
}

#[test]
fn no_files_are_no_error() {
    let run = run(&[], true);
    assert_eq!((run.tally.unwrap(), run.stdout.as_str()), (Tally::default(), ""));
    assert!(run.stderr.starts_with("no files below "), "{}", run.stderr);
    let results = run.folder.path().join("out/results.jsonl");
    assert_eq!(fs::read_to_string(results).unwrap(), "", "an older job's results are replaced");
}

#[test]
fn of_a_long_file_both_ends_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long");
    let bytes: Vec<u8> = [[1; 9000], [2; 9000]].concat();
    fs::write(&path, bytes).unwrap();
    let Ends::Ask(features) = ends(&path).unwrap() else { panic!("it is long enough") };
    assert_eq!(features.values(), [[1; 1024], [2; 1024]].concat());
}

#[test]
fn a_file_that_is_too_large_or_gone_is_an_error_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    assert!(matches!(ends(&path), Err(FileError::Read(_))));
    // Sparse: it has a size and no blocks.
    File::create(&path).unwrap().set_len(MAX_SIZE + 1).unwrap();
    let error = ends(&path).unwrap_err();
    assert_eq!(error.to_string(), "it has 68719476737 bytes, and 68719476736 is the limit");
}

#[test]
fn another_model_ends_the_job() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "long enough to ask").unwrap();
    let job = Job { data: folder.path(), out: Path::new("") };
    let ended = job.run(|_| Ok(vec![0.5]), io::sink(), io::sink());
    assert!(matches!(ended, Err(JobError::Model(Mismatch::Types { graph: 1, .. }))), "{ended:?}");
}
