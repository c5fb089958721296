//! A picker without a host around it, fed one byte at a time.

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::picker::{Effect, ExchangeId, Head, Picker};
use epp_core::time::Timestamp;

/// The time of all requests.
const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

/// A picker of two endpoints of which nothing is known, with these plugins (a list left open) and
/// all scorers among them.
pub fn picker(plugins: &str) -> Picker {
    let scorers = [
        "prefix-cache-scorer",
        "queue-scorer",
        "kv-cache-utilization-scorer",
        "lora-affinity-scorer",
    ];
    let used = scorers.into_iter().filter(|kind| plugins.contains(kind));
    let references: Vec<String> = used.map(|kind| format!("{{pluginRef: {kind}}}")).collect();
    let document = format!(
        "{plugins}, {{name: pods, type: static-discovery, parameters: {{endpoints: [
  {{name: p0, address: 10.0.0.1, port: 80}}, {{name: p1, address: 10.0.0.2, port: 80}}]}}}}]
kind: EndpointPickerConfig
schedulingProfiles: [{{name: default, plugins: [{}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
        references.join(", ")
    );
    let plan = config::load(&document)
        .unwrap_or_else(|rejected| panic!("{document}\n{rejected:#?}"))
        .plan;
    let mut picker = Picker::new(plan.clone(), 1);
    picker.install(plan);
    // The first tick joins the endpoints.
    picker.tick(NOW);
    picker
}

/// Returns how many bytes of a body are read, one at a time, until it is released.
pub fn bytes_read(picker: &mut Picker, path: &str, body: &str) -> usize {
    read_saying(picker, path, body, Some(body.len()))
}

/// Returns how many bytes of a body with this `content-length`, or none, are read until it is released.
pub fn read_saying(
    picker: &mut Picker,
    path: &str,
    body: &str,
    content_length: Option<usize>,
) -> usize {
    const ID: ExchangeId = ExchangeId(1);
    let head = Head::post_json(path, content_length);
    picker.request_headers(NOW, ID, &head);
    let mut shown = 0;
    while !is_decided(picker) {
        assert!(shown < body.len(), "{path}: held forever");
        shown += 1;
        show(picker, ID, body, shown);
    }
    // The rest streams past, and is still learnt.
    show(picker, ID, body, body.len());
    // Without a response nothing of it would be remembered.
    picker.response_headers(NOW, ID, None);
    picker.closed(NOW, ID);
    shown
}

/// Shows the beginning of a body.
pub fn show(picker: &mut Picker, id: ExchangeId, body: &str, shown: usize) {
    let part = &body.as_bytes()[..shown];
    let mut view = match shown == body.len() {
        true => SliceBody::whole(part),
        false => SliceBody::beginning(part),
    };
    picker.request_body(NOW, id, &mut view);
}

/// Returns whether a request has been decided since the last call.
pub fn is_decided(picker: &mut Picker) -> bool {
    let effects = std::iter::from_fn(|| picker.poll_effect());
    effects.filter(Effect::is_decision).count() > 0
}
