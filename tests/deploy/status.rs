//! The status page, in a real browser: `scripts/browser` installs it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, spawn, JoinHandle};
use std::time::Duration;

use envoy_harness::client;
use envoy_harness::{path_of, wait_until};
use serde_yaml::Value;

use crate::envoy::{self, top};
use crate::stage::{read, Stage};

/// The colour scheme of the browser, by Chromium's numbers for it.
#[derive(Clone, Copy)]
enum Scheme {
    Dark = 0,
    Light = 1,
}

/// Opens a page and returns its content; with `picture`, takes a screenshot instead.
fn open(url: &str, folder: &Path, scheme: Scheme, picture: Option<&Path>) -> String {
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
        .args(["--hide-scrollbars", "--window-size=1320,1250"])
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            scheme as u8
        ))
        .arg(format!(
            "--user-data-dir={}",
            folder.join("browser").display()
        ));
    match picture {
        // The picture is taken of the whole page, however long a busy machine takes to draw it. The page loads
        // itself again after two seconds of this clock.
        Some(file) => browser
            .args([
                "--run-all-compositor-stages-before-draw",
                "--virtual-time-budget=1000",
            ])
            .arg(format!("--screenshot={}", file.display())),
        None => browser.arg("--dump-dom"),
    };
    let output = browser
        .arg(url)
        .output()
        .expect("chromium; call `make test`");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The texts of the cells of a table's rows, without those of its head.
fn rows(page: &str, class: &str) -> Vec<Vec<String>> {
    let table = page.split(&format!("<table class=\"{class}\">")).nth(1);
    let table = table.unwrap_or_else(|| panic!("no table {class}: {page}"));
    let table = table.split("</table>").next().unwrap();
    let body = table.split_once("</thead>").unwrap().1;
    let text = |cell: &str| {
        let inside = cell.split_once('>').unwrap().1;
        let inside = inside.split("</td>").next().unwrap();
        let words = inside
            .split('<')
            .enumerate()
            .map(|(part, text)| match part {
                0 => text,
                _ => text.split_once('>').unwrap().1,
            });
        words.collect::<Vec<_>>().join(" ").trim().to_owned()
    };
    body.split("<tr")
        .skip(1)
        .map(|row| row.split("<td").skip(1).map(text).collect())
        .collect()
}

/// Fetches the page as an open browser does, until it shows this.
fn shown(port: u16, what: &str, mut is_shown: impl FnMut(&str) -> bool) -> String {
    let mut page = String::new();
    wait_until(what, || {
        page = client::get(port, "/").map_or(String::new(), |response| response.body);
        is_shown(&page)
    });
    page
}

/// Keeps asking for the page: a browser may take longer to start than pickers keep reporting.
struct Watcher(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Watcher {
    fn of(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = client::get(port, "/");
                sleep(Duration::from_millis(500));
            }
        };
        Self(stop, Some(spawn(watch)))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

const PROMPT: &str = "Of trains and their times. ";

/// Sends requests until a worker that reports has decided one, so that the page can show it.
fn decided(llm: u16, status: u16, model: &str) -> String {
    wait_until("requests are served", || {
        client::get(llm, "/v1/models").is_ok_and(|response| response.status == 200)
    });
    let mut number = 0;
    shown(status, "decisions are shown", |page| {
        number += 1;
        let turn = format!(
            "{}And then {number}?",
            "Another conversation. ".repeat(20 + number)
        );
        for prompt in [turn, PROMPT.repeat(30)] {
            assert_eq!(client::complete(llm, model, &prompt).status, 200);
        }
        page.matches("<tbody class=\"one\">").count() > 3
    })
}

/// All are fresh, idle and picked.
fn check_endpoints(page: &str, addresses: &[String]) {
    let endpoints = rows(page, "endpoints");
    let mut names: Vec<&str> = endpoints.iter().map(|row| row[0].as_str()).collect();
    let mut addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    names.sort_unstable();
    addresses.sort_unstable();
    assert_eq!(names, addresses);
    for row in &endpoints {
        // On a busy machine a poll may fail, and the one before still counts.
        assert!(row[1] == "yes" && row[2].starts_with("fresh"), "{row:?}");
        assert_eq!(row[4], "0", "{row:?}");
        assert!(row[3].ends_with(" ms") && row[6].ends_with(" %"), "{row:?}");
    }
    assert!(sum(&endpoints, 10) > 3, "{endpoints:?}");
}

/// One polls, and one has served; none has rejected a request.
fn check_workers(page: &str) {
    let workers = rows(page, "workers");
    let polling = workers.iter().filter(|row| row[2] == "yes");
    assert_eq!(polling.count(), 1, "{workers:?}");
    let serving = workers.iter().filter(|row| row[1] == "requests");
    let serving: Vec<_> = serving.cloned().collect();
    assert_eq!((serving.len(), workers.len()), (1, 2), "{workers:?}");
    assert!(sum(&serving, 10) > 0, "{serving:?}");
    assert!(workers.iter().all(|row| row[5] == "metrics"), "{workers:?}");
    let totals = rows(page, "totals");
    assert!(totals.len() == 2 && sum(&totals, 1) > 3, "{totals:?}");
    assert_eq!((sum(&totals, 3), sum(&totals, 4)), (0, 0), "{totals:?}");
    // The requests that came before the endpoints were discovered are not a problem.
    assert!(page.contains("Healthy"), "{page}");
}

/// Nothing is wider than the window, in which the tables would have to be scrolled. The page itself runs no
/// script: a copy of it does.
fn check_width(page: &str, folder: &Path) {
    let measure = "<script>
        const wide = [...document.querySelectorAll('section')].filter(s => s.scrollWidth > s.clientWidth);
        document.body.dataset.wide = wide.length;
        </script>";
    let copy = folder.join("page.html");
    fs::write(
        &copy,
        page.replace("<meta http-equiv", "<meta name") + measure,
    )
    .unwrap();
    let measured = open(
        &format!("file://{}", copy.display()),
        folder,
        Scheme::Light,
        None,
    );
    assert!(measured.contains("data-wide=\"0\""), "{measured}");
}

/// One prompt again and again: it is cached at its pick, and at no other endpoint.
fn check_decisions(page: &str, addresses: &[String]) {
    let decisions = rows(page, "decisions");
    let last = &decisions[0];
    assert_eq!((last[2].as_str(), last[4].as_str()), ("demo", "100.0 %"));
    assert_eq!((last[7].as_str(), last[9].as_str()), ("4", "50.000"));
    assert_eq!(last[10], "1.000", "{last:?}");
    assert!(addresses.contains(&last[8]), "{last:?}");
    for other in &decisions[1..4] {
        assert_eq!(other[1..], ["0.000", "0.000"], "{decisions:?}");
    }
}

fn check_plan(page: &str) {
    let plan = rows(page, "plan");
    let scorer = plan.iter().find(|row| row[1] == "prefix-cache-scorer");
    let scorer = scorer.unwrap();
    assert_eq!((scorer[0].as_str(), scorer[3].as_str()), ("default", "50"));
    assert!(scorer[4].contains("hashBlockSize: 5"), "{scorer:?}");
}

fn sum(rows: &[Vec<String>], column: usize) -> u64 {
    rows.iter()
        .map(|row| row[column].parse::<u64>().unwrap())
        .sum()
}

#[test]
fn a_browser_shows_the_status_page_of_the_pool() {
    let stage = Stage::set(&top().join("envoy/envoy.yaml"));
    let _envoy = envoy::start(&stage.folder, "envoy", &stage.text());
    let (llm, status) = (stage.port(10_000), stage.port(10_001));
    decided(llm, status, "demo");
    let _watcher = Watcher::of(status);
    let url = format!("http://127.0.0.1:{status}/");
    let page = open(&url, stage.folder.path(), Scheme::Light, None);
    let addresses = stage.sim.addresses();
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    check_endpoints(&page, &addresses);
    check_workers(&page);
    check_decisions(&page, &addresses);
    check_plan(&page);
    check_width(&page, stage.folder.path());

    // docs/status.png is the light one.
    let pictures = [
        (Scheme::Light, "status-light.png"),
        (Scheme::Dark, "status-dark.png"),
    ];
    let pictures = pictures.map(|(scheme, name)| {
        let picture = top().join("target").join(name);
        open(&url, stage.folder.path(), scheme, Some(&picture));
        fs::read(&picture).unwrap()
    });
    assert!(pictures.iter().all(|picture| picture.len() > 20_000));
    assert!(pictures[0] != pictures[1], "dark and light look alike");
}

#[test]
fn only_the_pages_listener_serves_it_and_it_shows_no_prompt() {
    let stage = Stage::set(&top().join("envoy/envoy.yaml"));
    let _envoy = envoy::start(&stage.folder, "envoy", &stage.text());
    let (llm, status) = (stage.port(10_000), stage.port(10_001));
    let page = decided(llm, status, "<script>alert(1)</script>");
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(
        !page.contains("<script") && !page.contains("trains"),
        "{page}"
    );
    let response = client::get(status, "/?x").unwrap();
    assert_eq!(response.status, 200);
    assert!(response
        .header("content-security-policy")
        .starts_with("default-src 'none'"));
    for path in ["/clusters", "/stats", "/stats/prometheus", "//", "/x"] {
        assert_eq!(client::get(status, path).unwrap().status, 404, "{path}");
    }
    let posted = client::send(status, "POST", "/", &[], b"").unwrap();
    assert_eq!(posted.status, 404);
    let other = client::get(llm, "/").unwrap();
    assert!(!other.body.contains("epp-wasm"), "{}", other.body);
}

#[test]
fn workers_that_share_nothing_are_shown() {
    let mut config = read(&top().join("envoy/envoy.yaml"));
    let filters = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
    let filter = &mut filters[0]["typed_config"]["http_filters"][0]["typed_config"]["config"];
    let document = &mut filter["configuration"]["value"];
    let (former, alone) = (
        "{readBody: always}",
        "{readBody: always, shareState: false}",
    );
    *document = Value::from(document.as_str().unwrap().replacen(former, alone, 1));
    let stage = Stage::of(config);
    let _envoy = envoy::start(&stage.folder, "envoy", &stage.text());
    let (llm, status) = (stage.port(10_000), stage.port(10_001));
    let page = decided(llm, status, "demo");
    let workers = rows(&page, "workers");
    assert!(
        workers.iter().any(|row| row[1] == "requests"),
        "{workers:?}"
    );
    assert!(page.contains("shareState: false"), "{page}");
    let admin = stage.port(9_901);
    let counted = client::get(admin, "/stats?filter=epp_wasm_sharing_vms").unwrap();
    assert!(counted.body.contains(": 0"), "{}", counted.body);
}

/// The module with faults on demand (src/fault.rs) simulates a defect in the page.
#[test]
fn a_failure_of_the_page_affects_no_request() {
    let stage = Stage::set(&top().join("envoy/envoy.yaml"));
    let [module, faulty] = ["EPP_WASM", "EPP_WASM_FAULTS"].map(path_of);
    let [module, faulty] = [module, faulty].map(|path| path.to_string_lossy().into_owned());
    let config = stage.text().replace(&module, &faulty);
    let _envoy = envoy::start(&stage.folder, "envoy", &config);
    let (llm, status) = (stage.port(10_000), stage.port(10_001));
    decided(llm, status, "demo");
    for fault in ["panic", "trap"] {
        let headers = [("x-epp-fault", fault)];
        let struck = client::send(status, "GET", "/", &headers, b"").unwrap();
        assert_ne!(struck.status, 200, "{fault}");
        assert_eq!(client::complete(llm, "demo", PROMPT).status, 200);
        shown(status, "the page is there again", |page| {
            assert_eq!(client::complete(llm, "demo", PROMPT).status, 200);
            page.contains("<table class=\"workers\">")
        });
    }
    let stats = client::get(stage.port(9_901), "/stats?filter=vm_reload_success");
    let stats = stats.unwrap().body;
    assert!(
        stats.contains("wasm.epp-status.vm_reload_success: 1"),
        "{stats}"
    );
    let pickers = stats.lines().find(|line| line.starts_with("wasm.epp."));
    assert!(pickers.is_none_or(|line| line.ends_with(": 0")), "{stats}");
}
