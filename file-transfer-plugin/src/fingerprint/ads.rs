//! The rule for the negotiator.

use super::CRIU_MOVES_BETWEEN_KERNELS;
use crate::attributes as name;

/// The clause for a job's Requirements: any slot with CRIU for the first start, later only those that admit the image.
///
/// Says what [`Fingerprint::admits`](super::Fingerprint::admits) says. Every attribute is first asked for its type, because
/// `stringListSubsetMatch(undefined, "a")` and `undefined =?= undefined` are true: what a slot does not tell is no match, and
/// an image that is only half described matches nowhere.
pub fn requirements() -> String {
    let job_strings = [
        name::JOB_CPU_FEATURES,
        name::JOB_CPU_VENDOR,
        name::JOB_VERSION,
        name::JOB_ABILITIES,
    ];
    let job_numbers = [name::JOB_XCR0, name::JOB_XSAVE_SIZE, name::JOB_KERNEL];
    let slot_strings = [
        name::CPU_FEATURES,
        name::CPU_VENDOR,
        name::VERSION,
        name::ABILITIES,
    ];
    let slot_numbers = [name::XCR0, name::XSAVE_SIZE, name::KERNEL];

    let all = |function: &str, scope: &str, names: &[&str]| {
        names
            .iter()
            .map(|name| format!("{function}({scope}.{name})"))
            .collect::<Vec<_>>()
            .join(" && ")
    };
    let first = all(
        "isUndefined",
        "MY",
        &[job_strings.as_slice(), job_numbers.as_slice()].concat(),
    );
    let known = [
        all("isString", "MY", &job_strings),
        all("isInteger", "MY", &job_numbers),
        all("isString", "TARGET", &slot_strings),
        all("isInteger", "TARGET", &slot_numbers),
    ]
    .join(" && ");
    let admitted = [
        format!(
            "stringListSubsetMatch(MY.{}, TARGET.{})",
            name::JOB_CPU_FEATURES,
            name::CPU_FEATURES
        ),
        format!(
            "(MY.{0} & TARGET.{1}) =?= MY.{0}",
            name::JOB_XCR0,
            name::XCR0
        ),
        format!("TARGET.{} >= MY.{}", name::XSAVE_SIZE, name::JOB_XSAVE_SIZE),
        // `==` would not tell GenuineIntel from genuineintel; nor would it matter, but `admits` does.
        format!(
            "(!stringListMember(\"xsave\", MY.{}) || TARGET.{} =?= MY.{})",
            name::JOB_CPU_FEATURES,
            name::CPU_VENDOR,
            name::JOB_CPU_VENDOR
        ),
        format!(
            "versionGE(TARGET.{}, MY.{})",
            name::VERSION,
            name::JOB_VERSION
        ),
        format!(
            "(TARGET.{} =?= MY.{} || versionGE(TARGET.{}, \"{CRIU_MOVES_BETWEEN_KERNELS}\"))",
            name::KERNEL,
            name::JOB_KERNEL,
            name::VERSION
        ),
        format!(
            "stringListSubsetMatch(MY.{}, TARGET.{})",
            name::JOB_ABILITIES,
            name::ABILITIES
        ),
    ]
    .join(" && ");
    format!(
        "(TARGET.{} =?= true && (({first}) || ({known} && {admitted})))",
        name::HAS_CRIU
    )
}
