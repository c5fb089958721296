//! The status page's root, and what happens where it is not alone.

use super::abi::Action;
use super::fake_host::host;
use super::filter_tests::{listed, request, tick, vm, ROOT};
use super::vm::Vm;

/// A host whose plugin is the status page.
fn page() {
    host(|host| {
        let properties = [("plugin_name", "page"), ("plugin_root_id", "status")];
        host.properties = properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    });
}

#[test]
fn the_status_page_is_served_in_a_vm_of_its_own() {
    vm(&listed("queue-scorer", ""));
    page();
    let mut vm = Vm::default();
    assert!(vm.configure(9));
    let mut ask = |method, authority| {
        request(&[
            (":path", "/"),
            (":method", method),
            (":authority", authority),
        ]);
        assert_eq!(vm.request_headers(10, true), Action::Pause);
        host(|host| host.local_replies.pop()).unwrap()
    };
    assert!(ask("GET", "localhost:10001").1.contains("Collecting data"));
    assert_eq!(ask("POST", "localhost:10001").0, 404);
    for address in [
        "127.0.0.1:10001",
        "127.0.0.1",
        "[::1]:10001",
        "[::1]",
        "LocalHost",
    ] {
        assert_eq!(ask("GET", address).0, 200, "{address}");
    }
    // A web site whose name leads here.
    for name in [
        "evil.example:10001",
        "localhost.evil.example",
        "",
        "127.0.0.1.evil.example:80",
    ] {
        assert_eq!(ask("GET", name).0, 404, "{name}");
    }
    vm.delete(10);
}

#[test]
fn in_a_pickers_vm_the_page_is_refused_and_clients_do_not_see_it() {
    for page_first in [true, false] {
        let mut vm = vm(&listed("queue-scorer", ""));
        if page_first {
            let properties = host(|host| host.properties.clone());
            vm = Vm::default();
            page();
            assert!(vm.configure(9));
            host(|host| host.properties = properties);
            assert!(vm.configure(ROOT));
            tick(&mut vm);
        } else {
            page();
            assert!(!vm.configure(9));
        }
        assert!(host(|host| host.log.join(" ")).contains("a VM of its own"));
        host(|host| host.local_replies.clear());
        request(&[(":path", "/"), (":method", "GET")]);
        assert_eq!(vm.request_headers(10, true), Action::Continue);
        assert!(host(|host| host.local_replies.is_empty()));
    }
}
