//! The bootstraps in envoy/ and envoy/production/: each is valid, starts, routes, reads the metrics
//! of its model servers, and shows its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use envoy_harness::client::{self, Response};
use envoy_harness::host::Host;
use envoy_harness::{wait_until, Process};
use fake_model_server::{Faults, Metrics};
use serde_yaml::Value;

use crate::envoy::{self, top};
use crate::istio::documents;
use crate::stage::{read, Stage};

/// The folders whose YAML files are all bootstraps.
const FOLDERS: [&str; 2] = ["envoy", "envoy/production"];

/// All bootstraps.
fn bootstraps() -> Vec<PathBuf> {
    let files = |folder: &&str| fs::read_dir(top().join(folder)).unwrap();
    let files = FOLDERS.iter().flat_map(files);
    let files = files.map(|entry| entry.unwrap().path());
    let yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml");
    let mut files: Vec<PathBuf> = files.filter(yaml).collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    files
}

pub fn production(name: &str) -> PathBuf {
    top().join("envoy/production").join(name)
}

/// An Envoy of a template.
pub struct Running {
    /// Stopped before its files are removed.
    _envoy: Process,
    /// What it was started with.
    pub stage: Stage,
    llm: u16,
    metrics: u16,
}

impl Running {
    /// Starts one.
    pub fn start(template: &Path) -> Self {
        Self::of(Stage::set(template))
    }

    /// Starts Envoy with what is in place.
    pub fn of(stage: Stage) -> Self {
        let envoy = envoy::start(&stage.folder, "envoy", &stage.text());
        let (mut llm, mut metrics) = (0, admin_port(&stage.config));
        for listener in sequence(&stage.config["static_resources"]["listeners"]) {
            let port = port(&listener["address"]);
            match listener["name"].as_str().unwrap() {
                "llm" => llm = port,
                "stats" => metrics = port,
                other => assert_eq!(other, "status", "a listener without a test"),
            }
        }
        let running = Self {
            stage,
            _envoy: envoy,
            llm,
            metrics,
        };
        wait_until("Envoy is ready", || {
            client::get(running.metrics, "/ready").is_ok_and(|response| response.status == 200)
        });
        running
    }

    /// Sends a request.
    pub fn ask(&self, host: &str, prompt: &str) -> Response {
        // What a client must not be able to say.
        self.ask_for(host, prompt, "127.0.0.1:1")
    }

    /// Sends a request that names another endpoint.
    fn ask_for(&self, host: &str, prompt: &str, endpoint: &str) -> Response {
        let body = format!(r#"{{"model": "demo", "prompt": "{prompt}", "max_tokens": 2}}"#);
        let mut headers = vec![
            ("content-type", "application/json"),
            ("x-gateway-destination-endpoint", endpoint),
        ];
        if host != "*" {
            headers.push(("host", host));
        }
        client::send(
            self.llm,
            "POST",
            "/v1/completions",
            &headers,
            body.as_bytes(),
        )
        .unwrap()
    }

    /// Returns the metrics.
    pub fn page(&self) -> String {
        client::get(self.metrics, "/stats/prometheus").unwrap().body
    }

    /// The sum of a metric's values over the lines that have these labels.
    pub fn counted(&self, name: &str, labels: &[&str]) -> u64 {
        let page = self.page();
        let own = page
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")))
            .filter(|line| labels.iter().all(|label| line.contains(label)));
        own.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Hosts and the clusters that their routes lead to.
    fn pools(&self) -> Vec<(String, String)> {
        let listeners = sequence(&self.stage.config["static_resources"]["listeners"]);
        let llm = listeners.iter().find(|listener| listener["name"] == "llm");
        let manager = &llm.unwrap()["filter_chains"][0]["filters"][0]["typed_config"];
        let hosts = sequence(&manager["route_config"]["virtual_hosts"]).iter();
        hosts
            .map(|host| {
                let cluster = &host["routes"][0]["route"]["cluster"];
                let domain = host["domains"][0].as_str().unwrap().to_owned();
                (domain, cluster.as_str().unwrap().to_owned())
            })
            .collect()
    }

    /// Returns how many of a cluster's members may be picked.
    fn ready(&self, cluster: &str) -> usize {
        let draining = self.stage.beside("eds/endpoints.yaml");
        let draining = draining.matches("health_status: DRAINING").count();
        let clusters = sequence(&self.stage.config["static_resources"]["clusters"]).iter();
        // Those that no route leads to are named to the members of the pool's own cluster.
        let helpers = clusters.filter(|one| one["name"] == "prefill");
        let helpers = helpers.map(|one| ports(&one["load_assignment"]).len());
        self.members(cluster).len() + helpers.sum::<usize>() - draining
    }

    /// The members of a cluster, by the port that they have in this test.
    fn members(&self, cluster: &str) -> BTreeSet<u16> {
        let clusters = sequence(&self.stage.config["static_resources"]["clusters"]);
        let found = clusters.iter().find(|one| one["name"] == cluster).unwrap();
        match found.get("load_assignment") {
            Some(assignment) => ports(assignment),
            // EDS from a file: of all of them.
            None => self
                .stage
                .sim
                .addresses()
                .iter()
                .map(|at| at.port())
                .collect(),
        }
    }
}

fn sequence(value: &Value) -> &[Value] {
    value.as_sequence().map_or(&[], Vec::as_slice)
}

fn port(address: &Value) -> u16 {
    let port = address["socket_address"]["port_value"].as_u64();
    port.unwrap_or(0).try_into().unwrap()
}

fn admin_port(config: &Value) -> u16 {
    port(&config["admin"]["address"])
}

fn ports(assignment: &Value) -> BTreeSet<u16> {
    let groups = sequence(&assignment["endpoints"]).iter();
    groups
        .flat_map(|group| sequence(&group["lb_endpoints"]))
        .map(|member| port(&member["endpoint"]["address"]))
        .collect()
}

#[test]
fn each_bootstrap_is_valid_and_serves() {
    for file in bootstraps() {
        println!("{}", file.display());
        let stage = Stage::set(&file);
        if let Err(said) = envoy::validate(&stage.folder, &stage.text()) {
            panic!("{}: {said}", file.display());
        }
        serves(&Running::of(stage));
    }
}

/// Requests to each of its pools are picked for, served by the pool's own members, and counted.
fn serves(running: &Running) {
    for (host, cluster) in running.pools() {
        let pool = format!("pool=\"{cluster}\"");
        wait_until("metrics are fresh", || {
            let page = running.page();
            let own = page.lines().filter(|line| line.contains(&pool));
            let mut fresh = own.filter(|line| line.starts_with("epp_wasm_endpoint_freshness{"));
            fresh.clone().count() > 0 && fresh.all(|line| line.ends_with("} 2"))
        });
        // Envoy's first health check may fail while its main thread compiles the module.
        wait_until("all may be picked", || {
            let ready = running.counted("llm_d_epp_ready_endpoints", &[&pool]);
            ready == running.ready(&cluster) as u64
        });
        let kept = keeps_to(running, &host, &cluster);
        let members = running.members(&cluster);
        let number: usize = kept.strip_prefix("pod-").unwrap().parse().unwrap();
        let pod = running.stage.sim.pod(number - 1);
        assert!(
            members.contains(&served_port(running, number - 1)),
            "{cluster}: {} is not of {members:?}",
            pod.name
        );
        let seen = pod.seen();
        let seen = seen.iter().filter(|seen| seen.path == "/v1/completions");
        for request in seen {
            let header = request.header("x-gateway-destination-endpoint");
            assert_eq!(
                header, None,
                "{cluster}: what it was named by goes no further"
            );
        }
        wait_until("picks are counted", || {
            running.counted("llm_d_epp_scheduler_attempts_total", &[&pool]) >= 5
        });
    }
    labels_are_labels(&running.page());
}

/// Waits until the worker knows the pool, and asserts that a conversation keeps to one pod from then on. Returns that pod.
///
/// Before, Envoy's own load balancing sends turns around, and some get 503. Of two pods, that sends 24 turns to one in one of
/// 8 million cases.
fn keeps_to(running: &Running, host: &str, cluster: &str) -> String {
    let prompt = format!("{cluster} has a long prompt of many blocks. ").repeat(60);
    let conversation = || {
        let turns = 0..24;
        let responses = turns.map(|turn| running.ask(host, &format!("{prompt} {turn}")));
        responses.collect::<Vec<Response>>()
    };
    let kept = |responses: &[Response]| {
        let pod = responses[0].pod();
        let well = |one: &Response| one.status == 200 && one.pod() == pod;
        responses.iter().all(well).then(|| pod.to_owned())
    };
    wait_until("the worker picks", || {
        let responses = conversation();
        let mut statuses = responses.iter().map(|response| response.status);
        assert!(
            statuses.all(|status| matches!(status, 200 | 503)),
            "{responses:?}"
        );
        kept(&responses).is_some()
    });
    let responses = conversation();
    kept(&responses).unwrap_or_else(|| panic!("{responses:?}"))
}

/// The port by which Envoy reaches a pod: its own, or that of what takes TLS off before it.
fn served_port(running: &Running, number: usize) -> u16 {
    let own = running.stage.sim.addresses()[number].port();
    running.stage.front(own)
}

#[test]
fn where_the_filter_cannot_run_a_client_still_chooses_nothing() {
    for file in bootstraps() {
        let mut stage = Stage::set(&file);
        let listeners = &mut stage.config["static_resources"]["listeners"];
        let manager = &mut listeners[0]["filter_chains"][0]["filters"][0]["typed_config"];
        let filters = manager["http_filters"].as_sequence_mut().unwrap();
        filters.retain(|filter| filter["name"] == "envoy.filters.http.router");
        assert_eq!(filters.len(), 1);
        let running = Running::of(stage);
        for (host, cluster) in running.pools() {
            wait_until("it serves", || running.ask(&host, "x").status == 200);
            let members = running.members(&cluster);
            if members.len() == 1 {
                // A name that is looked up has one address here.
                continue;
            }
            let named = members.into_iter().next().unwrap();
            let named = format!("127.0.0.1:{}", running.stage.front(named));
            let mut served = BTreeMap::<String, usize>::new();
            for _ in 0..40 {
                let response = running.ask_for(&host, "x", &named);
                *served.entry(response.pod().to_owned()).or_default() += 1;
            }
            // Of two pods that are chosen by chance; obeyed it would be all.
            let spread = served.values().all(|count| *count < 36);
            assert!(spread, "{}: {served:?}", file.display());
        }
    }
}

/// No label was left in a metric's name.
fn labels_are_labels(page: &str) {
    let ours = |line: &&str| line.starts_with("epp_wasm_") || line.starts_with("llm_d_epp_");
    let mut counted = BTreeMap::<&str, usize>::new();
    for line in page.lines().filter(ours) {
        let name = line.split('{').next().unwrap();
        *counted.entry(name).or_default() += 1;
        assert!(!line.contains(';') && !name.contains("_pool_"), "{line}");
        // The build is the module's, whatever pools it has, and what was refused has none.
        let without = [
            "epp_wasm_build_info",
            "epp_wasm_rejected_configurations_total",
        ];
        let of_pool = line.contains("pool=\"") || without.contains(&name);
        assert!(of_pool, "{line}");
    }
    assert!(counted.len() >= 6, "{counted:?}");
}

#[test]
fn an_endpoint_outside_the_metrics_cluster_gets_no_other_endpoints_page() {
    let stage = Stage::set(&production("static.yaml"));
    let mut stage = stage;
    // The cluster for metrics does not know the last member.
    let clusters = stage.config["static_resources"]["clusters"].as_sequence_mut();
    let metrics = clusters.unwrap().iter_mut();
    let mut metrics = metrics.filter(|one| one["name"] == "inference-pool-metrics");
    let members = &mut metrics.next().unwrap()["load_assignment"]["endpoints"][0]["lb_endpoints"];
    members.as_sequence_mut().unwrap().pop();
    drop(metrics);
    let last = format!("endpoint_name=\"{}\"", stage.sim.addresses()[2]);
    let running = Running::of(stage);
    let errors = || running.counted("llm_d_epp_datalayer_poll_errors_total", &[&last]);
    wait_until("its polls fail", || errors() > 3);
    assert_eq!(running.counted("epp_wasm_endpoint_freshness", &[&last]), 0);
}

#[test]
fn broken_metrics_eject_no_endpoint() {
    let running = Running::start(&production("static.yaml"));
    for pod in running.stage.sim.pods() {
        pod.set_faults(Faults {
            metrics: Metrics::Error,
            ..Faults::default()
        });
    }
    let errors = || running.counted("llm_d_epp_datalayer_poll_errors_total", &[]);
    // Five in a row eject in the cluster that serves.
    wait_until("polls fail", || errors() > 30);
    let ready = running.counted("llm_d_epp_ready_endpoints", &[]);
    assert_eq!(ready, 3);
    assert_eq!(running.ask("*", "still served").status, 200);
}

#[test]
fn endpoints_come_and_go_with_their_file() {
    let running = Running::start(&production("eds.yaml"));
    let ready = || running.counted("llm_d_epp_ready_endpoints", &[]);
    wait_until("the one that drains is none", || ready() == 2);
    let mut file: Value =
        { serde_yaml::from_str(&running.stage.beside("eds/endpoints.yaml")).unwrap() };
    let members = &mut file["resources"][0]["endpoints"][0]["lb_endpoints"];
    members.as_sequence_mut().unwrap().truncate(1);
    running.stage.write("eds/endpoints.yaml", &file);
    wait_until("one is left", || ready() == 1);
}

#[test]
fn decode_pods_are_told_who_computes_the_prompt() {
    for file in [
        production("disaggregated.yaml"),
        top().join("envoy/disaggregated.yaml"),
    ] {
        let running = Running::start(&file);
        wait_until("all are known", || {
            running.counted("llm_d_epp_ready_endpoints", &[]) == 4
        });
        let members = |cluster: &str| running.members(cluster);
        let prompt = "A prompt of more than 512 tokens. ".repeat(100);
        wait_until("a decode pod gets the address of a prefill pod", || {
            let response = running.ask("*", &prompt);
            let number: usize = response
                .pod()
                .strip_prefix("pod-")
                .unwrap()
                .parse()
                .unwrap();
            let seen = running.stage.sim.pod(number - 1).seen();
            let named = seen.last().unwrap().header("x-prefiller-host-port");
            let port = |named: &str| named.rsplit(':').next().unwrap().parse().unwrap();
            let is_decode = members("decode").contains(&served_port(&running, number - 1));
            assert!(is_decode, "{}: {response:?}", file.display());
            named.is_some_and(|named| members("prefill").contains(&port(named)))
        });
    }
}

#[test]
fn common_parts_of_the_templates_are_the_same() {
    let first = read(&production("static.yaml"));
    for name in [
        "eds.yaml",
        "ecds.yaml",
        "dns.yaml",
        "tls.yaml",
        "two-pools.yaml",
        "disaggregated.yaml",
    ] {
        let other = read(&production(name));
        for part in ["admin", "stats_config", "overload_manager"] {
            assert_eq!(other[part], first[part], "{name}: {part}");
        }
        let listener = |config: &Value| {
            let mut listener = config["static_resources"]["listeners"][0].clone();
            let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
            // Which pools there are, and their documents.
            manager["http_filters"] = Value::Null;
            manager["route_config"] = Value::Null;
            listener
        };
        assert_eq!(listener(&other), listener(&first), "{name}: the listener");
    }
}

/// What the demo and the fault suite make of a bootstrap for the dynamic module is what is published.
#[test]
fn the_dynamic_modules_template_is_the_wasm_modules_with_another_filter() {
    let adapted = |file: &str, module: &str| {
        let text = fs::read_to_string(top().join(file)).unwrap();
        let adapted = Host::Module.bootstrap(&text, Path::new(module)).unwrap();
        serde_yaml::to_value(adapted).unwrap()
    };
    // Filters of the other host always get bodies, with any setting.
    let mut expected = adapted("envoy/production/static.yaml", "/etc/envoy/libepp.so");
    let mut own = read(&production("module.yaml"));
    let document = |config: &mut Value| {
        let listener = &mut config["static_resources"]["listeners"][0];
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        let filter = &mut manager["http_filters"][0]["typed_config"]["filter_config"];
        let text = filter["value"].as_str().unwrap();
        let text: Value = serde_yaml::from_str(&text.replace("readBody: always, ", "")).unwrap();
        filter["value"] = text;
    };
    document(&mut expected);
    document(&mut own);
    assert_eq!(own, expected);
}

/// A metric that gets a new label gets it in the demo; here is where the others are still without.
#[test]
fn all_templates_define_the_same_labels() {
    let tags = |config: &Value| -> BTreeSet<(String, String)> {
        let text = |tag: &Value, key: &str| tag[key].as_str().unwrap().to_owned();
        let tags = sequence(&config["stats_config"]["stats_tags"]).iter();
        tags.map(|tag| (text(tag, "tag_name"), text(tag, "regex")))
            .collect()
    };
    let demo = tags(&read(&top().join("envoy/envoy.yaml")));
    assert!(demo.len() >= 7, "{demo:?}");
    for file in bootstraps() {
        // Metrics of a dynamic module have labels of their own.
        let expected = match file.ends_with("module.yaml") {
            true => BTreeSet::new(),
            false => demo.clone(),
        };
        assert_eq!(tags(&read(&file)), expected, "{}", file.display());
    }
    // Istio's gateways get them as a file of a ConfigMap.
    let maps = documents(&top().join("envoy/istio/metric-labels.yaml"));
    let mut files = maps
        .iter()
        .filter_map(|map| map["data"]["custom_bootstrap.json"].as_str());
    let json = files.next().unwrap();
    assert_eq!(tags(&serde_json::from_str(json).unwrap()), demo);
}
