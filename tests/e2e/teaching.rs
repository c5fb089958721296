//! Only prompts with a successful response count as cached: a client cannot make the prefix index expect
//! prompts that no model server has computed.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use fake_model_server::{Faults, Settings, Sim};

use crate::client::{explain, raw};
use crate::explained;
use crate::proxy::{Proxy, Setup};
use crate::ticks::{wait_until_shared, wait_until_vms_share};

/// Returns a prompt of several blocks.
fn prompt(number: usize) -> String {
    format!("{number}: {}", "much to tell, and at length. ".repeat(20))
}

/// The head of a request, and its body as far as it makes sense, with room for some bytes more.
fn request(number: usize, more: usize) -> String {
    let body = format!(r#"{{"model":"m","prompt":"{}""#, prompt(number));
    let length = body.len() + more;
    format!("POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// The highest score of a prompt at any pod. The request is served.
fn known(proxy: &Proxy, number: usize) -> f64 {
    let response = explain(proxy.port, "m", &prompt(number));
    assert_eq!(response.status, 200);
    response.scores().into_iter().fold(0.0, f64::max)
}

fn start() -> (Sim, Proxy) {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &explained("prefix-cache-scorer"));
    setup.workers = 2;
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, 3);
    (sim, proxy)
}

#[test]
fn a_rejected_body_adds_nothing_to_the_index() {
    let (_sim, proxy) = start();
    let refused = |number| {
        let response = raw(
            proxy.port,
            &[request(number, 3).as_bytes(), b"!!!"],
            Duration::ZERO,
            |text| text.contains("\r\n\r\n"),
        );
        assert!(response.starts_with("HTTP/1.1 400"), "{response}");
        wait_until_shared(&proxy);
    };
    for number in 0..8 {
        refused(number);
        assert_eq!(known(&proxy, number), 0.0, "{number}");
        // The prompts with a response stay, once both workers have recorded them.
        proxy.wait_until("it is known", || {
            (0..8).all(|_| known(&proxy, number) > 0.5)
        });
        refused(number);
        assert!(known(&proxy, number) > 0.5, "{number}");
    }
    assert!(!proxy.logged().contains("randomness"));
}

#[test]
fn a_client_that_leaves_before_the_response_adds_nothing_to_the_index() {
    let (sim, proxy) = start();
    let hang = |hang| {
        let faults = Faults {
            hang,
            ..Faults::default()
        };
        sim.pods().for_each(|pod| pod.set_faults(faults.clone()));
    };
    hang(true);
    let uploads: Vec<TcpStream> = (0..4)
        .map(|number| {
            let mut upload = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
            upload.write_all(request(number, 1).as_bytes()).unwrap();
            upload.write_all(b"}").unwrap();
            upload
        })
        .collect();
    let size = || proxy.counted("llm_d_epp_prefix_indexer_size");
    proxy.wait_until("what is under way counts", || size() > 0);
    drop(uploads);
    proxy.wait_until("it counts no more", || size() == 0);
    hang(false);
    for number in 0..4 {
        assert_eq!(known(&proxy, number), 0.0, "{number}");
    }
}
