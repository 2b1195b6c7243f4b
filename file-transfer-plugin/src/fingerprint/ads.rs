//! Fingerprints in ads, and the rule for the negotiator.
//!
//! Ads have signed integers; XCR0's highest bit is reserved, and would survive the cast both ways.

use std::collections::BTreeSet;

use classad::ClassAd;

use super::{CRIU_MOVES_BETWEEN_KERNELS, Fingerprint, Kernel, SAME_EVERYWHERE};
use crate::attributes as name;

/// Why an ad holds no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdError {
    /// An attribute is not there, or of another type.
    #[error("the ad has no usable {0}")]
    Missing(&'static str),
    /// An attribute is there and makes no sense.
    #[error("the ad's {name} is {value:?}, which makes no sense")]
    Malformed {
        /// The attribute.
        name: &'static str,
        /// What it says.
        value: String,
    },
}

/// The names of a fingerprint's attributes on one side.
struct Names {
    features: &'static str,
    vendor: &'static str,
    xcr0: &'static str,
    xsave_size: &'static str,
    kernel: &'static str,
    version: &'static str,
    abilities: &'static str,
}

const SLOT: Names = Names {
    features: name::CPU_FEATURES,
    vendor: name::CPU_VENDOR,
    xcr0: name::XCR0,
    xsave_size: name::XSAVE_SIZE,
    kernel: name::KERNEL,
    version: name::VERSION,
    abilities: name::ABILITIES,
};

const JOB: Names = Names {
    features: name::JOB_CPU_FEATURES,
    vendor: name::JOB_CPU_VENDOR,
    xcr0: name::JOB_XCR0,
    xsave_size: name::JOB_XSAVE_SIZE,
    kernel: name::JOB_KERNEL,
    version: name::JOB_VERSION,
    abilities: name::JOB_ABILITIES,
};

impl Names {
    fn strings(&self) -> [&'static str; 4] {
        [self.features, self.vendor, self.version, self.abilities]
    }

    fn numbers(&self) -> [&'static str; 3] {
        [self.xcr0, self.xsave_size, self.kernel]
    }
}

impl Fingerprint {
    /// The attributes of a slot. `HasCRIU` is not among them: whether it works is for the probe to say.
    pub fn to_slot_ad(&self) -> ClassAd {
        self.to_ad(&SLOT)
    }

    /// The attributes of a job that has an image.
    pub fn to_job_ad(&self) -> ClassAd {
        self.to_ad(&JOB)
    }

    /// What a slot's ad says that it offers.
    pub fn from_slot_ad(ad: &ClassAd) -> Result<Self, AdError> {
        Self::from_ad(ad, &SLOT)
    }

    /// What a job's ad says that its image needs; none if it says nothing at all, because there is no image.
    pub fn from_job_ad(ad: &ClassAd) -> Result<Option<Self>, AdError> {
        if JOB
            .strings()
            .iter()
            .chain(&JOB.numbers())
            .all(|name| ad.evaluate(name).is_undefined())
        {
            return Ok(None);
        }
        Self::from_ad(ad, &JOB).map(Some)
    }

    fn to_ad(&self, names: &Names) -> ClassAd {
        let list = |words: &BTreeSet<String>| {
            words
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(",")
        };
        let mut ad = ClassAd::new();
        ad.insert(names.features, list(&self.cpu_features).as_str());
        ad.insert(names.vendor, self.cpu_vendor.as_str());
        ad.insert(names.xcr0, self.xcr0.cast_signed());
        ad.insert(names.xsave_size, i64::from(self.xsave_size));
        ad.insert(names.kernel, i64::from(self.kernel.0));
        ad.insert(names.version, self.criu.to_string().as_str());
        ad.insert(names.abilities, list(&self.abilities).as_str());
        ad
    }

    fn from_ad(ad: &ClassAd, names: &Names) -> Result<Self, AdError> {
        let text = |name| ad.eval_str(name).ok_or(AdError::Missing(name));
        let list = |name| {
            let text = text(name)?;
            Ok(text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect())
        };
        let number = |name| ad.evaluate(name).as_int().ok_or(AdError::Missing(name));
        let small = |name| {
            let number = number(name)?;
            u32::try_from(number).map_err(|_| AdError::Malformed {
                name,
                value: number.to_string(),
            })
        };
        let version = text(names.version)?;
        Ok(Self {
            cpu_vendor: text(names.vendor)?,
            cpu_features: list(names.features)?,
            xcr0: number(names.xcr0)?.cast_unsigned(),
            xsave_size: small(names.xsave_size)?,
            kernel: Kernel(small(names.kernel)?),
            criu: version.parse().map_err(|_| AdError::Malformed {
                name: names.version,
                value: version,
            })?,
            abilities: list(names.abilities)?,
        })
    }
}

/// The clause for a job's Requirements: any slot with CRIU for the first start, later only those that admit the image.
///
/// Says what [`Fingerprint::admits`](super::Fingerprint::admits) says. Every attribute is first asked for its type, because
/// `stringListSubsetMatch(undefined, "a")` and `undefined =?= undefined` are true: what a slot does not tell is no match, and
/// an image that is only half described matches nowhere.
pub fn requirements() -> String {
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
        &[JOB.strings().as_slice(), &JOB.numbers()].concat(),
    );
    let known = [
        all("isString", "MY", &JOB.strings()),
        all("isInteger", "MY", &JOB.numbers()),
        all("isString", "TARGET", &SLOT.strings()),
        all("isInteger", "TARGET", &SLOT.numbers()),
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
            "((MY.{} & ~{SAME_EVERYWHERE}) == 0 || TARGET.{} =?= MY.{})",
            name::JOB_XCR0,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::haswell;
    use super::super::{Fingerprint, Kernel, Version};
    use super::*;

    fn some_words(from: &'static str) -> impl Strategy<Value = BTreeSet<String>> {
        prop::sample::subsequence(
            from.split(',').collect::<Vec<_>>(),
            0..=from.split(',').count(),
        )
        .prop_map(|words| words.into_iter().map(str::to_owned).collect())
    }

    fn fingerprint() -> impl Strategy<Value = Fingerprint> {
        (
            prop::sample::select(vec!["GenuineIntel", "AuthenticAMD", "genuineintel", ""]),
            some_words("avx,avx2,avx512f,xsave"),
            prop_oneof![Just(0u64), Just(3), Just(7), Just(0xe7), any::<u64>()],
            prop::sample::select(vec![0u32, 832, 2688, 11008]),
            prop::sample::select(vec![Kernel(41800), Kernel(60118)]),
            (4..5u32, prop::sample::select(vec![1, 2, 10]), 0..2u32),
            some_words("timens,userns"),
        )
            .prop_map(
                |(
                    vendor,
                    cpu_features,
                    xcr0,
                    xsave_size,
                    kernel,
                    (major, minor, patch),
                    abilities,
                )| {
                    Fingerprint {
                        cpu_vendor: vendor.into(),
                        cpu_features,
                        xcr0,
                        xsave_size,
                        kernel,
                        criu: Version::new(major, minor, patch),
                        abilities,
                    }
                },
            )
    }

    fn job(image: Option<&Fingerprint>) -> ClassAd {
        let mut ad = image.map(Fingerprint::to_job_ad).unwrap_or_default();
        ad.insert_parsed("Requirements", &requirements()).unwrap();
        ad
    }

    fn slot(slot: &Fingerprint) -> ClassAd {
        let mut ad = slot.to_slot_ad();
        ad.insert(name::HAS_CRIU, true);
        ad.insert("Requirements", true);
        ad
    }

    fn matches(job: &ClassAd, slot: &ClassAd) -> bool {
        classad::matches(job, slot).symmetric
    }

    proptest! {
        #[test]
        fn ads_tell_all_of_a_fingerprint(print in fingerprint()) {
            prop_assert_eq!(Fingerprint::from_slot_ad(&print.to_slot_ad()), Ok(print.clone()));
            prop_assert_eq!(Fingerprint::from_job_ad(&print.to_job_ad()), Ok(Some(print)));
        }

        #[test]
        fn the_expression_says_what_the_function_says(
            host in fingerprint(),
            image in fingerprint(),
            // Two random ones rarely fit, so the image is often a slot's own, a little changed.
            near in any::<[bool; 7]>(),
        ) {
            let image = Fingerprint {
                cpu_vendor: if near[0] { host.cpu_vendor.clone() } else { image.cpu_vendor },
                cpu_features: if near[1] { host.cpu_features.clone() } else { image.cpu_features },
                xcr0: if near[2] { host.xcr0 } else { image.xcr0 },
                xsave_size: if near[3] { host.xsave_size } else { image.xsave_size },
                kernel: if near[4] { host.kernel } else { image.kernel },
                criu: if near[5] { host.criu } else { image.criu },
                abilities: if near[6] { host.abilities.clone() } else { image.abilities },
            };
            prop_assert_eq!(matches(&job(Some(&image)), &slot(&host)), host.admits(&image).is_ok());
        }

        #[test]
        fn admits_is_reflexive_and_transitive(a in fingerprint(), b in fingerprint(), c in fingerprint()) {
            prop_assert_eq!(a.admits(&a), Ok(()));
            prop_assert!(a.admits(&b).is_err() || b.admits(&c).is_err() || a.admits(&c).is_ok());
        }
    }

    #[test]
    fn a_first_start_needs_no_more_than_criu() {
        let mut host = ClassAd::new();
        host.insert("Requirements", true);
        assert!(!matches(&job(None), &host));
        host.insert(name::HAS_CRIU, false);
        assert!(!matches(&job(None), &host));
        host.insert(name::HAS_CRIU, true);
        assert!(matches(&job(None), &host));
        assert!(!matches(&job(Some(&haswell())), &host));
    }

    #[test]
    fn what_one_side_does_not_tell_is_no_match() {
        let (image, host) = (haswell(), haswell());
        assert!(matches(&job(Some(&image)), &slot(&host)));
        for name in JOB.strings().into_iter().chain(JOB.numbers()) {
            let mut ad = job(Some(&image));
            ad.remove(name);
            assert!(!matches(&ad, &slot(&host)), "without {name}");
            assert!(Fingerprint::from_job_ad(&ad).is_err());
        }
        for name in SLOT
            .strings()
            .into_iter()
            .chain(SLOT.numbers())
            .chain([name::HAS_CRIU])
        {
            let mut ad = slot(&host);
            ad.remove(name);
            assert!(!matches(&job(Some(&image)), &ad), "without {name}");
        }
    }

    #[test]
    fn an_ad_that_makes_no_sense_is_refused_by_name() {
        let mut ad = haswell().to_slot_ad();
        ad.insert(name::XSAVE_SIZE, -1);
        let error = Fingerprint::from_slot_ad(&ad).unwrap_err().to_string();
        assert_eq!(
            error,
            "the ad's CRIUXsaveSize is \"-1\", which makes no sense"
        );
        ad.insert(name::XSAVE_SIZE, "832");
        assert_eq!(
            Fingerprint::from_slot_ad(&ad),
            Err(AdError::Missing(name::XSAVE_SIZE))
        );
        assert_eq!(Fingerprint::from_job_ad(&ad), Ok(None));
    }
}
