//! What holds for every expression: it survives being printed and parsed, and being flattened or prepared changes nothing
//! that a match could see.

use classad::{ClassAd, Expr, Flat, Prepared, Scope, Value, is_match, matches};
use proptest::prelude::*;

/// Texts of expressions over a few attributes, typed enough that most of them mean something.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop_oneof![
            Just("true"),
            Just("false"),
            Just("undefined"),
            Just("error")
        ]
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|i| i.to_string()),
        (-1000i64..1000).prop_map(|i| i.to_string()),
        // Reals are printed with sixteen digits, which is enough for these.
        (-1_000_000i64..1_000_000).prop_map(|i| format!("{:?}", i as f64 / 64.0)),
        // No backslash: the old syntax has no way to write one before a quote.
        "[ -\\[\\]-~]{0,6}".prop_map(|s| format!("\"{}\"", s.replace('"', "\\\""))),
        prop_oneof![Just(""), Just("MY."), Just("TARGET.")]
            .prop_flat_map(|scope| "[abcxyz]".prop_map(move |name| format!("{scope}{name}"))),
        Just("'odd name'".to_owned()),
        Just(".a".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let op = prop_oneof![
            Just("+"), Just("-"), Just("*"), Just("/"), Just("%"), Just("&&"), Just("||"), Just("=="), Just("!="),
            Just("<"), Just("<="), Just(">"), Just(">="), Just("=?="), Just("=!="), Just("&"), Just("|"), Just("^"),
            Just("<<"), Just(">>"), Just(">>>"), Just("?:"),
        ];
        prop_oneof![
            4 => (inner.clone(), op, inner.clone()).prop_map(|(l, op, r)| format!("({l}) {op} ({r})")),
            1 => (prop_oneof![Just("!"), Just("-"), Just("+"), Just("~")], inner.clone())
                .prop_map(|(op, e)| format!("{op}({e})")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a}) ? ({b}) : ({c})")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("ifThenElse({a}, {b}, {c})")),
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("{{ {} }}", items.join(", "))),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[ p = {a}; q = {b}; r = p ]")),
            1 => (prop_oneof![Just("isUndefined"), Just("string"), Just("size"), Just("int"), Just("nosuch")], inner.clone())
                .prop_map(|(name, e)| format!("{name}({e})")),
            1 => (inner.clone(), inner).prop_map(|(a, b)| format!("member({a}, {{ {b} }})")),
        ]
    })
}

fn ad() -> impl Strategy<Value = String> {
    prop::collection::btree_map("[abcxyz]", expression(), 0..5).prop_map(|attributes| {
        let all: Vec<String> = attributes
            .into_iter()
            .map(|(name, expr)| format!("{name} = {expr}"))
            .collect();
        format!("[ {} ]", all.join("; "))
    })
}

/// Equality that takes a NaN for itself.
fn same(a: &Value, b: &Value) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn what_is_printed_parses_to_the_same_expression(text in expression()) {
        let expr = Expr::parse(&text).expect("valid");
        prop_assert_eq!(&Expr::parse(&expr.to_string()).expect("printed"), &expr);
        prop_assert_eq!(&Expr::parse(&expr.to_pretty()).expect("printed"), &expr);
        prop_assert_eq!(&Expr::from_json(&expr.to_json()).expect("printed"), &expr);
    }

    #[test]
    fn an_ad_survives_all_its_syntaxes(text in ad()) {
        let ad = ClassAd::parse(&text).expect("valid");
        prop_assert_eq!(&ClassAd::parse(&ad.to_string()).expect("printed"), &ad);
        prop_assert_eq!(&ClassAd::from_json(&ad.to_json()).expect("printed"), &ad);
        // The old syntax prints sixteen digits, so what it prints is a fixed point rather than the same ad.
        let old = ClassAd::parse_old(&ad.to_old()).expect("printed");
        prop_assert_eq!(old.to_old(), ad.to_old());
    }

    #[test]
    fn a_copy_is_the_same_and_evaluates_alike(text in ad(), expr in expression()) {
        let ad = ClassAd::parse(&text).expect("valid");
        let mut copy = ClassAd::new();
        copy.update(&ad);
        copy.insert("added", Expr::parse(&expr).expect("valid"));
        prop_assert!(copy.get("ADDED").is_some_and(|added| added.to_expr() == Expr::parse(&expr).expect("valid")));
        prop_assert!(copy.remove("Added"));
        prop_assert_eq!(&copy, &ad);
        let expr = Expr::parse(&expr).expect("valid");
        prop_assert!(same(&copy.evaluate_expr(&expr), &ad.evaluate_expr(&expr)));
    }

    #[test]
    fn a_flattened_value_is_what_evaluation_gives(text in ad(), expr in expression()) {
        let ad = ClassAd::parse(&text).expect("valid");
        let expr = Expr::parse(&expr).expect("valid");
        // Only constants are compared: of `x && false` the library forgets that `x` may be an error.
        let constant = ad.references(&expr).external.is_some_and(|names| names.is_empty());
        if let (Flat::Value(flat), true) = (ad.flatten(&expr), constant) {
            let value = ad.evaluate_expr(&expr);
            prop_assert!(same(&flat, &value) || flat.is_error() || value.is_error(), "{:?} {:?}", flat, value);
        }
    }

    #[test]
    fn preparing_changes_no_match(left in ad(), right in ad(), l in expression(), r in expression()) {
        let mut left = ClassAd::parse(&left).expect("valid");
        let mut right = ClassAd::parse(&right).expect("valid");
        left.insert_parsed("Requirements", &l).expect("valid");
        right.insert_parsed("Requirements", &r).expect("valid");
        let (a, b) = (Prepared::new(&left), Prepared::new(&right));
        prop_assert_eq!(a.is_match(&b), is_match(&left, &right));
        prop_assert_eq!(matches(&left, &right).symmetric, is_match(&left, &right));
        for (prepared, my, target) in [(&a, &left, &right), (&b, &right, &left)] {
            if let Some(expr) = prepared.requirements() {
                let scope = Scope::new(my).target(target);
                prop_assert!(
                    same(&scope.evaluate_expr(expr), &scope.evaluate("Requirements")),
                    "{} became {}", my, expr
                );
            }
        }
    }

    #[test]
    fn no_text_is_a_panic(text in "[ -~\\n]{0,60}") {
        let _ = ClassAd::parse(&text);
        let _ = ClassAd::parse_old(&text);
        let _ = ClassAd::from_json(&text);
        if let Ok(expr) = Expr::parse(&text) {
            // As the library, this prints the name in `a.'odd name'` without its quotes.
            if !text.contains('\'') {
                prop_assert_eq!(&Expr::parse(&expr.to_string()).expect("printed"), &expr);
            }
            let _ = ClassAd::new().evaluate_expr(&expr);
        }
    }
}
