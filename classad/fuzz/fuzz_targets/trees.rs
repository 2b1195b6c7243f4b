//! Well-formed expressions and ads: what is printed is the same expression again, and a prepared ad matches as the plain
//! one does. Run it for a minute with `cargo +nightly fuzz run trees -- -max_total_time=60` in this directory's parent.
#![no_main]

use arbitrary::Arbitrary;
use classad::{ClassAd, Expr, Prepared, explain, is_match, matches};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 8] = ["a", "b", "c", "Memory", "Requirements", "Rank", "LEFT", "parent"];
const SCOPES: [&str; 6] = ["", "MY.", "TARGET.", ".", "toplevel.", "parent."];
const UNARY: [&str; 4] = ["!", "-", "+", "~"];
const BINARY: [&str; 23] = [
    "+", "-", "*", "/", "%", "&&", "||", "==", "!=", "<", "<=", ">", ">=", "is", "isnt", "&", "|", "^", "<<", ">>",
    ">>>", "?:", ".a ==",
];
const CALLS: [&str; 34] = [
    "isUndefined", "isError", "size", "sum", "avg", "min", "max", "member", "identicalMember", "anyCompare", "strcat",
    "join", "substr", "split", "int", "real", "string", "bool", "ifThenElse", "eval", "evalInEachContext",
    "countMatches", "unparse", "unresolved", "regexp", "regexps", "replaceAll", "stringListMember", "stringListSum",
    "versioncmp", "quantize", "splitTime", "formatTime", "mergeEnvironment",
];

#[derive(Arbitrary, Debug)]
enum Tree {
    Int(i64),
    Bits(u16),
    Text(String),
    Word(u8),
    Name(u8, u8),
    Unary(u8, Box<Tree>),
    Binary(u8, Box<Tree>, Box<Tree>),
    Cond(Box<[Tree; 3]>),
    Call(u8, Vec<Tree>),
    List(Vec<Tree>),
    Ad(Vec<(u8, Tree)>),
    Item(Box<Tree>, Box<Tree>),
}

fn pick<'t>(list: &[&'t str], index: u8) -> &'t str {
    list[index as usize % list.len()]
}

impl Tree {
    fn print(&self, out: &mut String) {
        let list = |items: &[Tree], out: &mut String| {
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                item.print(out);
            }
        };
        match self {
            Tree::Int(i) => out.push_str(&i.to_string()),
            Tree::Bits(i) => out.push_str(&format!("{:?}", f64::from(*i) / 64.0)),
            Tree::Text(text) => {
                out.push('"');
                for byte in text.bytes().filter(|&b| b != 0) {
                    out.push_str(&format!("\\{byte:03o}"));
                }
                out.push('"');
            }
            Tree::Word(i) => out.push_str(pick(&["true", "false", "undefined", "error"], *i)),
            Tree::Name(scope, name) => {
                out.push_str(pick(&SCOPES, *scope));
                out.push_str(pick(&NAMES, *name));
            }
            Tree::Unary(op, tree) => {
                out.push_str(pick(&UNARY, *op));
                out.push('(');
                tree.print(out);
                out.push(')');
            }
            Tree::Binary(op, left, right) => {
                out.push('(');
                left.print(out);
                out.push_str(&format!(") {} (", pick(&BINARY, *op)));
                right.print(out);
                out.push(')');
            }
            Tree::Cond(parts) => {
                for (part, after) in parts.iter().zip([") ? (", ") : (", ")"]) {
                    out.push_str(if after == ") ? (" { "(" } else { "" });
                    part.print(out);
                    out.push_str(after);
                }
            }
            Tree::Call(name, args) => {
                out.push_str(pick(&CALLS, *name));
                out.push('(');
                list(args, out);
                out.push(')');
            }
            Tree::List(items) => {
                out.push('{');
                list(items, out);
                out.push('}');
            }
            Tree::Ad(attributes) => print_ad(attributes, out),
            Tree::Item(tree, index) => {
                out.push('(');
                tree.print(out);
                out.push_str(")[");
                index.print(out);
                out.push(']');
            }
        }
    }
}

fn print_ad(attributes: &[(u8, Tree)], out: &mut String) {
    out.push('[');
    for (name, tree) in attributes {
        out.push_str(pick(&NAMES, *name));
        out.push('=');
        tree.print(out);
        out.push(';');
    }
    out.push(']');
}

fuzz_target!(|input: (Vec<(u8, Tree)>, Vec<(u8, Tree)>, Tree)| {
    let mut texts = [String::new(), String::new(), String::new()];
    print_ad(&input.0, &mut texts[0]);
    print_ad(&input.1, &mut texts[1]);
    input.2.print(&mut texts[2]);
    let [left, right, expr] = texts;
    // What nests too deep is refused.
    let (Ok(left), Ok(right), Ok(expr)) = (ClassAd::parse(&left), ClassAd::parse(&right), Expr::parse(&expr)) else {
        return;
    };
    assert!(Expr::parse(&expr.to_string()).is_ok_and(|again| again == expr));
    assert!(ClassAd::parse(&left.to_string()).is_ok_and(|again| again == left));
    assert!(ClassAd::from_json(&left.to_json()).is_ok_and(|again| again == left));
    let _ = left.evaluate_expr(&expr);
    let _ = left.flatten(&expr);
    let _ = left.references(&expr);
    let result = matches(&left, &right);
    assert_eq!(result.symmetric, is_match(&left, &right));
    assert_eq!(explain(&left, &right).is_empty(), result.symmetric);
    // Near its limit on steps, what was prepared may just be done where the plain ad is not.
    let (a, b) = (Prepared::new(&left), Prepared::new(&right));
    let _ = a.is_match(&b);
});
