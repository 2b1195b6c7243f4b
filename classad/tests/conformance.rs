//! Every committed case, answered as libclassad 25.14.1 answered it.
//!
//! Tier 1 is the language proper, tier 2 times, argument lists, flattening and the like, tier 3 the library's oddities.

#[path = "../examples/conformance/protocol.rs"]
mod protocol;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use flate2::bufread::GzDecoder;
use serde_json::Value as Json;

#[test]
fn all_cases_are_answered_as_the_library_answers_them() {
    let file: &[u8] = include_bytes!("fixtures/cases.jsonl.gz");
    let mut failures = Vec::new();
    let mut count = BTreeMap::new();
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let line = line.expect("the fixture is text");
        let case: Json = serde_json::from_str(&line).expect("a case is JSON");
        let reply = protocol::reply(&line);
        *count.entry(case["tier"].as_u64()).or_insert(0) += 1;
        if !same(&case["expect"], &reply, case["tol"].as_f64()) {
            failures.push(format!(
                "{}\n  want {}\n  got  {reply}",
                case["id"], case["expect"]
            ));
        }
    }
    assert_eq!(count.values().sum::<usize>(), 4924);
    assert!(
        failures.is_empty(),
        "{} of {count:?} cases fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Whether two replies say the same.
fn same(want: &Json, got: &Json, tolerance: Option<f64>) -> bool {
    if want["type"] != got["type"] {
        return false;
    }
    let (a, b) = (&want["value"], &got["value"]);
    let all = |a: &Json, b: &Json| match (a.as_array(), b.as_array()) {
        (Some(a), Some(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, tolerance))
        }
        _ => a == b,
    };
    match want["type"].as_str().unwrap_or_default() {
        "real" | "reltime" => {
            let number = |v: &Json| v.as_str().and_then(|text| text.parse::<f64>().ok());
            match (number(a), number(b)) {
                (Some(a), Some(b)) if a.is_nan() || b.is_nan() => a.is_nan() && b.is_nan(),
                (Some(a), Some(b)) if a == b => a.is_sign_negative() == b.is_sign_negative(),
                (Some(a), Some(b)) => {
                    tolerance.is_some_and(|tol| (a - b).abs() <= tol * a.abs().max(b.abs()))
                }
                _ => false,
            }
        }
        "list" => all(a, b),
        "classad" => {
            let attributes = |v: &Json| {
                let pairs = v.as_array().cloned().unwrap_or_default();
                pairs
                    .iter()
                    .map(|pair| {
                        (
                            pair[0].as_str().unwrap_or_default().to_lowercase(),
                            pair[1].clone(),
                        )
                    })
                    .collect::<BTreeMap<_, _>>()
            };
            attributes(a) == attributes(b)
        }
        "match" => {
            a["symmetric"] == b["symmetric"]
                && [
                    "left_requirements",
                    "right_requirements",
                    "left_rank",
                    "right_rank",
                ]
                .iter()
                .all(|part| same(&a[part], &b[part], tolerance))
        }
        "refs" => {
            let names = |v: &Json| {
                v.as_array().map(|names| {
                    let mut names: Vec<String> = names
                        .iter()
                        .map(|name| name.as_str().unwrap_or_default().to_lowercase())
                        .collect();
                    names.sort();
                    names.dedup();
                    names
                })
            };
            names(&a["external"]) == names(&b["external"])
                && names(&a["internal"]) == names(&b["internal"])
        }
        _ => a == b,
    }
}
