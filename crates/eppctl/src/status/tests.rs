use std::collections::BTreeMap;

use epp_core::findings::Severity;

use super::module_tests::DOCUMENT;
use super::*;
use crate::output::Report as _;

/// What a healthy Envoy exposes, as Envoy 1.40 writes it.
const STATISTICS: &str = r#"# TYPE envoy_server_live gauge
envoy_server_live{} 1
envoy_wasm_envoy_wasm_runtime_v8_active{} 3
envoy_listener_manager_lds_update_rejected{} 0
envoy_wasm_epp_vm_reload_success{} 0
epp_wasm_build_info{version="0.1.0",commit="0123abc",digest="fedcba98",envoy="1.40.0",tested="yes"} 1
epp_wasm_decision_mode{pool="pool"} 2
epp_wasm_endpoint_freshness{pool="pool",endpoint_name="10.0.0.1:8000"} 2
epp_wasm_endpoint_freshness{pool="pool",endpoint_name="10.0.0.2:8000"} 2
epp_wasm_endpoint_freshness{pool="pool",endpoint_name="10.0.0.9:8000"} 0
epp_wasm_endpoint_ejected{pool="pool",endpoint_name="10.0.0.2:8000",reason="status"} 0
epp_wasm_finding{pool="pool",finding="endpoints-ejected"} 0
llm_d_epp_ready_endpoints{pool="pool"} 2
llm_d_epp_scheduler_attempts_total{pool="pool",endpoint_name="10.0.0.1:8000",status="success"} 30
llm_d_epp_scheduler_attempts_total{pool="pool",endpoint_name="10.0.0.2:8000",status="success"} 12
llm_d_epp_datalayer_poll_errors_total{pool="pool",endpoint_name="10.0.0.1:8000",reason="timeout"} 3
epp_wasm_prefix_indexer_hit_blocks_total{pool="pool"} 21
epp_wasm_prefix_indexer_queried_blocks_total{pool="pool"} 42
llm_d_epp_request_input_tokens_bucket{pool="pool",model_name="m",le="8"} 7
llm_d_epp_request_input_tokens_count{pool="pool",model_name="m"} 42
"#;

const CLUSTERS: &str = "pool::default_priority::max_connections::1024
pool::10.0.0.1:8000::health_flags::healthy
pool::10.0.0.2:8000::health_flags::healthy
";

const SERVER: &str = r#"{"version": "9e55/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE", "uptime_current_epoch": "13s", "command_line_options": {"concurrency": 2}}"#;

pub fn pages() -> Pages {
    Pages {
        statistics: STATISTICS.to_owned(),
        clusters: Some(CLUSTERS.to_owned()),
        dump: Some(dump("vm_id: epp")),
        server: Some(SERVER.to_owned()),
    }
}

/// A config dump with one filter, which may lack its `vm_id`.
fn dump(vm_id: &str) -> String {
    dump_of(&format!("{{'@type': type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {{allow_on_headers_stop_iteration: true, failure_policy: FAIL_RELOAD, vm_config: {{{vm_id}}}, configuration: {{'@type': type.googleapis.com/google.protobuf.StringValue, value: '{DOCUMENT}'}}}}}}"))
}

/// A config dump with this filter.
pub fn dump_of(filter: &str) -> String {
    let policy = "{policies: [{typed_extension_config: {typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost, override_host_sources: [{header: x-gateway-destination-endpoint}]}}}]}";
    format!("{{configs: [{{'@type': x/v3.ClustersConfigDump, static_clusters: [{{cluster: {{name: pool, load_assignment: {{}}, load_balancing_policy: {policy}}}}}, {{cluster: {{name: prometheus_stats, load_assignment: {{}}}}}}]}}, {{'@type': x/v3.EcdsConfigDump, ecds_filters: [{{ecds_filter: {{name: epp, typed_config: {filter}}}}}]}}]}}")
}

pub fn report(pages: &Pages) -> Report {
    Report::of(pages, &"127.0.0.1:9901".parse().unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

pub fn text(report: &Report) -> String {
    let mut text = Vec::new();
    report.text(&mut text).unwrap();
    String::from_utf8(anstream::adapter::strip_bytes(&text).into_vec()).unwrap()
}

fn ids(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| &*finding.id).collect()
}

#[test]
fn a_healthy_envoy_has_its_facts() {
    let report = report(&pages());
    assert_eq!(report.verdict, Verdict::Healthy, "{:?}", report.findings);
    assert_eq!(
        text(&report),
        "healthy: 2 endpoints of pool can be picked

  Envoy         1.40.0 (tested), LIVE, up for 13s, workers: 2, WebAssembly VMs: 3
  module        0.1.0, commit 0123abc, digest fedcba98
  configuration 1 filter with an EndpointPickerConfig
pool pool
  endpoints     2 can be picked; metrics of 2 fresh, 0 stale, 0 never read
  ejected       none
  decisions     on the endpoints' metrics
  requests      since the module was loaded: 42 picked, 0 rejected, 0 left to Envoy, 0 served elsewhere, 0 left alone (for other clusters)
  cache         50 % of a prompt expected in it; servers do not report cached tokens
  poll errors   since the module was loaded: timeout 3
  series        14 of at most 400000; the most: epp_wasm_endpoint_freshness 3, llm_d_epp_request_input_tokens 2, llm_d_epp_scheduler_attempts_total 2
"
    );
}

#[test]
fn flow_control_has_a_line() {
    let mut pages = pages();
    pages.statistics = STATISTICS.to_owned()
        + r#"epp_wasm_flow_control_pool_saturation_ppm{pool="pool",stage="decode"} 1250000
epp_wasm_flow_control_pool_saturation_ppm{pool="pool",stage="effective"} 1250000
llm_d_epp_flow_control_queue_size{pool="pool",priority="10"} 2
llm_d_epp_flow_control_queue_size{pool="pool",priority="-1"} 30
llm_d_epp_flow_control_queue_bytes{pool="pool",priority="-1"} 20480
llm_d_epp_flow_control_requests_total{pool="pool",priority="-1",outcome="Dispatched"} 7
epp_wasm_flow_control_evictions_total{pool="pool",priority="-1"} 3
"#;
    let line = "  flow control  saturation: decode 125 %, effective 125 %; waiting: 2 of priority 10, 30 of priority -1 (20 KiB); since the module was loaded: Dispatched 7, 3 evicted\n";
    let text = text(&report(&pages));
    assert!(text.contains(line), "{text}");
}

#[test]
fn findings_have_their_place_cause_and_remedy_the_worst_first() {
    let mut pages = pages();
    pages.statistics = STATISTICS
        .replace(r#"status"} 0"#, r#"status"} 1"#)
        .replace(r#""endpoints-ejected"} 0"#, r#""endpoints-ejected"} 1"#)
        + "epp_wasm_finding{pool=\"pool\",finding=\"pool-empty\"} 1\n"
        + "epp_wasm_finding{pool=\"pool\",finding=\"dry-run\"} 1\n"
        + "epp_wasm_finding{pool=\"pool\",finding=\"from-the-future\"} 1\n";
    let report = report(&pages);
    assert_eq!(report.verdict, Verdict::NotHealthy);
    assert_eq!(
        ids(&report),
        [
            "pool-empty",
            "endpoints-ejected",
            "from-the-future",
            "dry-run"
        ]
    );
    let text = text(&report);
    let first = "not healthy: 1 broken, 2 degraded; 1 note\n\nbroken: pool-empty of pool\n  cause: The pool has no endpoints.\n  remedy: ";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("  where: 10.0.0.2:8000 (status)\n"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json.pointer("/verdict"), Some(&"not-healthy".into()));
    assert_eq!(json.pointer("/findings/0/severity"), Some(&"broken".into()));
}

#[test]
fn an_outage_of_all_endpoints_is_in_the_first_line() {
    let first = |ready: &str| {
        let mut pages = pages();
        let ready = format!("ready_endpoints{{pool=\"pool\"}} {ready}\n");
        pages.statistics = STATISTICS.replace("ready_endpoints{pool=\"pool\"} 2\n", &ready)
            + "epp_wasm_finding{pool=\"pool\",finding=\"endpoints-unhealthy\"} 1\n";
        let report = report(&pages);
        text(&report).lines().next().unwrap().to_owned()
    };
    let none = "not healthy: 1 degraded; no endpoint of pool can be picked";
    assert_eq!(first("0"), none);
    assert_eq!(first("1"), "not healthy: 1 degraded");
}

#[test]
fn notes_are_no_fault() {
    let mut pages = pages();
    pages.statistics = STATISTICS.replace("lds_update_rejected{} 0", "lds_update_rejected{} 2")
        + "epp_wasm_finding{pool=\"pool\",finding=\"no-cached-tokens\"} 1\n";
    let report = report(&pages);
    assert_eq!(report.verdict, Verdict::Healthy);
    assert_eq!(ids(&report), ["no-cached-tokens", "updates-refused"]);
    assert!(text(&report).starts_with("healthy: 2 endpoints of pool can be picked; 2 notes\n"));
    let place = report.findings[1].place.as_deref();
    assert_eq!(place, Some("envoy_listener_manager_lds_update_rejected 2"));
}

#[test]
fn the_configuration_in_force_is_linted() {
    let mut pages = pages();
    pages.dump = Some(dump(""));
    let linted = report(&pages);
    // Advice: the page of the filter says "healthy", too.
    assert_eq!(linted.verdict, Verdict::Healthy);
    assert_eq!(ids(&linted), ["vm-id"]);
    assert_eq!(linted.findings[0].severity, Severity::Note);
    let place = linted.findings[0].place.as_deref().unwrap();
    assert!(
        place.starts_with("/config_dump:1:configs[1].ecds_filters[0]"),
        "{place}"
    );
    // The filter and lint have the same finding: it is one, with a place.
    pages.dump = Some(dump("vm_id: epp").replace("OverrideHost", "Maglev"));
    pages.statistics =
        format!("{STATISTICS}epp_wasm_finding{{pool=\"pool\",finding=\"no-override-host\"}} 1\n");
    let both = report(&pages);
    assert_eq!(ids(&both), ["no-override-host"]);
    assert!(both.findings[0].place.is_some() && both.findings[0].severity == Severity::Broken);
    // The filter needs requests to notice it.
    pages.statistics = STATISTICS.to_owned();
    let early = report(&pages);
    assert_eq!(ids(&early), ["no-override-host"]);
    assert_eq!(early.findings[0].severity, Severity::Broken);
}

#[test]
fn a_refused_update_is_a_fault_until_one_is_accepted() {
    let mut pages = pages();
    pages.statistics = STATISTICS.replace("lds_update_rejected{} 0", "lds_update_rejected{} 1");
    let refused = "configs: [{'@type': x/v3.ListenersConfigDump, dynamic_listeners: [{name: llm, error_state: {details: 'bad value'}}]}, ";
    pages.dump = Some(dump("vm_id: epp").replace("configs: [", refused));
    let after = report(&pages);
    assert_eq!(after.verdict, Verdict::NotHealthy);
    assert_eq!(ids(&after), ["refused-update", "updates-refused"]);
    assert!(text(&after).starts_with("not healthy: 1 degraded; 1 note\n"));
    // Envoy forgets the error with the next update that it accepts; its counter stays.
    pages.dump = Some(dump("vm_id: epp"));
    assert_eq!(report(&pages).verdict, Verdict::Healthy);
}

#[test]
fn a_refused_cluster_or_route_is_a_fault_whose_end_no_dump_tells() {
    for counter in [
        "envoy_cluster_manager_cds_update_rejected{}",
        "envoy_http_rds_update_rejected{envoy_rds_route_config=\"llm\"}",
        "envoy_cluster_update_rejected{envoy_cluster_name=\"pool\"}",
    ] {
        let mut pages = pages();
        pages.statistics = format!("{STATISTICS}{counter} 1\n");
        // Of Envoy 1.40: it has no error_state of clusters and routes.
        pages.dump = Some(dump("vm_id: epp"));
        let report = report(&pages);
        assert_eq!(report.verdict, Verdict::NotHealthy, "{counter}");
        assert_eq!(ids(&report), ["updates-refused"]);
        assert!(report.findings[0].cause.contains("cannot be told"));
    }
}

#[test]
fn a_refused_filter_is_a_fault_even_if_counters_were_reset() {
    let told = |last_updated: &str| {
        let mut pages = pages();
        let prefix = "envoy_extension_config_discovery_http_filter_epp";
        // POST /reset_counters leaves gauges alone.
        pages.statistics = format!(
            "{STATISTICS}{prefix}_update_rejected{{}} 0\n{prefix}_update_success{{}} 0\n{prefix}_config_reload{{}} 0\n{prefix}_update_time{{}} 1795990780217\n"
        );
        let received = format!("{{last_updated: '{last_updated}', ecds_filter: {{name: epp");
        pages.dump = Some(dump("vm_id: epp").replace("{ecds_filter: {name: epp", &received));
        report(&pages).verdict
    };
    assert_eq!(told("2026-11-29T22:19:57.545Z"), Verdict::NotHealthy);
    assert_eq!(told("2026-11-29T22:19:40.200Z"), Verdict::Healthy);
}

#[test]
fn a_filter_that_was_refused_is_a_fault_until_one_is_accepted() {
    let told = |success: u32, reload: u32, update_time: u64| {
        let mut pages = pages();
        let counts = format!(
            "PREFIX_update_rejected{{}} 1\nPREFIX_update_success{{}} {success}\nPREFIX_config_reload{{}} {reload}\nPREFIX_update_time{{}} {update_time}\n"
        );
        let prefix = "envoy_extension_config_discovery_http_filter_epp";
        pages.statistics = format!("{STATISTICS}{}", counts.replace("PREFIX", prefix));
        let received = "{last_updated: '2026-11-29T22:19:57.545Z', ecds_filter: {name: epp";
        pages.dump = Some(dump("vm_id: epp").replace("{ecds_filter: {name: epp", received));
        let report = report(&pages);
        assert_eq!(ids(&report), ["filter-updates-refused"]);
        (report.verdict, report.findings[0].severity)
    };
    let (before, after) = (1_795_990_780_217, 1_795_990_797_564);
    let fault = (Verdict::NotHealthy, Severity::Degraded);
    assert_eq!(told(1, 2, before), fault);
    assert_eq!(told(2, 3, after), (Verdict::Healthy, Severity::Note));
    // It may be the refused one that was sent again.
    assert_eq!(told(2, 2, after), fault);
}

#[test]
fn what_was_refused_or_failed_is_a_fault_since_the_start_unless_it_is_known_to_be_over() {
    let found = |before: &str, after: &str, dump: bool| {
        let mut pages = pages();
        pages.statistics = STATISTICS.replace(before, after);
        if !dump {
            pages.dump = None;
        }
        let report = report(&pages);
        let found = report.findings.into_iter();
        let found = found.map(|one| (one.id, one.severity, one.cause.contains("since it started")));
        (report.verdict, found.collect::<Vec<_>>())
    };
    let degraded = |id: &str| vec![(id.to_owned(), Severity::Degraded, true)];
    let (none, reloads) = ("lds_update_rejected{} 0", "vm_reload_success{} 0");
    let some = "lds_update_rejected{} 1";
    let (verdict, findings) = found(none, some, false);
    assert_eq!(findings, degraded("updates-refused"));
    assert_eq!(verdict, Verdict::NotHealthy);
    assert_eq!(found(none, some, true).0, Verdict::Healthy);
    let by_ecds =
        format!("{none}\nenvoy_extension_config_discovery_http_filter_epp_update_rejected{{}} 1");
    for dump in [true, false] {
        let (verdict, findings) = found(none, &by_ecds, dump);
        assert_eq!(findings, degraded("filter-updates-refused"));
        assert_eq!(verdict, Verdict::NotHealthy);
        let (verdict, findings) = found(reloads, "vm_reload_success{} 1", dump);
        assert_eq!(findings[0].0, "module-failed");
        assert_eq!(verdict, Verdict::NotHealthy);
    }
}

/// As a server may have it that is not an Envoy.
#[test]
fn a_crafted_page_takes_no_longer_than_its_length() {
    use std::fmt::Write;
    let mut pages = pages();
    for number in 0..20_000 {
        let (pool, endpoint) = (
            format!("p{number}"),
            format!("10.1.{}.{}:80", number >> 8, number & 255),
        );
        for line in [
            format!("epp_wasm_finding{{pool=\"{pool}\",finding=\"polls-fail\"}} 1"),
            format!("epp_wasm_finding{{pool=\"{pool}\",finding=\"endpoints-unhealthy\"}} 1"),
            format!("epp_wasm_endpoint_freshness{{pool=\"pool\",endpoint_name=\"{endpoint}\"}} 0"),
            format!("llm_d_epp_datalayer_poll_errors_total{{pool=\"pool\",endpoint_name=\"{endpoint}\",reason=\"reset\"}} 1"),
        ] {
            writeln!(pages.statistics, "{line}").unwrap();
        }
        let clusters = pages.clusters.as_mut().unwrap();
        writeln!(
            clusters,
            "{pool}::{endpoint}::health_flags::/failed_eds_health"
        )
        .unwrap();
    }
    // The same finding again and again.
    for number in 0..20_000 {
        writeln!(
            pages.statistics,
            "epp_wasm_finding{{pool=\"pool\",finding=\"polls-fail\",x=\"{number}\"}} 1"
        )
        .unwrap();
    }
    let begun = cpu_time::ThreadTime::now();
    assert_eq!(report(&pages).findings.len(), 40_001);
    // Each pool with each line would be two thousand million.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn endpoints_that_are_not_well_are_named() {
    let mut pages = pages();
    pages.clusters = Some(CLUSTERS.replace(
        "10.0.0.2:8000::health_flags::healthy",
        "10.0.0.2:8000::health_flags::/failed_active_hc",
    ));
    pages.statistics = STATISTICS.replace(r#"10.0.0.1:8000"} 2"#, r#"10.0.0.1:8000"} 1"#)
        + "epp_wasm_finding{pool=\"pool\",finding=\"endpoints-unhealthy\"} 1\n"
        + "epp_wasm_finding{pool=\"pool\",finding=\"metrics-stale\"} 1\n";
    let report = report(&pages);
    let places: BTreeMap<&str, &str> = report
        .findings
        .iter()
        .map(|finding| (&*finding.id, finding.place.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(
        places["endpoints-unhealthy"],
        "10.0.0.2:8000 (failed_active_hc)"
    );
    // The third has left: no cluster has it.
    assert_eq!(
        places["metrics-stale"],
        "10.0.0.1:8000 (since the module was loaded: timeout 3)"
    );
    pages.clusters = None;
    let text = text(&self::report(&pages));
    let place =
        "  where: not exposed at this address; `eppctl status unix:/run/envoy/admin.sock` names";
    assert!(text.contains(place), "{text}");
}

#[test]
fn a_cause_comes_before_what_it_leads_to() {
    let mut pages = pages();
    for id in [
        "own-counts",
        "polls-fail",
        "metrics-stale",
        "from-the-future",
    ] {
        let finding = format!("epp_wasm_finding{{pool=\"pool\",finding=\"{id}\"}} 1\n");
        pages.statistics.push_str(&finding);
    }
    let sorted = [
        "polls-fail",
        "metrics-stale",
        "own-counts",
        "from-the-future",
    ];
    assert_eq!(ids(&report(&pages)), sorted);
}

#[test]
fn a_fault_in_the_configuration_is_the_place_of_what_it_leads_to() {
    let mut pages = pages();
    pages.dump = Some(dump("vm_id: epp").replace("name: pool,", "name: other,"));
    pages.statistics =
        format!("{STATISTICS}epp_wasm_finding{{pool=\"pool\",finding=\"cluster-unknown\"}} 1\n");
    let unknown = report(&pages);
    assert_eq!(ids(&unknown), ["cluster-unknown"]);
    let place = unknown.findings[0].place.as_deref().unwrap();
    assert!(
        place.starts_with("/config_dump:1:configs[1]")
            && place.ends_with(": cluster pool does not exist"),
        "{place}"
    );
    pages.dump = None;
    pages.statistics = format!(
        "{STATISTICS}epp_wasm_finding{{pool=\"pool\",finding=\"requests-left-alone\"}} 1\nepp_wasm_left_alone_total{{pool=\"pool\",route_cluster=\"other\"}} 7\n"
    );
    let left = report(&pages);
    assert_eq!(left.findings[0].place.as_deref(), Some("other (7)"));
    // A pool that gets no requests yet is well, unless no route leads to it.
    assert_eq!(left.verdict, Verdict::Healthy);
    let in_route = "{'@type': x/v3.ListenersConfigDump, static_listeners: [{listener: {name: l, filter_chains: [{filters: [{name: hcm, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, route_config: {name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: other}}]}]}, http_filters: [{name: epp";
    let alone = "{'@type': x/v3.EcdsConfigDump, ecds_filters: [{ecds_filter: {name: epp";
    let routed = dump("vm_id: epp").replace(alone, in_route);
    let routed = routed.strip_suffix("}}]}]}").unwrap();
    pages.dump = Some(format!("{routed}}}]}}}}]}}]}}}}]}}]}}"));
    let unrouted = report(&pages);
    let mut left = unrouted.findings.iter();
    let left = left.find(|finding| finding.id == "requests-left-alone");
    assert_eq!(left.unwrap().severity, Severity::Degraded);
}

#[test]
fn a_pool_that_no_vm_reports_any_more_changes_no_verdict() {
    let mut pages = pages();
    let gone = "llm_d_epp_ready_endpoints{pool=\"polo\"} 0\nepp_wasm_finding{pool=\"polo\",finding=\"cluster-unknown\"} 0\n";
    pages.statistics = format!("{STATISTICS}{gone}epp_wasm_sharing_vms{{pool=\"polo\"}} 1\n");
    assert_eq!(report(&pages).verdict, Verdict::Unknown, "it is there");
    pages.statistics = format!("{STATISTICS}{gone}epp_wasm_sharing_vms{{pool=\"polo\"}} 0\n");
    let report = report(&pages);
    assert_eq!(report.verdict, Verdict::Healthy);
    assert!(text(&report).starts_with("healthy: 2 endpoints of pool can be picked\n"));
}

#[test]
fn a_listener_with_statistics_only_is_enough_for_the_filters_own_findings() {
    let pages = Pages {
        statistics: format!(
            "{STATISTICS}epp_wasm_finding{{pool=\"pool\",finding=\"no-poller\"}} 1\n"
        ),
        ..Pages::default()
    };
    let report = report(&pages);
    assert_eq!(ids(&report), ["no-poller"]);
    let text = text(&report);
    assert!(text.contains("version not exposed here"), "{text}");
    assert!(text.contains("so that it was not checked"), "{text}");
}

#[test]
fn labels_without_their_tag_are_read_from_the_name() {
    let mut pages = pages();
    pages.statistics = STATISTICS
        .replace("epp_wasm_build_info{", "epp_wasm_build_info_version_0_1_0{")
        + "epp_wasm_finding_finding_no_poller{pool=\"pool\"} 1\n";
    assert_eq!(ids(&report(&pages)), ["no-poller"]);
    // No tags at all.
    pages.statistics = "envoy_server_live{} 1\nepp_wasm_build_info_version_0_1_0{} 1\nepp_wasm_finding_pool_pool_finding_no_poller{} 1\n".to_owned();
    assert_eq!(ids(&report(&pages)), ["labels-missing"]);
}

#[test]
fn a_filter_that_does_not_run_is_a_finding_and_none_is_an_error() {
    let mut pages = pages();
    pages.statistics = "envoy_server_live{} 1\n".to_owned();
    assert_eq!(ids(&report(&pages)), ["filter-not-running"]);
    pages.dump = None;
    let admin: Admin = "127.0.0.1:9901".parse().unwrap();
    let error = Report::of(&pages, &admin).err().unwrap().to_string();
    assert!(error.contains("no epp-wasm statistics"), "{error}");
    pages.dump = Some("{configs: [{'@type': x/v3.ClustersConfigDump}]}".to_owned());
    assert!(Report::of(&pages, &admin).is_err());
}

#[test]
fn a_filter_that_reports_no_findings_is_not_called_healthy() {
    let mut pages = pages();
    pages.statistics = STATISTICS.replace("epp_wasm_build_info", "epp_wasm_other");
    let report = report(&pages);
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(
        text(&report).starts_with("unknown: the filter is of a version that reports no findings")
    );
}

#[test]
fn a_filter_that_has_only_just_started_is_not_called_healthy() {
    let mut pages = pages();
    let ready = "ready_endpoints{pool=\"pool\"}";
    pages.statistics = STATISTICS.replace(&format!("{ready} 2"), &format!("{ready} 0"));
    let report = report(&pages);
    assert_eq!(report.verdict, Verdict::Unknown);
    assert!(text(&report).starts_with("unknown: no endpoint can be picked yet"));
}
