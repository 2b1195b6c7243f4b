//! What the line protocol asks and how it is answered. Used by the example and by the test of the committed cases.
#![allow(
    unreachable_pub,
    reason = "compiled into two crates, of which neither has a public interface"
)]

use classad::{ClassAd, Expr, ParseError, Scope, Value, matches};
use serde_json::{Value as Json, json};

/// Answers one line.
pub fn reply(line: &str) -> Json {
    let request: Json = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(e) => return json!({"type": "unsupported", "value": e.to_string()}),
    };
    let mut reply = answer(&Request(&request)).unwrap_or_else(|_| json!({"type": "parse_error"}));
    reply["id"] = request["id"].clone();
    reply
}

struct Request<'r>(&'r Json);

impl Request<'_> {
    fn str(&self, name: &str) -> Option<&str> {
        self.0[name].as_str()
    }

    /// A member that may be given in base64.
    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        match self.str(&format!("{name}_b64")) {
            Some(text) => Some(from_base64(text)),
            None => self.str(name).map(|text| text.as_bytes().to_vec()),
        }
    }

    fn ad(&self, name: &str, syntax: &str) -> Result<Option<ClassAd>, ParseError> {
        let Some(text) = self.bytes(name) else {
            return Ok(None);
        };
        match self.str(syntax) {
            Some("old") => ClassAd::parse_old_bytes(&text),
            _ => ClassAd::parse_bytes(&text),
        }
        .map(Some)
    }

    fn expr(&self, name: &str) -> Result<Expr, ParseError> {
        let text = self.bytes(name).unwrap_or_default();
        match self.str("syntax") {
            Some("old") => Expr::parse_old_bytes(&text),
            _ => Expr::parse_bytes(&text),
        }
    }
}

fn answer(request: &Request<'_>) -> Result<Json, ParseError> {
    Ok(match request.str("kind").unwrap_or_default() {
        "eval" => {
            let ad = request.ad("ad", "ad_syntax")?.unwrap_or_default();
            let target = request.ad("target", "ad_syntax")?;
            let expr = request.expr("expr")?;
            let scope = Scope::new(&ad);
            let scope = target.as_ref().map_or(scope, |target| scope.target(target));
            value(&scope.evaluate_expr(&expr), 0)
        }
        "parse" => {
            if request.str("what") == Some("ad") {
                request.ad("text", "syntax")?;
            } else {
                request.expr("text")?;
            }
            json!({"type": "ok"})
        }
        "unparse" => unparse(request)?,
        "match" => {
            let left = request.ad("left", "ad_syntax")?.unwrap_or_default();
            let right = request.ad("right", "ad_syntax")?.unwrap_or_default();
            let result = matches(&left, &right);
            json!({"type": "match", "value": {
                "symmetric": result.symmetric,
                "left_requirements": value(&result.left_requirements, 0),
                "right_requirements": value(&result.right_requirements, 0),
                "left_rank": value(&result.left_rank, 0),
                "right_rank": value(&result.right_rank, 0),
            }})
        }
        "flatten" => {
            let ad = request.ad("ad", "ad_syntax")?.unwrap_or_default();
            let expr = request.expr("expr")?;
            match ad.flatten(&expr) {
                classad::Flat::Value(flat) => value(&flat, 0),
                classad::Flat::Expr(residue) => {
                    json!({"type": "expr", "value": residue.to_string()})
                }
            }
        }
        "refs" => {
            let ad = request.ad("ad", "ad_syntax")?.unwrap_or_default();
            let references = ad.references(&request.expr("expr")?);
            json!({"type": "refs", "value": {"external": references.external, "internal": references.internal}})
        }
        _ => json!({"type": "unsupported"}),
    })
}

fn unparse(request: &Request<'_>) -> Result<Json, ParseError> {
    let out = request.str("out").unwrap_or("new");
    let text = if request.str("what") == Some("ad") {
        let ad = request.ad("text", "syntax")?.unwrap_or_default();
        match out {
            "old" => return Ok(text(&ad.to_old_bytes())),
            "json" => ad.to_json(),
            "pretty" => ad.to_pretty(),
            _ => ad.to_string(),
        }
    } else {
        let expr = request.expr("text")?;
        match out {
            "old" => return Ok(text(&expr.to_old_bytes())),
            "json" => expr.to_json(),
            "pretty" => expr.to_pretty(),
            _ => expr.to_string(),
        }
    };
    Ok(json!({"type": "string", "value": text}))
}

fn text(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({"type": "string", "value": text}),
        Err(_) => json!({"type": "bytes", "value": to_base64(bytes)}),
    }
}

fn real(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else {
        format!("{value:?}")
    }
}

fn value(value_: &Value, depth: u32) -> Json {
    match value_ {
        Value::Undefined => json!({"type": "undefined"}),
        Value::Error => json!({"type": "error"}),
        Value::Bool(b) => json!({"type": "bool", "value": b}),
        Value::Int(i) => json!({"type": "int", "value": i.to_string()}),
        Value::Real(r) => json!({"type": "real", "value": real(*r)}),
        Value::Str(string) => text(string.as_bytes()),
        Value::AbsTime(time) => {
            json!({"type": "abstime", "value": {"secs": time.secs.to_string(), "offset": time.offset.to_string()}})
        }
        Value::RelTime(secs) => json!({"type": "reltime", "value": real(*secs)}),
        Value::List(_) if depth >= 8 => json!({"type": "list", "value": "..."}),
        Value::List(items) => {
            let items: Vec<Json> = items.iter().map(|item| value(item, depth + 1)).collect();
            json!({"type": "list", "value": items})
        }
        Value::Ad(ad) => {
            let attributes: Vec<Json> = ad
                .iter()
                .map(|(name, expr)| json!([name, expr.to_string()]))
                .collect();
            json!({"type": "classad", "value": attributes})
        }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for digit in text
        .bytes()
        .filter_map(|b| ALPHABET.iter().position(|&a| a == b))
    {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}
