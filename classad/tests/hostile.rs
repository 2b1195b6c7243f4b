//! Inputs that are made to exhaust something: each is answered in a thread with the default stack, in bounded time.
//!
//! libclassad crashes or hangs on most of these.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use classad::{ClassAd, Expr, Flat, Scope, Value, matches};

/// Runs in a thread with 2 MiB of stack and fails if that takes too long.
fn bounded<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    let start = Instant::now();
    let thread = thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            let _ = send.send(run());
        })
        .expect("a thread can be started");
    let answer = receive.recv_timeout(Duration::from_secs(120));
    let Ok(answer) = answer else {
        let died = thread.is_finished();
        panic!(
            "{}: {}",
            &what[..what.len().min(100)],
            if died { "it panicked" } else { "it hangs" }
        );
    };
    println!(
        "{:>8.3} s  {}",
        start.elapsed().as_secs_f64(),
        &what[..what.len().min(70)]
    );
    answer
}

/// Everything that can be done with an expression in an ad.
fn try_all(ad: &str, expr: &str) {
    let (ad, expr) = (ad.to_owned(), expr.to_owned());
    let what = format!("{expr} in {ad}");
    bounded(&what.clone(), move || {
        let Ok(ad) = ClassAd::parse(&ad) else { return };
        let Ok(expr) = Expr::parse(&expr) else { return };
        let value = ad.evaluate_expr(&expr);
        let _ = value.clone() == value;
        let _ = Scope::new(&ad).target(&ad).evaluate_expr(&expr);
        if let Flat::Expr(left) = ad.flatten(&expr) {
            let _ = left.to_string();
        }
        ad.references(&expr);
        let text = expr.to_string();
        let _ = (expr.to_old(), expr.to_pretty(), expr.to_json());
        if let Ok(again) = Expr::parse(&text) {
            assert!(again == expr || text.contains("NaN"));
        }
        let _ = matches(&ad, &ad);
        let mut copy = ad.clone();
        copy.insert("copied", expr);
        assert!(copy == copy.clone());
    });
}

#[test]
fn texts_that_nest_are_refused_or_answered() {
    for (open, middle, close) in [
        ("(", "1", ")"),
        ("{", "1", "}"),
        ("[a=", "1", "]"),
        ("!", "true", ""),
        ("-", "x", ""),
        ("f(", "1", ")"),
        ("isUndefined(", "x", ")"),
        ("strcat(", "x", ")"),
        ("a?", "b", ":c"),
        ("a?:", "b", ""),
        ("x[", "0", "]"),
    ] {
        for depth in [100, 160, 495, 100_000] {
            try_all(
                "[x = 1; a = true]",
                &format!("{}{middle}{}", open.repeat(depth), close.repeat(depth)),
            );
        }
    }
    for deep in [
        "(1 || (2 && (3 | (4 ^ (5 & (6 == (7 < (8 << (9 + (10 * ",
        "a || b && c | d ^ e & f == g < h << i + j * (",
    ] {
        try_all("[]", &deep.repeat(100));
        try_all(
            "[]",
            &format!(
                "{}1{}",
                deep.repeat(16),
                ")".repeat(16 * deep.matches('(').count())
            ),
        );
    }
}

#[test]
fn long_chains_are_answered() {
    for link in [
        " + 1", " && true", " || x", " . b", "[0]", " == 1", " ?: 2", " - -1",
    ] {
        for length in [390, 5_000, 60_000] {
            try_all("[x = false; b = 1]", &format!("x{}", link.repeat(length)));
        }
    }
    try_all("[]", &format!("{{{}1}}", "1,".repeat(60_000)));
    try_all("[]", &format!("strcat({}1)", "\"a\",".repeat(60_000)));
    let wide: String = (0..50_000)
        .map(|i| format!("attribute{i} = {i};"))
        .collect();
    try_all(&format!("[{wide}]"), "attribute49999");
}

#[test]
fn ads_that_refer_to_themselves_are_answered() {
    for (ad, expr) in [
        ("[a = self[\"a\"]]", "a"),
        ("[a = MY[\"a\"]]", "a"),
        ("[a = {sum(a)}]", "sum(a)"),
        ("[a = evalInEachContext(a, {[b = 1]})]", "a"),
        ("[a = countMatches(a, {[b = 1], [c = a]})]", "a"),
        (
            "[a = evalInEachContext(b, {[x = 1]}); b = evalInEachContext(a, {[y = 1]})]",
            "a",
        ),
        ("[l = {l, l}]", "l"),
        ("[l = {l, l, l, l}]", "l"),
        ("[n = [n = n]]", "n.n.n.n"),
        ("[a = eval(\"a\")]", "a"),
        ("[a = eval(\"eval(\\\"a\\\")\")]", "a"),
        ("[a = b; b = c; c = a]", "a"),
        ("[a = {a}.a]", "a"),
        ("[a = unresolved(a)]", "a"),
    ] {
        try_all(ad, expr);
    }
}

#[test]
fn exponential_work_is_cut_off() {
    let doubling: String = (0..64)
        .map(|i| format!("a{i} = a{} + a{}; ", i + 1, i + 1))
        .collect();
    try_all(&format!("[{doubling}]"), "a0");
    let strings: String = (0..64)
        .map(|i| format!("s{i} = strcat(s{}, s{}); ", i + 1, i + 1))
        .collect();
    try_all(&format!("[{strings} s64 = \"x\"]"), "s0");
    try_all(&format!("[{strings} s64 = \"x\"]"), "s30");
    let wide = (0..4)
        .map(|i| {
            format!(
                "s{i} = strcat({}); ",
                vec![format!("s{}", i + 1); 30].join(",")
            )
        })
        .collect::<String>();
    try_all(&format!("[{wide} s4 = \"{}\"]", "x".repeat(1000)), "s0");
    let evals: String = (0..64)
        .map(|i| format!("e{i} = eval(\"e{}+e{}\"); ", i + 1, i + 1))
        .collect();
    try_all(&format!("[{evals} e64 = 1]"), "e0");
    let replaced: String = (0..40)
        .map(|i| format!("r{i} = replaceAll(\"x\", r{}, \"xx\"); ", i + 1))
        .collect();
    try_all(&format!("[{replaced} r40 = \"x\"]"), "r0");
    let lists: String = (0..40)
        .map(|i| format!("l{i} = {{l{}, l{}}}; ", i + 1, i + 1))
        .collect();
    try_all(&format!("[{lists} l40 = 1]"), "l0");
    try_all(&format!("[{lists} l40 = 1]"), "string(l0)");
    let projected: String = (0..40)
        .map(|i| format!("p{i} = {{[x = p{}], [x = p{}]}}.x; ", i + 1, i + 1))
        .collect();
    try_all(&format!("[{projected} p40 = 1]"), "p0");
    let joined: String = (0..40)
        .map(|i| format!("j{i} = join(\",\", {{j{}, j{}}}); ", i + 1, i + 1))
        .collect();
    try_all(&format!("[{joined} j40 = \"x\"]"), "j0");
    let split: String = (0..40)
        .map(|i| format!("t{i} = string(split(strcat(t{0}, \",\", t{0}))); ", i + 1))
        .collect();
    try_all(&format!("[{split} t40 = \"x\"]"), "t0");
    let members: String = (0..40)
        .map(|i| format!("m{i} = member(m{0}, {{m{0}, 2}}); ", i + 1))
        .collect();
    try_all(&format!("[{members} m40 = 1]"), "m0");
}

#[test]
fn deep_evaluation_of_all_kinds_stays_in_its_stack() {
    for step in [
        "x{n} + 1",
        "(x{n})",
        "strcat(x{n})",
        "ifThenElse(x{n}, 1, 2)",
        "ifThenElse(isUndefined(isUndefined(isUndefined(x{n}))), 1, x{n})",
        "sum({x{n}})",
        "member(x{n}, {1})",
        "{x{n}}[0]",
        "[y = x{n}].y",
        "[y = x{n}][\"y\"]",
        "eval(\"x{n}\")",
        "evalInEachContext(x{n}, {[a = 1]})[0]",
        "countMatches(x{n}, {[a = 1]})",
        "{[q = x{n}]}.q",
        "x{n} ? x{n} : 1",
        "x{n} ?: x{n}",
        "x{n} && true",
        "join(\",\", {x{n}})",
        "anyCompare(\"<\", {x{n}}, 1)",
        "stringListSize(strcat(x{n}))",
        "regexpMember(\"a\", {x{n}})",
        "quantize(x{n}, {x{n}})",
        "isString(isString(isString(isString(isString(isString(isString(isString(x{n}))))))))",
    ] {
        let chain: String = (0..420)
            .map(|i| format!("x{i} = {}; ", step.replace("{n}", &(i + 1).to_string())))
            .collect();
        try_all(&format!("[{chain} x420 = 1]"), "x0");
        try_all(&format!("[{chain} x420 = 1]"), "string(x0)");
    }
}

#[test]
fn patterns_cannot_hang() {
    let text = "a".repeat(100_000);
    for pattern in [
        "(a+)+$b",
        "(a*)*b",
        "(a|a)*b",
        "(.*)*x",
        "(a?){30000}b",
        "((((a*)*)*)*)*b",
        "(?=(a+))*b",
        "\\\\1(a)",
        "((a{1,100}){1,100}){1,100}",
    ] {
        try_all(
            &format!("[t = \"{text}\"]"),
            &format!("regexp(\"{pattern}\", t)"),
        );
        try_all(
            &format!("[t = \"{text}\"]"),
            &format!("replaceAll(\"{pattern}\", t, \"<\\\\0>\")"),
        );
    }
    for pattern in [
        "(".repeat(100_000),
        "(?:".repeat(99) + &")".repeat(99),
        "[".repeat(10_000),
        "a{65535}{2}".into(),
        "(a{65535})".into(),
    ] {
        try_all("[]", &format!("regexp(\"{pattern}\", \"aaa\")"));
    }
}

#[test]
fn all_bytes_are_answered() {
    bounded("all bytes", || {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                for text in [
                    &[a, b][..],
                    &[b'x', a, b],
                    &[b'"', a, b, b'"'],
                    &[a, b'1', b],
                    &[b'[', a, b'=', b, b']'],
                ] {
                    let _ = ClassAd::parse_bytes(text);
                    let _ = ClassAd::parse_old_bytes(text);
                    let _ = Expr::parse_old_bytes(text);
                    if let Ok(expr) = Expr::parse_bytes(text) {
                        assert!(
                            Expr::parse_bytes(expr.to_string().as_bytes()).is_ok()
                                || !expr.to_string().is_ascii()
                        );
                        let _ = ClassAd::new().evaluate_expr(&expr);
                    }
                }
            }
        }
    });
}

#[test]
fn extreme_numbers_do_not_trap() {
    for expr in [
        "quantize(-9223372036854775806, -1)",
        "quantize(-9223372036854775808, -1)",
        "-9223372036854775808 / -1",
        "-9223372036854775808 % -1",
        "-(-9223372036854775808)",
        "1 << 9223372036854775807",
        "-1 >>> -9223372036854775808",
        "pow(2, 100000)",
        "int(1e308)",
        "round(-1e308)",
        "interval(-9223372036854775808)",
        "formatTime(9223372036854775807)",
        "formatTime(-9223372036854775808, \"%s %j %U %V %G\")",
        "splitTime(9223372036854775807)",
        "absTime(9223372036854775807) + relTime(1e300)",
        "string(relTime(1e300))",
        "string(absTime(-2147483648, -2147483648))",
        "getYear(absTime(relTime(1e18)))",
        "substr(\"abc\", -9223372036854775808, 9223372036854775807)",
        "{1}[4294967296]",
        "formatTime(0, \"%1000000000d\")",
    ] {
        try_all("[]", expr);
    }
    assert_eq!(
        ClassAd::new().evaluate_expr(&Expr::parse("{1}[4294967296]").expect("valid")),
        Value::Int(1)
    );
}
