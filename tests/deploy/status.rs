//! The status page, in a real browser: `scripts/browser` installs it.

use std::path::Path;
use std::process::Command;

use envoytest::client;
use envoytest::proxy::wait_until;

use crate::envoy::{top, Envoy};
use crate::stage::Stage;

/// Opens a page, lets its scripts run for some seconds, and returns what is in it then.
fn open(url: &str, folder: &Path, picture: Option<&Path>) -> String {
    let mut browser = Command::new("chromium");
    browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--window-size=1080,420"])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("browser").display()
        ))
        .arg("--virtual-time-budget=3000");
    match picture {
        Some(file) => browser.arg(format!("--screenshot={}", file.display())),
        None => browser.arg("--dump-dom"),
    };
    let output = browser
        .arg(url)
        .output()
        .expect("chromium; call `make test`");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The cells of a table's body, row by row.
fn rows(page: &str, id: &str) -> Vec<Vec<String>> {
    let table = page.split(&format!("<table id=\"{id}\">")).nth(1);
    let table = table.unwrap_or_else(|| panic!("no table {id}: {page}"));
    let body = table.split("<tbody>").nth(1).unwrap();
    let body = body.split("</tbody>").next().unwrap();
    let text = |cell: &str| {
        let inside = cell.split_once('>').unwrap().1;
        inside.split('<').next().unwrap().to_owned()
    };
    body.split("<tr>")
        .skip(1)
        .map(|row| row.split("<td").skip(1).map(text).collect())
        .collect()
}

#[test]
fn a_browser_shows_the_pool() {
    let stage = Stage::set(&top().join("envoy/envoy.yaml"));
    let _envoy = Envoy::start(&stage.folder, "envoy", &stage.text());
    let (llm, status) = (stage.port(10_000), stage.port(10_001));
    wait_until("requests are answered", || {
        client::get(llm, "/v1/models").is_ok_and(|answer| answer.status == 200)
    });
    // Those that come before anybody was heard of are Envoy's own to place.
    wait_until("picks are counted", || {
        let prompt = "Of trains and their times. ".repeat(30);
        assert_eq!(client::complete(llm, "demo", &prompt).status, 200);
        let page = client::get(status, "/stats/prometheus").unwrap().body;
        page.contains("llm_d_epp_scheduler_attempts_total{")
    });
    let url = format!("http://127.0.0.1:{status}/");
    let page = open(&url, &stage.folder.0, None);
    let endpoints = rows(&page, "endpoints");
    assert_eq!(endpoints.len(), 4, "{page}");
    let names: Vec<&str> = endpoints.iter().map(|row| row[0].as_str()).collect();
    for address in stage.sim.addresses() {
        assert!(names.contains(&address.to_string().as_str()), "{names:?}");
    }
    assert!(
        endpoints
            .iter()
            .all(|row| row[1] == "fresh" && row[4] == "no"),
        "{endpoints:?}"
    );
    let picks: u64 = endpoints
        .iter()
        .map(|row| row[5].parse::<u64>().unwrap())
        .sum();
    assert!(picks > 0, "{endpoints:?}");
    let pool = &rows(&page, "pool")[0];
    assert_eq!(pool[0], "4");
    assert!(pool[2].starts_with("≤ 0.0"), "{pool:?}");
    let picture = stage.folder.0.join("status.png");
    open(&url, &stage.folder.0, Some(&picture));
    assert!(std::fs::metadata(&picture).unwrap().len() > 5_000);
}

#[test]
fn nothing_else_of_the_admin_interface_is_reached() {
    let stage = Stage::set(&top().join("envoy/envoy.yaml"));
    let _envoy = Envoy::start(&stage.folder, "envoy", &stage.text());
    let status = stage.port(10_001);
    wait_until("the page is served", || {
        client::get(status, "/").is_ok_and(|answer| answer.status == 200)
    });
    for path in [
        "/clusters",
        "/config_dump",
        "/stats",
        "/stats/prometheus/../../clusters",
    ] {
        assert_eq!(client::get(status, path).unwrap().status, 404, "{path}");
    }
    let stop = client::send(status, "POST", "/quitquitquit", &[], b"").unwrap();
    assert_eq!(stop.status, 404);
}
