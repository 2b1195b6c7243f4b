//! Which slot admits which image, against what happened on other CPUs.

use tests::cpus::matrix::{Matrix, Outcome};
use tests::cpus::measure;
use tests::cpus::programs;
use tests::require;
use tests::scratch::Scratch;

fn committed() -> Matrix {
    Matrix::load(&Matrix::committed()).expect("the committed matrix can be read")
}

#[test]
fn the_rule_says_what_happened_on_every_pair_of_cpus() {
    let matrix = committed();
    let names: Vec<&str> = matrix.cpus.iter().map(|cpu| cpu.name.as_str()).collect();
    assert_eq!(names, measure::ALL.map(|model| model.name));
    assert_eq!(matrix.thaws.len(), names.len() * names.len());
    let found = matrix.contradictions();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_image_of_the_matrix_was_tried_everywhere() {
    let matrix = committed();
    for thaw in &matrix.thaws {
        let from = matrix.cpus.iter().find(|cpu| cpu.name == thaw.from);
        let frozen = from.unwrap().programs.iter();
        let frozen = frozen.filter(|(_, outcome)| **outcome == Outcome::Frozen);
        let frozen: Vec<_> = frozen.map(|(program, _)| program).collect();
        let tried: Vec<_> = thaw.outcomes.keys().collect();
        assert_eq!(frozen, tried, "{} to {}", thaw.from, thaw.to);
    }
}

#[test]
fn what_a_cpu_showed_was_used_there() {
    // They need a transaction or tiles in use, which no image can hold or CRIU cannot keep; avx10 is a name for others.
    const NEVER_USED: [&str; 4] = ["amx_bf16", "amx_int8", "avx10", "tsxldtrk"];
    require!(compilers);
    let dir = Scratch::new("witnesses").unwrap();
    programs::build(dir.path()).unwrap();
    let witnessed = programs::witnessed(dir.path()).unwrap();
    for cpu in committed().cpus {
        for feature in cpu.fingerprint.cpu_features {
            let known = witnessed.contains(&feature) || NEVER_USED.contains(&&*feature);
            assert!(known, "{}: {feature}", cpu.name);
        }
    }
}
