//! The demo of flow control: the same load without it and with it, and where to look meanwhile.

use std::fs;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use demo::flow::{self, Class};
use envoy_harness::Process;

use crate::process::{self, Envoy};
use crate::show::wait_for_endpoints;
use crate::{DemoError, ADMIN, LISTENER, PODS, STATUS};

/// For how long the load is sent without flow control, and with it.
const LOAD: Duration = Duration::from_secs(10);

/// Sends the load without flow control and with it, and goes on until Ctrl-C.
pub fn run(envoy: &Envoy, stopped: &Receiver<()>) -> Result<(), DemoError> {
    let running = flow::RUNNING.to_string();
    let pods = process::start_pods(flow::SERVERS, PODS[0], 0, &["--max-running", &running])?;
    println!(
        "\n{} model servers run {running} requests of a second each. They get 64 requests per second, twice what\n\
         they complete. Every fourth is interactive.\n\n  {:<14} {:<12} {:>9} {:>9} {:>10} {:>10}",
        flow::SERVERS,
        "flow control",
        "requests",
        "answered",
        "dropped",
        "median",
        "95 %"
    );
    let mut demo = Demo {
        pods,
        proxy: None,
        stopped,
    };
    for flow_control in [false, true] {
        // The ports are free once the former Envoy has ended.
        demo.proxy = None;
        demo.proxy = Some(start(envoy, flow_control)?);
        let Some(classes) = demo.send(LOAD)? else {
            return Ok(());
        };
        rows(if flow_control { "with" } else { "without" }, &classes);
    }
    println!(
        r#"
The load goes on until Ctrl-C. Meanwhile, in another terminal:

  cargo run --quiet --package eppctl -- top http://127.0.0.1:{ADMIN}
  cargo run --quiet --package eppctl -- status http://127.0.0.1:{ADMIN}
  curl -s http://127.0.0.1:{ADMIN}/stats/prometheus | grep epp_flow_control
  curl -si http://127.0.0.1:{LISTENER}/v1/completions -H 'x-llm-d-inference-objective: interactive' \
       -H 'x-epp-explain: 1' -d '{{"model": "demo", "prompt": "When?", "max_tokens": 8}}'

In a browser, http://127.0.0.1:{STATUS} is the status page. docs/flow-control.md says what to look at."#
    );
    while demo.send(Duration::MAX)?.is_some() {}
    Ok(())
}

/// What runs.
struct Demo<'a> {
    pods: Process,
    proxy: Option<Process>,
    stopped: &'a Receiver<()>,
}

impl Demo<'_> {
    /// Sends the load for this long. Returns what became of it; `None` after Ctrl-C.
    fn send(&mut self, time: Duration) -> Result<Option<[Class; 2]>, DemoError> {
        let mut failure = Ok(());
        let classes = flow::overload(LISTENER, |passed| {
            if self.stopped.try_recv().is_ok() {
                // Its requests end with it, which may wait for half a minute otherwise.
                self.proxy = None;
                return true;
            }
            let proxy = self.proxy.as_mut();
            failure = self.pods.check_running();
            failure = failure
                .clone()
                .and_then(|()| proxy.map_or(Ok(()), Process::check_running));
            passed > time || failure.is_err()
        });
        failure?;
        Ok(self.proxy.is_some().then_some(classes))
    }
}

/// Starts Envoy with the example's document.
fn start(envoy: &Envoy, flow_control: bool) -> Result<Process, DemoError> {
    let read = |file| fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
    let bootstrap = read("envoy/envoy.yaml")?;
    let document = read("examples/flow-control.yaml")?;
    let text = flow::bootstrap(&bootstrap, &document, flow_control);
    let text = text.ok_or("envoy/envoy.yaml has no document")?;
    let file = "target/demo/flow-control.yaml";
    process::write(file, &text)?;
    let proxy = process::start_envoy(envoy, file, ADMIN)?;
    wait_for_endpoints(ADMIN, flow::SERVERS)?;
    Ok(proxy)
}

/// Prints a row of the table for each class.
fn rows(flow_control: &str, classes: &[Class]) {
    for class in classes {
        let [median, p95] =
            [class.median, class.p95].map(|time| format!("{:.2} s", time.as_secs_f64()));
        println!(
            "  {:<14} {:<12} {:>9} {:>9} {:>10} {:>10}",
            flow_control, class.name, class.answered, class.dropped, median, p95
        );
    }
}
