//! Any bytes, in every syntax: parsed or refused, printed, parsed again, evaluated. Run it for a minute with
//! `cargo +nightly fuzz run text -- -max_total_time=60` in this directory's parent.
#![no_main]

use classad::{ClassAd, Expr, Flat, Scope, matches};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(expr) = Expr::parse_bytes(bytes) {
        let printed = expr.to_string();
        // It need not parse again: names after a dot lose their quotes. The other target looks at what is well formed.
        let _ = Expr::parse(&printed);
        let ad = ClassAd::new();
        let _ = ad.evaluate_expr(&expr).to_string();
        if let Flat::Expr(left) = ad.flatten(&expr) {
            let _ = left.to_pretty();
        }
        let _ = ad.references(&expr);
        let _ = expr.to_json();
    }
    let _ = Expr::parse_old_bytes(bytes);
    let ads = [ClassAd::parse_bytes(bytes), ClassAd::parse_old_bytes(bytes)];
    for ad in ads.iter().flatten() {
        let _ = (ad.to_string(), ad.to_old_bytes(), ad.to_pretty());
        let json = ad.to_json();
        // Names that are not UTF-8 may become the same.
        if let (Ok(again), false) = (ClassAd::from_json(&json), json.contains('\u{FFFD}')) {
            assert_eq!(again.len(), ad.len());
        }
        for (name, _) in ad.iter() {
            let _ = Scope::new(ad).target(ad).evaluate(&name);
        }
        let _ = matches(ad, ad);
        let mut copy = ad.clone();
        copy.update(ad);
        assert!(copy == *ad);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = ClassAd::from_json(text);
    }
});
