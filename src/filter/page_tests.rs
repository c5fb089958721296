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
    request(&[(":path", "/"), (":method", "GET")]);
    assert_eq!(vm.request_headers(10, true), Action::Pause);
    request(&[(":path", "/"), (":method", "POST")]);
    assert_eq!(vm.request_headers(11, true), Action::Pause);
    let answers = host(|host| host.answers.clone());
    assert_eq!([answers[0].0, answers[1].0], [200, 404]);
    assert!(answers[0].1.contains("Watching since now"));
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
        host(|host| host.answers.clear());
        request(&[(":path", "/"), (":method", "GET")]);
        assert_eq!(vm.request_headers(10, true), Action::Continue);
        assert!(host(|host| host.answers.is_empty()));
    }
}
