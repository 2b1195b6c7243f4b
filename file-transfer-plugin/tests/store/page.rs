//! What people and Prometheus see.

use std::fs;
use std::process::{Command, Stdio};

use crate::http::Client;
use crate::image::Image;
use crate::server::{Server, have_package};
use crate::tokens::sha256;

/// Two owners and an operator.
fn serve(temp: &std::path::Path) -> Server {
    let tokens = temp.join("tokens");
    let lines = [
        ("a-secret", "alice"),
        ("b-secret", "bob<b>"),
        ("o-secret", "olga operator"),
    ];
    let lines = lines.map(|(token, owner)| format!("{} {owner}\n", sha256(token)));
    fs::write(&tokens, lines.concat()).unwrap();
    let server = Server::start_with(&temp.join("store"), &["--tokens", tokens.to_str().unwrap()]);
    let mut alice = server.client().with_token("a-secret");
    Image::of(1, &[1, 2, 3]).push(&mut alice, "12.0");
    Image::of(2, &[1, 2, 4]).push(&mut alice, "12.0");
    Image::of(1, &[1]).push(&mut server.client().with_token("b-secret"), "13.0");
    server
}

#[test]
fn the_page_shows_each_their_own_and_the_operator_all() {
    let temp = tempfile::tempdir().unwrap();
    let server = serve(temp.path());
    let page = |password: &str| {
        // As a browser sends it.
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
        let mut client = server
            .client()
            .with_header("Authorization", &format!("Basic {basic}"));
        client.get("/")
    };
    let alice = page("a-secret");
    assert_eq!(
        alice.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        alice
            .header("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
    assert!(alice.text().contains("<dd id=\"images\">2</dd>") && alice.text().contains("12.0"));
    assert!(!alice.text().contains("bob"));
    let all = page("o-secret");
    assert!(all.text().contains("<dd id=\"images\">3</dd>"));
    assert!(all.text().contains("bob&lt;b&gt;") && !all.text().contains("bob<b>"));
    let refused = page("wrong");
    assert_eq!(refused.status, 401);
    assert!(
        refused
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic ")
    );
}

#[test]
fn a_browser_shows_the_page() {
    let browsers = ["chromium", "chromium-headless-shell"];
    let Some(browser) = have_package(&browsers, "chromium-headless-shell") else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let server = serve(temp.path());
    let url = format!("http://me:o-secret@{}/", server.address);
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=5000",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            temp.path().join("profile").display()
        ))
        .arg(&url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    // The tree that the browser made of it, not our text.
    assert!(dom.contains("<b id=\"owner\">olga</b>"), "{dom}\n{errors}");
    assert_eq!(dom.matches("<tr>").count(), 4, "{dom}");
    assert!(dom.contains("<td>bob&lt;b&gt;</td>"), "{dom}");
    for (id, value) in [("images", "3"), ("jobs", "2")] {
        assert!(
            dom.contains(&format!("<dd id=\"{id}\">{value}</dd>")),
            "{dom}"
        );
    }
    assert!(!errors.contains("Content Security Policy"), "{errors}");
    assert!(!server.log().contains("secret"));
}

fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(&format!("criu_store_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
        .parse()
        .unwrap()
}

#[test]
fn the_metrics_are_sums_and_name_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let server = serve(temp.path());
    let mut client: Client = server.client().with_token("b-secret");
    let answer = client.get("/metrics");
    let type_ = answer.header("content-type").unwrap();
    assert!(type_.starts_with("application/openmetrics-text"), "{type_}");
    let text = answer.text();
    for (name, expected) in [
        ("owners", 2),
        ("jobs", 2),
        ("images", 3),
        ("commits_total", 3),
        ("uploads", 0),
    ] {
        assert_eq!(value(text, name), expected, "{name}");
    }
    assert!(
        value(text, "image_bytes") > value(text, "kept_bytes")
            && value(text, "kept_bytes") > 4 * 65_536
    );
    assert!(value(text, "received_bytes_total") > 4 * 65_536 && value(text, "free_bytes") > 0);
    assert!(
        text.contains("criu_store_requests_total{method=\"PUT\",status=\"201\"} 3\n"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n") && !text.contains("alice") && !text.contains("12.0"));
}

#[test]
fn the_log_is_json_and_says_what_was_committed() {
    let temp = tempfile::tempdir().unwrap();
    let server = serve(temp.path());
    let log = server.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let committed: Vec<_> = lines
        .iter()
        .filter(|line| line["message"] == "committed")
        .collect();
    assert_eq!(committed.len(), 3);
    assert_eq!(
        (&committed[0]["owner"], &committed[0]["job"]),
        (&"alice".into(), &"12.0".into())
    );
}

#[test]
fn the_unit_starts_what_the_command_line_would() {
    let output = Command::new(env!("CARGO_BIN_EXE_criu-transfer"))
        .args([
            "serve",
            "--dir",
            "/var/lib/my store",
            "--print-unit",
            "--anonymous",
        ])
        .output()
        .unwrap();
    assert!(output.status.success());
    let unit = String::from_utf8(output.stdout).unwrap();
    let program = env!("CARGO_BIN_EXE_criu-transfer");
    let command = format!("ExecStart={program} serve --dir \"/var/lib/my store\" --anonymous\n");
    assert!(unit.contains(&command), "{unit}");
    assert!(
        unit.contains("DAEMON_LIST = $(DAEMON_LIST) CRIU_STORE"),
        "{unit}"
    );
    // What is not for systemd is a comment to it, and the other way round.
    let directive = |line: &str| line.starts_with('[') || line.contains('=');
    for line in unit
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        assert!(directive(line), "{line}");
    }
}
