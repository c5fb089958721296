//! Load reports in responses, over a host in the same process.

use super::fake_host::host;
use super::filter_tests::{listed, request, vm};
use super::vm::Vm;

/// Returns the calls for a header of the response to a request with these headers, and whether it has a report afterwards.
fn calls_for_a_report(vm: &mut Vm, id: u32, headers: &[(&str, &str)]) -> (u32, bool) {
    let request_headers = [(":path", "/v1/completions"), (":method", "POST")];
    request(&[&request_headers, headers].concat());
    vm.request_headers(id, true);
    let asked = host(|host| {
        let headers = host.request.iter();
        headers.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    });
    let asked = asked.contains(&"endpoint-load-metrics-format".to_owned());
    let report = (
        "endpoint-load-metrics",
        "TEXT named_metrics.num_requests_waiting=1.0",
    );
    request(&[(":status", "200"), report][..1 + usize::from(asked)]);
    host(|host| host.calls.clear());
    vm.response_headers(id);
    vm.delete(id);
    host(|host| {
        let calls = host.calls.get("proxy_get_header_map_value").copied();
        let kept = host.request.iter().any(|(name, _)| name == report.0);
        (calls.unwrap_or(0), kept)
    })
}

#[test]
fn a_load_report_is_looked_for_only_where_one_was_asked_for() {
    let mut vm = vm(&listed("queue-scorer", ""));
    let asks = [("endpoint-load-metrics-format", "TEXT")];
    // The first responses are examined, as one is every 100 ms.
    let [plain, asked] = [&[][..], &asks].map(|headers| {
        (10..30).for_each(|id| {
            calls_for_a_report(&mut vm, id, headers);
        });
        calls_for_a_report(&mut vm, 30, headers)
    });
    assert_eq!(plain, (0, false));
    // The report, and the status of the response that has it.
    assert_eq!(asked, (2, true), "it is the client's");
}
